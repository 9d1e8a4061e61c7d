"""Yearly sunspot numbers 1700–2008, committed beside this file.

The data are in the public domain (NOAA/NGDC). The file sunspots.csv is a copy, without
changes, of `statsmodels/datasets/sunspots/sunspots.csv` in the package statsmodels.
"""

import pathlib
from typing import NamedTuple

import numpy as np

FILE = pathlib.Path(__file__).with_name("sunspots.csv")


class Sunspots(NamedTuple):
    """Years [309], and mean sunspot number of each year [309]."""

    years: np.ndarray
    numbers: np.ndarray


def sunspots() -> Sunspots:
    """Load all years; by convention, models train on 1700–1920, test on 1921–1979."""
    years, numbers = np.loadtxt(FILE, delimiter=",", skiprows=1, unpack=True)
    return Sunspots(years.astype(int), numbers.astype(np.float32))
