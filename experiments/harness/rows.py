"""Rows of finished jobs, read from the file results.jsonl of a run."""

import json
from pathlib import Path
from typing import Any

from experiments import report
from experiments.harness.errors import DataError

Row = dict[str, Any]


def finished(folder: Path) -> list[Row]:
    """Return the rows of finished jobs; remove all other lines from results.jsonl.

    The removed lines are partial results of interrupted jobs, and a last line that is
    incomplete because the process was killed.
    """
    path = folder / "results.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    rows = [
        _row(path, number, line)
        for number, line in enumerate(lines, start=1)
        if line.endswith(b"\n")
    ]
    cut_short = {row["job"] for row in rows if row.get("cut_short")}
    rows = [row for row in rows if row["job"] not in cut_short]
    if len(rows) < len(lines):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        report.write_atomically(path, text)
    return rows


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
        _ = row["job"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged: line {number} is not a row of a job ({error!r}). "
            "Delete that line; its job is then run again."
        ) from error
    return row
