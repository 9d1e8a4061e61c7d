"""Daily weather of Seattle from 2012 to 2015, downloaded once.

The data are in the public domain (NOAA, National Centers for Environmental
Information); the file is from the collection vega-datasets. The file has 1461 days,
without gaps or missing values.
"""

import csv
from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find

FILE = "seattle_weather/seattle-weather.csv"
SHA256 = "0845078a290b48e3149ab8639966824110a251db4e06fc144c06ebb534af23be"
URL = (
    "https://raw.githubusercontent.com/vega/vega-datasets/"
    "cad85578e232704bb0453544742440038038c6a2/data/seattle-weather.csv"
)


class SeattleWeather(NamedTuple):
    """Daily values [1461]; by convention, 2014 is for validation, and 2015 for test."""

    dates: np.ndarray  # datetime64[D]
    precipitation: np.ndarray  # mm
    temp_max: np.ndarray  # °C
    temp_min: np.ndarray  # °C
    wind: np.ndarray  # m/s
    weather: np.ndarray  # drizzle, fog, rain, snow or sun


def seattle_weather() -> SeattleWeather:
    """Load the weather of all four years."""
    path = find(FILE, SHA256) or fetch(URL, SHA256, FILE)
    with path.open(encoding="ascii", newline="") as file:
        header, *lines = csv.reader(file)
    if header != ["date", *SeattleWeather._fields[1:]]:
        raise ValueError(f"{path}: unexpected columns {header}.")
    dates, *numbers, weather = map(np.array, zip(*lines, strict=True))
    rain, high, low, wind = (column.astype(float) for column in numbers)
    days = dates.astype("datetime64[D]")
    return SeattleWeather(days, rain, high, low, wind, weather)
