"""A user's series from a CSV file, and its forecast as another CSV file."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.applications.forecast.series import Series
from experiments.data.tables import (
    number_columns,
    phases,
    read_columns,
    season_of,
    Table,
    text_of,
    texts_of,
    times_after,
)
from experiments.harness.options import listed

LARGEST = 5000  # largest number of steps in the validation part, and in the test part
ENOUGH = 0.05  # share of times that may go back, if later times are to be inferred
AT_MOST = 200  # largest horizon
ALL = "all"  # as `inputs`: all other columns of numbers
HEADER = ("ahead", "forecast", "low_5_percent", "high_95_percent")


def read_series(
    path: Path,
    name: str | None,
    horizon: int,
    season: int | None,
    *,
    inputs: Sequence[str] = (),
    **options: Any,
) -> Series:
    """Read a column of a file as a series: a training, a validation and a test part.

    The last fifth of the rows is the test part. The rows before it, an eighth of all
    rows, are the validation part. Each of the two parts has at most 5000 rows. Rows are
    in the order of time that :func:`data.tables.read_columns` finds.

    Args:
      path: a CSV file.
      name: name of the column; None if the file has only one column of numbers.
      horizon: largest number of rows ahead to forecast.
      season: period of the season in rows, 1 for no season; None to infer it from the
        step of the times, if there are two seasons before the validation part.
      inputs: names of other columns that networks and ridge regression read, or "all".
      options: options of :func:`data.tables.read_columns`: delimiter, decimal,
        encoding, header and dates.

    Raises:
      ValueError: if the column cannot be read, is too short for the horizon, has too
        few known values, is constant, or has values too large or small to be squared.
    """
    if not 1 <= horizon <= AT_MOST:
        raise ValueError(f"horizon must be in 1..{AT_MOST}, got {horizon}.")
    name, inputs = choose_columns(path, name, inputs, options)
    table = read_columns(path, (name, *inputs), **options)
    values = table.columns[name]
    rows, least = len(values), max(40, 8 * (horizon + 2))
    if rows < least:
        shorter = rows // 8 - 2
        remedy = f" Give --horizon {shorter} or less." if rows >= 40 else ""
        raise ValueError(
            f"column {name!r} of {path} has {rows} rows; a horizon of {horizon} needs "
            f"{least} at least, for training and test.{remedy}"
        )
    _check_values(values, name, path)
    others, notes = _useful(table, name, inputs)
    test = rows - min(rows // 5, LARGEST)
    validation = test - min(rows // 8, LARGEST)
    season, told = _season(table, season, validation)
    series = make_series(table, name, path, others, season)
    notes = [*table.notes, *notes, *_missing(series), *told]
    return series._replace(
        validation=validation,
        test=test,
        periods={f"last {rows - test} rows": (test, rows)},
        horizons=tuple(range(1, horizon + 1)),
        lags=min(24, rows // 10),
        notes=tuple(notes),
        ahead=times_ahead(table, horizon),
    )


def times_ahead(table: Table, horizon: int) -> np.ndarray | None:
    """Return the times of the rows after the end; None if times do not tell them.

    They do not if many times go back, or if the last row is not the latest.
    """
    times = table.times
    if times is None or _backwards(times) > ENOUGH * len(times):
        return None
    if not times[-1] >= np.nanmax(times):
        return None
    return times_after(times, horizon)


def _backwards(times: np.ndarray) -> int:
    """Count rows whose time is unknown, or earlier than the time of the row before."""
    return int(np.sum(~(np.diff(times) >= np.zeros(1, np.diff(times).dtype))))


def make_series(
    table: Table, name: str, path: Path, inputs: Sequence[str], season: int
) -> Series:
    """Return the columns of a table as a series that is not yet divided into parts.

    Args:
      table: the table.
      name: name of the column to forecast.
      path: the file, for the title.
      inputs: names of other columns.
      season: period of the season in rows; 0 for no season.
    """
    values, times = table.columns[name], table.times
    rows = len(values)
    columns = [table.columns[each] for each in inputs]
    phase = phases(table.times, rows, season) if season else np.full(rows, -1)
    return Series(
        name="csv",
        title=f"{name} of {path.name}",
        unit=name,
        times=np.arange(rows) if times is None or _backwards(times) else times,
        values=values,
        others=np.stack(columns, axis=1) if columns else np.zeros((rows, 0)),
        phase=phase,
        season=season,
        validation=rows,
        test=rows,
        periods={},
        horizons=(),
        lags=1,
        period=season,
        inputs=tuple(inputs),
    )


def choose_columns(
    path: Path, name: str | None, inputs: Sequence[str], options: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """Return the name of the column to forecast, and the names of the inputs.

    Raises:
      ValueError: if no column is named and the file has several columns of numbers, or
        if a column is named twice.
    """
    inputs = tuple(inputs)
    if name is None or ALL in inputs:
        layout = ("delimiter", "encoding", "header")
        found = number_columns(path, **{each: options.get(each) for each in layout})
        if name is None and len(found) != 1:
            what = f"{len(found) or 'no'} columns of numbers"
            told = f": {listed(found)}" if found else ""
            raise ValueError(
                f"{path} has {what}{told}. Name the column to forecast, by --column."
            )
        name = found[0] if name is None else name
        if inputs == (ALL,) and ALL not in found:
            plain = " ".join(name.split())
            inputs = tuple(each for each in found if " ".join(each.split()) != plain)
    names = (name, *inputs)
    if len(set(names)) < len(names):
        raise ValueError(
            f"column and inputs must be different columns, got {listed(names)}."
        )
    return name, inputs


def _useful(
    table: Table, name: str, inputs: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the inputs that vary and are mostly known, and notes on all inputs."""
    kept, notes = [], []
    for each in inputs:
        column = table.columns[each]
        known = np.isfinite(column)
        if known.sum() < len(column) / 2:
            notes.append(
                f"input {each!r} is left out: it has only {known.sum()} numbers in "
                f"{len(column)} rows."
            )
        elif np.ptp(column[known]) == 0:
            notes.append(f"input {each!r} is left out: it is constant.")
        else:
            kept.append(each)
            if lost := int((~known).sum()):
                notes.append(
                    f"input {each!r} has {_count(lost, 'missing value')}; each is read "
                    "as the "
                    "last known value before it."
                )
    if kept:
        notes.append(f"inputs beside {name!r}: {', '.join(kept)}.")
    return kept, notes


