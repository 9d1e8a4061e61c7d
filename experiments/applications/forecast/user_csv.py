"""A user's series from a CSV file, and its forecast as another CSV file."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.applications.forecast.series import Series
from experiments.data.tables import read_columns

LARGEST = 5000  # largest number of steps in the validation part, and in the test part
AT_MOST = 200  # largest horizon


def read_series(
    path: Path,
    name: str,
    horizon: int,
    season: int | None,
    *,
    inputs: Sequence[str] = (),
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Series:
    """Read a column of a file as a series: a training, a validation and a test part.

    The last fifth of the rows is the test part. The rows before it, an eighth of all
    rows, are the validation part. Each of the two parts has at most 5000 rows. Rows are
    in the order of time that :func:`data.tables.read_columns` finds.

    Args:
      path: a CSV file.
      name: name of the column.
      horizon: largest number of rows ahead to forecast.
      season: period of the season in rows; None for no season.
      inputs: names of other columns that networks see.
      delimiter: character between fields; None to find it from the file.
      decimal: decimal mark; None to find it from the file.
      encoding: encoding of the file; None to find it from the file.

    Raises:
      ValueError: if the column cannot be read, is too short for the horizon, has too
        few known values, is constant, or has values too large or small to be squared.
    """
    if not 1 <= horizon <= AT_MOST:
        raise ValueError(f"horizon must be in 1..{AT_MOST}, got {horizon}.")
    names = (name, *inputs)
    if len(set(names)) < len(names):
        raise ValueError(
            f"column and inputs must be different columns, got {', '.join(names)}."
        )
    table = read_columns(
        path, names, delimiter=delimiter, decimal=decimal, encoding=encoding
    )
    values, *others = (table.columns[each] for each in names)
    rows, least = len(values), max(40, 8 * (horizon + 2))
    if rows < least:
        raise ValueError(
            f"column {name!r} of {path} has {rows} rows; a horizon of {horizon} needs "
            f"{least} at least, for training and test."
        )
    _check_values(values, name, path)
    test = rows - min(rows // 5, LARGEST)
    steps = np.arange(rows)
    return Series(
        name="csv",
        title=f"{name} of {path.name}",
        unit=name,
        times=steps,
        values=values,
        others=np.stack(others, axis=1) if others else np.zeros((rows, 0)),
        phase=steps % season if season else np.full(rows, -1),
        season=season or 0,
        validation=test - min(rows // 8, LARGEST),
        test=test,
        periods={f"last {rows - test} rows": (test, rows)},
        horizons=tuple(range(1, horizon + 1)),
        lags=min(24, rows // 10),
        notes=table.notes,
    )


def _check_values(values: np.ndarray, name: str, path: Path) -> None:
    """Check that a column has enough known values, not all equal, of moderate size."""
    known = values[np.isfinite(values)]
    if len(known) < len(values) / 2:
        raise ValueError(
            f"column {name!r} of {path} has only {len(known)} numbers in "
            f"{len(values)} rows; at least half of the rows must have one."
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


def write_forecast(path: Path, rows: int, said: np.ndarray) -> None:
    """Write a forecast [H, 3] of the H rows after the end of a series as a CSV file.

    The file appears only when it is complete.

    Args:
      path: the CSV file to write.
      rows: number of rows in the series; also the index of the first forecast row.
      said: [H, 3], value and two ends of its interval for each forecast row.
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
