"""Tables of `compare`: rules and updates as a grid, and all results of a task."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import report
from experiments.compare.job import Task

LEGEND = (
    "Scores are mean ± standard deviation over seeds. Loss: mean training loss of the "
    "last steps. Times and memory are totals over all seeds, and of all learning rates "
    "that are tried; times exclude compilation. MiB: temporary memory of a chunk of "
    "steps, by XLA's analysis. Bold: the best score, and all scores whose 95 % "
    "intervals overlap with its interval, unless these are most of the rows."
)
FAMILIES = ("sgd", "adam", "forgetting", "irprop_minus")


class Cells(NamedTuple):
    """Cells of a table as text; `marked` are the rows with the best score."""

    header: list[str]
    rows: list[list[str]]
    marked: set[int]


def tabulate(task: Task, rows: Sequence[Any]) -> Cells:
    """Return the table of one task: its jobs by network, then its baselines."""
    names = list(task.references[0].scores)
    header = ["rule × update", *names, "loss", "batch", "steps", "ms/step"]
    header += ["compile s", "MiB"]
    best = best_rows(task, rows)
    lines, marked, above = [], set(), None
    for row in rows:
        if row.network != above:
            lines.append([row.network])
        above = row.network
        if label(row) in best:
            marked.add(len(lines))
        scores = [report.mean_sd(row.scores[name]) for name in names]
        numbers = [f"{np.mean(row.value):.3g}", row.batch, str(row.steps)]
        numbers += [f"{row.ms_per_step:.3g}", f"{row.compile_seconds:.1f}"]
        lines.append([label(row), *scores, *numbers, _mebibytes(row.temp_bytes)])
    if len(marked) > len(rows) / 2:  # no row stands out
        marked = set()
    lines.append(["Simple baselines"])
    for reference in task.references:
        scores = [f"{float(reference.scores[name]):.3g}" for name in names]
        lines.append([reference.name, *scores, *6 * [""]])
    return Cells(header, lines, marked)


def best_rows(task: Task, rows: Sequence[Any]) -> list[str]:
    """Return the labels of the rows with the best score, and of those equal to it."""
    scores = {label(row): row.scores[task.score] for row in rows}
    if min(map(len, scores.values()), default=0) < 2:
        return []
    return report.best_of(scores, higher_is_better=task.higher_is_better)[0]


def label(row: Any) -> str:
    """Return the name of a row: its rule and its update."""
    return f"{row.rule} × {row.update}"


def grid(task: Task, rows: Sequence[Any]) -> Cells:
    """Return the scores as a grid: a row for each rule, a column for each update."""
    cells: dict[str, dict[str, list[str]]] = {}
    others: list[str] = []
    for row in rows:
        name = row.update.split("(")[0]
        name += ", as printed" if "printed" in row.update else ""
        if name not in (*FAMILIES, *others):
            others.append(name)
        line = cells.setdefault(f"{row.rule}: {row.network}", {})
        shown = report.mean_sd(row.scores[task.score])
        line.setdefault(name, []).append(shown)
    header = ["rule: network", *FAMILIES, *others]
    lines = [
        [name, *(", ".join(line.get(update, ["–"])) for update in header[1:])]
        for name, line in cells.items()
    ]
    return Cells(header, lines, set())


def _mebibytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**20:.2f}"