def _missing(series: Series) -> list[str]:
    """Return a note on the missing values of the column, and the rule for them."""
    lost = ~np.isfinite(series.values)
    if not lost.any():
        return []
    edges = np.diff(np.concatenate([[0], lost.astype(int), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    longest = int(np.max(ends - begins))
    return [
        f"{series.unit!r} has {_count(int(lost.sum()), 'missing value')} in "
        f"{_count(len(begins), 'stretch', 'es')} (the longest has "
        f"{_count(longest, 'row')}, the first is at "
        f"{label(series, int(begins[0]))}). A method reads the last known value in "
        "their place; they are not scored."
    ]


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number} {noun}{ending * (number != 1)}"


def label(series: Series, row: int) -> str:
    """Return the time of a row, or its number if the file has no times."""
    time = series.times[row]
    return text_of(time) if isinstance(time, np.datetime64) else f"row {time:.15g}"


def _season(table: Table, season: int | None, validation: int) -> tuple[int, list[str]]:
    """Return the period of the season in rows, 0 for no season, and a note about it."""
    if season is not None:
        return (season if season > 1 else 0), []
    found = None if table.times is None else season_of(table.times)
    if found is None or 2 * found[0] > validation:
        return 0, []
    note = (
        f"the step of times is {found[1]}, so a season of {found[0]} rows is tried "
        "(else give --season; 1 is for none)."
    )
    return found[0], [note]


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


def write_forecast(path: Path, text: str) -> None:
    """Write a forecast as a CSV file, which appears only when it is complete."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", newline="", encoding="utf-8") as file:
        file.write(text)
    os.replace(beside, path)


def forecast_text(rows: int, said: np.ndarray, times: np.ndarray | None) -> str:
    """Return a forecast of the rows after the end of a series, as the text of a CSV.

    Args:
      rows: number of rows in the series; also the index of the first forecast row.
      said: [H, 3], value and two ends of its interval for each forecast row.
      times: [H], times of the forecast rows, or None if the file has no times.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    dated = [] if times is None else [[text] for text in texts_of(times)]
    writer.writerow(["row", *(["time"] if dated else []), *HEADER])
    for ahead, numbers in enumerate(said.tolist(), 1):
        time = dated[ahead - 1] if dated else []
        writer.writerow(
            [rows - 1 + ahead, *time, ahead, *(f"{x:.6g}" for x in numbers)]
        )
    return file.getvalue()
