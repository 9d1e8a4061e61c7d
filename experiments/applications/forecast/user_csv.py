"""A series of one's own, from a CSV file, and its forecast as another CSV file."""

import csv
import math
import os
from array import array
from pathlib import Path

import numpy as np

from experiments.applications.forecast.series import Series
from experiments.harness.options import did_you_mean

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
LARGEST = 5000  # steps of the validation and of the test part at most
AT_MOST = 200  # steps ahead


def read_column(path: Path, name: str) -> np.ndarray:
    """Return a column of numbers, [rows], NaN where a cell is empty or says NA.

    Rows are read one by one, so that only the column is ever held. Fields are separated
    by commas, semicolons or tabs, whichever the header has most of.

    Args:
      path: a CSV file in UTF-8 whose first line has the names of columns.
      name: of the column.

    Raises:
      ValueError: if there is no such file or column, or a cell holds no number.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    numbers = array("d")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if not first.strip():
                raise ValueError(
                    f"{path} is empty, or its first line is; that must have the "
                    "names of the columns."
                )
            comma = max(",;\t", key=first.count)
            header = [
                each.strip() for each in next(csv.reader([first], delimiter=comma))
            ]
            place = _place(path, name, header)
            blank = 0
            for row in (rows := csv.reader(file, delimiter=comma)):
                if not row:  # at the end of the file, or of a single column nothing
                    blank += len(header) == 1
                    continue
                numbers.extend([math.nan] * blank)
                numbers.append(_number(row, place, name, path, rows.line_num + 1))
                blank = 0
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8: {error.reason} at byte {error.start}. "
            "Save it as UTF-8."
        ) from None
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file: {error}.") from None
    return np.array(numbers)


def _place(path: Path, name: str, header: list[str]) -> int:
    if header.count(name) != 1:
        what = "twice or more in it" if name in header else "not in it"
        raise ValueError(
            f"column {name!r} of {path} is {what}; there are: {', '.join(header)}."
            f"{did_you_mean(name, header)}"
        )
    return header.index(name)


def _number(row: list[str], place: int, name: str, path: Path, line: int) -> float:
    """Return the number of a cell."""
    if place >= len(row):
        raise ValueError(
            f"line {line} of {path} has {len(row)} fields, and so no {name!r}; leave "
            "the field empty where it is missing."
        )
    cell = row[place].strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(
            f"column {name!r} must hold numbers; line {line} of {path} has {cell!r}. "
            "Leave the field empty where one is missing."
        )
    return number


def read_series(path: Path, name: str, horizon: int, season: int | None) -> Series:
    """Return a column as a series, its end for validation and test.

    The last fifth is for test, an eighth before it for validation, neither of more than
    5000 rows.

    Args:
      path: a CSV file.
      name: of the column.
      horizon: how many rows ahead to forecast.
      season: after how many rows a season repeats itself; None for no season.

    Raises:
      ValueError: if it cannot be read, is too short for the horizon, has too little
        that is known, or is constant.
    """
    if not 1 <= horizon <= AT_MOST:
        raise ValueError(f"horizon must be in 1..{AT_MOST}, got {horizon}.")
    values = read_column(path, name)
    rows, least = len(values), max(40, 8 * (horizon + 2))
    if rows < least:
        raise ValueError(
            f"column {name!r} of {path} has {rows} rows; a horizon of {horizon} needs "
            f"{least} at least, to learn from some and to be tested on others."
        )
    known = values[np.isfinite(values)]
    if len(known) < rows / 2:
        raise ValueError(
            f"column {name!r} of {path} has only {len(known)} numbers in {rows} rows; "
            "half of them at least must be known."
        )
    if np.ptp(known) == 0:
        raise ValueError(
            f"column {name!r} of {path} is {known[0]:g} in all rows: it is constant, "
            "and there is nothing to learn."
        )
    with np.errstate(over="ignore", under="ignore"):
        variance = float(np.var(known))
    if not 1e-200 < variance < 1e200:
        raise ValueError(
            f"column {name!r} of {path} has numbers that are too large or too small to "
            f"be squared, such as {known[0]:g}: take another unit."
        )
    test = rows - min(rows // 5, LARGEST)
    steps = np.arange(rows)
    return Series(
        name="csv",
        title=f"{name} of {path.name}",
        unit=name,
        times=steps,
        values=values,
        others=np.zeros((rows, 0)),
        phase=steps % season if season else np.full(rows, -1),
        season=season or 0,
        validation=test - min(rows // 8, LARGEST),
        test=test,
        periods={f"last {rows - test} rows": (test, rows)},
        horizons=tuple(range(1, horizon + 1)),
        lags=min(24, rows // 10),
    )


def write_forecast(path: Path, rows: int, said: np.ndarray) -> None:
    """Write a forecast [H, 3] from the last row on: all of the file, or none.

    Args:
      path: the CSV file to write.
      rows: of the series; the next one has this index, counted from 0.
      said: the value, and the ends of the interval, for each step ahead.
    """
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["row", "ahead", "forecast", "low_5_percent", "high_95_percent"]
        )
        for ahead, numbers in enumerate(said.tolist(), 1):
            writer.writerow([rows - 1 + ahead, ahead, *(f"{x:.6g}" for x in numbers)])
    os.replace(beside, path)
