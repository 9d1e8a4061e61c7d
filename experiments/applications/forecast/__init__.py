"""Forecasts of time series: sunspots, weather, prices, or your own."""
