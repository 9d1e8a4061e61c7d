"""File with the table of a sweep: for each run, one line with a JSON object."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bpvariants.training.sweeps._runs import COLUMNS, name_of, Run


def read_rows(
    path: Path, runs: list[Run], limit: int, curves: bool
) -> dict[str, dict[str, Any]]:
    """Return the rows of `runs` in a file, by run name; if there is no file, create it.

    An incomplete last line, which a killed process may leave, is removed.
    """
    try:
        with path.open("ab+") as file:
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise ValueError(
            f"path {path} cannot be written to: {error.strerror}. Give another path."
        ) from error
    *lines, last = content.split(b"\n")
    names, rows = {run.name() for run in runs}, {}
    for number, line in enumerate(lines, start=1):
        row = _parsed(path, number, line)
        fields = {name: row[name] for name in _fields_of(path, number, row, runs[0])}
        if row["limit"] != limit:
            raise ValueError(
                f"path {path} has runs of steps={row['limit']} (line {number}), but "
                f"steps={limit} was given; give another path, or the steps of the file."
            )
        if curves and "curve" not in row:
            raise ValueError(
                f"path {path} has runs without a curve (line {number}); give another "
                "path, or curves=False."
            )
        if name_of(fields) in names:  # ignore rows of other runs
            rows.setdefault(name_of(fields), _with_nan(row, fields))
    if last:
        _check_torn(path, len(lines) + 1, last)
        os.truncate(path, len(content) - len(last))
    return rows


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to the file in a single write, and flush them to disk."""
    lines = "".join(
        json.dumps(_without_nan(row), allow_nan=False) + "\n" for row in rows
    )
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _check_torn(path: Path, number: int, line: bytes) -> None:
    """Check that the file's last line, if incomplete, can be the beginning of a row."""
    try:
        json.loads(line)
    except ValueError:
        if line[:2] in (b"{", b'{"'):
            return
    _parsed(path, number, line)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(
            f"path {path} is not a table of a sweep: line {number} is not JSON "
            f"({error}). Give another path, or repair the file."
        ) from error
    if not isinstance(row, dict) or not {"seed", "status", "limit"} <= row.keys():
        raise ValueError(
            f"path {path} is not a table of a sweep: line {number} has no seed, status "
            "and limit. Give another path."
        )
    return row


def _fields_of(path: Path, number: int, row: dict, run: Run) -> list[str]:
    """Return the columns up to `seed`, which identify the run of a row."""
    names = list(row)[: list(row).index("seed")]
    if set(names) != set(run.fields):
        raise ValueError(
            f"path {path} is the table of another sweep: the configs in it have the "
            f"fields {', '.join(names) or 'none'} (line {number}), but those given "
            f"have {', '.join(run.fields) or 'none'}. Give another path."
        )
    return [*names, "seed"]


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN by None, which JSON writes as null; JSON has no NaN."""
    clean = lambda value: None if value != value else value
    curve = row.get("curve", {})
    curve = {name: [clean(each) for each in values] for name, values in curve.items()}
    plain = {name: clean(value) for name, value in row.items()}
    return plain | ({"curve": curve} if "curve" in row else {})


def _with_nan(row: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Replace None by NaN in the metrics and the curve of a row read from a file."""
    dirty = lambda value: float("nan") if value is None else value
    measured = {
        name: dirty(value)
        for name, value in row.items()
        if name not in fields and name not in COLUMNS
    }
    curve = row.get("curve", {})
    curve = {name: [dirty(each) for each in values] for name, values in curve.items()}
    return row | measured | ({"curve": curve} if "curve" in row else {})
