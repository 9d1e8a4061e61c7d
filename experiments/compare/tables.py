"""Tables of `compare`: a row for each gradient rule and update, a column per score."""

from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments import report
from experiments.compare.job import Task

LEGEND = (
    "Scores are mean ± standard deviation over seeds. Loss is the mean training loss "
    "of the last steps. Times and memory are totals over all seeds. Times exclude "
    "compilation. Memory is the temporary memory of a chunk of steps, by XLA's "
    "analysis."
)


class Cells(NamedTuple):
    """Cells of a table as text, and the index `best` of the row with the best score."""

    header: list[str]
    rows: list[list[str]]
    best: int | None


def tabulate(task: Task, rows: list[Any]) -> Cells:
    """Return the table of one task: first its jobs, then its simple baselines."""
    names = list(task.references[0].scores)
    header = ["kind", "network", "rule", "update", "batch", "steps", *names]
    header += ["loss", "ms/step", "compile s", "MiB"]
    mine = [row for row in rows if row.task == task.name]
    lines = [
        [row.kind, row.network, row.rule, row.update, row.batch, str(row.steps)]
        + [report.mean_sd(row.scores[name]) for name in names]
        + [f"{np.mean(row.value):.3g}", f"{row.ms_per_step:.3g}"]
        + [f"{row.compile_seconds:.1f}", _mebibytes(row.temp_bytes)]
        for row in mine
    ]
    for reference in task.references:
        scores = [f"{float(reference.scores[name]):.3g}" for name in names]
        lines.append(["reference", reference.name, *4 * [""], *scores, *4 * [""]])
    sign = 1 if task.higher_is_better else -1
    means = [sign * np.mean(row.scores[task.score]) for row in mine]
    finite = [mean if np.isfinite(mean) else -np.inf for mean in means]
    return Cells(header, lines, int(np.argmax(finite)) if finite else None)


def show(chosen: list[Task], rows: list[Any]) -> None:
    """Print a table for each task that has results; a narrow terminal hides columns."""
    console = report.wide_console()
    hidden = (
        {"batch", "steps", "compile s", "MiB"}
        if console.width < report.WIDTH
        else set()
    )
    for task in chosen:
        if not any(row.task == task.name for row in rows):
            continue
        header, lines, best = tabulate(task, rows)
        shown = [i for i, name in enumerate(header) if i >= 4 and name not in hidden]
        table = Table(title=task.title, title_justify="left", box=SIMPLE_HEAD)
        table.padding = (0, 1, 0, 0)
        table.add_column("", min_width=36, overflow="fold")
        for i in shown:
            table.add_column(header[i], justify="right", no_wrap=True)
        above = None
        for i, line in enumerate(lines):
            kind, network, rule, update = line[:4]
            numbers = [line[i] for i in shown]
            common, label = _heading(task, network, rule, update)
            if kind == "reference":
                table.add_row(network, *numbers, style="italic")
                continue
            if common != above:
                table.add_row(f"[bold]{common}")
            above, style = common, "bold green" if i == best else None
            table.add_row(f"  {label}", *numbers, style=style)
        console.print(table, f"[dim]{task.about}\n")
    console.print(f"[dim]{LEGEND}")
    if hidden:
        console.print("[dim]A wider terminal, and the report, show all columns.")


def _heading(task: Task, network: str, rule: str, update: str) -> tuple[str, str]:
    """Return the heading above the rows of a network, and the label of one row."""
    updates = {job.update for job in task.jobs if job.network == network}
    if len(updates) == 1:
        return f"{network}, {update}", rule
    return f"{network}, {rule}", update


def _mebibytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**20:.2f}"
