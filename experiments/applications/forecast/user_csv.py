"""A user's series from a CSV file, and its forecast as another CSV file."""

import csv
import math
import os
from array import array
from pathlib import Path

import numpy as np

from experiments.applications.forecast.series import Series
from experiments.harness.options import did_you_mean

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
LARGEST = 5000  # largest number of steps in the validation part, and in the test part
AT_MOST = 200  # largest horizon


def read_column(path: Path, name: str) -> np.ndarray:
    """Return a column of numbers, [rows]; empty cells and NA become NaN.

    Rows are read one by one, so that only the column is held in memory. Fields are
    separated by commas, semicolons or tabs, whichever is most frequent in the header.

    Args:
      path: a CSV file in UTF-8 whose first line has the names of columns.
      name: name of the column.

    Raises:
      ValueError: if there is no such file or column, if the file is not CSV in UTF-8,
        or if a cell is neither a finite number nor missing.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    numbers = array("d")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if not first.strip():
                raise ValueError(
                    f"{path} is empty, or its first line is; the first line must have "
                    "the names of the columns."
                )
            comma = max(",;\t", key=first.count)
            header = [
                each.strip() for each in next(csv.reader([first], delimiter=comma))
            ]
            place = _place(path, name, header)
            blank = 0
            for row in (rows := csv.reader(file, delimiter=comma)):
                if not row:  # end of the file, or a missing cell of a single column
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
            "the field empty if a value is missing."
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
            "Leave the field empty if a value is missing."
        )
    return number


def read_series(path: Path, name: str, horizon: int, season: int | None) -> Series:
    """Return a column as a series, with its end for validation and test.

    The last fifth is for test, and the eighth before it for validation; each has at
    most 5000 rows.

    Args:
      path: a CSV file.
      name: name of the column.
      horizon: how many rows ahead to forecast.
      season: period of the season in rows; None for no season.

    Raises:
      ValueError: if the column cannot be read, is too short for the horizon, has too
        few known values, is constant, or has values too large or small to be squared.
    """
    if not 1 <= horizon <= AT_MOST:
        raise ValueError(f"horizon must be in 1..{AT_MOST}, got {horizon}.")
    values = read_column(path, name)
    rows, least = len(values), max(40, 8 * (horizon + 2))
    if rows < least:
        raise ValueError(
            f"column {name!r} of {path} has {rows} rows; a horizon of {horizon} needs "
            f"{least} at least, for training and test."
        )
    known = values[np.isfinite(values)]
    if len(known) < rows / 2:
        raise ValueError(
            f"column {name!r} of {path} has only {len(known)} numbers in {rows} rows; "
            "at least half of the rows must have one."
        )
    if np.ptp(known) == 0:
        raise ValueError(
            f"column {name!r} of {path} is {known[0]:g} in all rows: it is constant, "
            "so there is nothing to learn."
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
    """Write a forecast [H, 3] of the rows after the last one.

    The file appears only when it is complete.

    Args:
      path: the CSV file to write.
      rows: number of rows in the series, which is the index of the next row.
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
