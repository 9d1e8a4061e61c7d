"""Prices: the monthly S&P 500 since 1871, and the daily VIX since 1990.

The files are downloaded once. The sources of the prices are R. Shiller
(http://www.econ.yale.edu/~shiller/data.htm) and Cboe; the files are from the
collections https://github.com/datasets/s-and-p-500 and finance-vix. The maintainer of
the two collections claims the licence ODC-PDDL; the sources state no licence.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find

SHILLER = "shiller/data.csv"
SHILLER_SHA256 = "28d16941c581bda9bdcae4e0f9e3cc4b61204f8484e8c2249abdde2efe2cc3c4"
SHILLER_URL = (
    "https://raw.githubusercontent.com/datasets/s-and-p-500/"
    "f23898667d8764ea9e8a641b0b41487437e33b39/data/data.csv"
)
SHILLER_COLUMNS = ["SP500", "Dividend", "Earnings", "Consumer Price Index"]
SHILLER_COLUMNS += ["Long Interest Rate", "Real Price", "Real Dividend"]
SHILLER_COLUMNS += ["Real Earnings", "PE10"]
VIX_FILE = "vix/vix-daily.csv"
VIX_SHA256 = "fa8f8119bb2fa785bb408bcae541a1e630fef97f3acb160b94ed3115c1318db5"
VIX_URL = (
    "https://raw.githubusercontent.com/datasets/finance-vix/"
    "6f56e2760520824b787cf6b85945c62186d38bc6/data/vix-daily.csv"
)


class Shiller(NamedTuple):
    """S&P 500 data of the 1866 months from 1871-01 to 2026-06; NaN if missing.

    The price of a month is the mean of the prices in this month. The returns of
    successive months are therefore autocorrelated by construction.
    By convention, the first 1,492 of the 1,865 log-returns are the training part.
    """

    months: np.ndarray  # datetime64[M], month of each row
    price: np.ndarray  # price of the S&P 500; no values are missing
    dividend: np.ndarray
    earnings: np.ndarray
    consumer_prices: np.ndarray
    long_rate: np.ndarray  # long-term interest rate in %
    real_price: np.ndarray
    real_dividend: np.ndarray
    real_earnings: np.ndarray
    pe10: np.ndarray  # price / mean earnings of the last ten years; missing before 1881


class VIX(NamedTuple):
    """Values of the VIX on the 9235 trading days from 1990-01-02 to 2026-07-23.

    No values are missing. On 47 days, the opening or the closing value is not between
    the lowest and the highest value. On 506 days, the source knew only the closing
    value. Closing values are therefore more reliable than opening, lowest and highest
    values. By convention, the first 7,388 days, up to 2019-05-02, are the training
    part.
    """

    dates: np.ndarray  # datetime64[D], trading days
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray


def shiller() -> Shiller:
    """Load all months of Shiller's data."""
    path = find(SHILLER, SHILLER_SHA256)
    path = path or fetch(SHILLER_URL, SHILLER_SHA256, SHILLER)
    dates, numbers = _columns(path, ["Date", *SHILLER_COLUMNS])
    numbers[numbers == 0] = np.nan  # in the file, a 0 marks a missing value
    return Shiller(dates.astype("datetime64[M]"), *numbers)


def vix() -> VIX:
    """Load all days of the VIX."""
    path = find(VIX_FILE, VIX_SHA256) or fetch(VIX_URL, VIX_SHA256, VIX_FILE)
    dates, numbers = _columns(path, ["DATE", "OPEN", "HIGH", "LOW", "CLOSE"])
    return VIX(dates, *numbers)


def _columns(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the dates [N] in a CSV file, and its other columns [columns, N]."""
    with path.open(encoding="ascii", newline="") as file:
        header, *rows = csv.reader(file)
    if header != names:
        raise ValueError(f"{path}: expected the columns {names}, got {header}.")
    dates, *numbers = zip(*rows, strict=True)
    return np.array(dates, "datetime64[D]"), np.array(numbers, float)
