"""Baseline models that several studies compare networks with."""
