"""The committed table of the study `atlas`, made from the folders of its runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness.errors import DataError
from experiments.harness.rows import finished
from experiments.online._atlas_report import Row
from experiments.online._atlas_rules import CELLS, combinations, RULES, TASKS

SIZES = ("units", "batch", "updates", "rates", "trials", "seeds", "draws", "first_seed")
KEPT = (
    "task", "cell", "rule", "rate", "validation", "test", "trivial", "cosine", "bias",
    "bias_error", "spread", "microseconds", "temp_bytes",
)  # fmt: skip
Table = dict[str, Any]


def enter(folders: Sequence[Path], commit: str) -> Table:
    """Return the table of runs; a combination in several of them is that of the last.

    Args:
      folders: folders of runs of the study, which need not be finished.
      commit: the commit with which they were made.

    Raises:
      DataError: if a folder has no run, or runs have different sizes.
    """
    rows: dict[tuple[str, str, str], Row] = {}
    sizes: dict[str, Any] | None = None
    versions: dict[str, str] = {}
    for folder in folders:
        path = folder / "config.json"
        if not path.exists():
            raise DataError(f"{folder} holds no run: there is no {path}.")
        stored = json.loads(path.read_text())
        mine = {name: stored["config"][name] for name in SIZES}
        if sizes not in (None, mine):
            raise DataError(f"{folder} has the sizes {mine}, other runs have {sizes}.")
        sizes, versions = mine, stored["versions"]
        for row in finished(folder):
            rows[row["task"], row["cell"], row["rule"]] = {
                name: rounded(row[name]) for name in KEPT
            }
    order = combinations(TASKS, CELLS, RULES)
    return {
        "sizes": sizes,
        "versions": versions | {"commit": commit},
        "rows": [rows[names] for names in order if names in rows],
    }


def rounded(value: Any) -> Any:
    """Round numbers to four digits.

    Example:
      >>> rounded([0.123456, None, "copy"])
      [0.1235, None, 'copy']
    """
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def to_text(table: Table) -> str:
    """Return a table as JSON, one line for each combination."""
    head = {name: table[name] for name in table if name != "rows"}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table["rows"])
    return json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n"
