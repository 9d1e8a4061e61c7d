"""Pictures of `compare`: learning curves, and charts of scores and training times."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.compare.job import Task

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]
COLOURS += ["#56b4e9", "#e69f00", "#555555", "#9a6324"]
KINDS = {"static": 0, "through time": 1, "recurrent": 2, "forward in time": 3}
UPDATES = ["sgd", "adam", "forgetting", "rprop_plus", "rprop_minus", "irprop_plus"]
UPDATES += ["irprop_minus", "manhattan"]
DASHES = ["-", "--", ":", "-."]
FLOOR = 1e-6  # losses below this value are drawn at this value


def draw_curves(path: Path, task: Task, rows: list[Any]) -> None:
    """Draw the training losses of all seeds against the number of updates.

    There is one panel for each network and gradient rule.
    """
    panels = list(dict.fromkeys((row.network, _panel(task, row)) for row in rows))
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        mine = [row for row in rows if (row.network, _panel(task, row)) == panel]
        floored = False
        for i, row in enumerate(mine):
            # Curves have different dashes, so that coinciding curves remain visible.
            name = row.update.split("(")[0]
            colour = UPDATES.index(name) if panel[1] else i
            style = {"color": COLOURS[colour % 8], "linestyle": DASHES[i % 4]}
            floored |= np.min(row.curve) < FLOOR
            curve = np.maximum(row.curve, FLOOR)
            for run in curve:
                axis.plot(row.curve_steps, run, linewidth=0.5, alpha=0.4, **style)
            label = row.update if panel[1] else f"{row.rule} × {row.update}"
            axis.plot(row.curve_steps, curve.mean(axis=0), label=label, **style)
        low, high = axis.get_ylim()
        axis.set_yscale("log" if high > 10 * max(low, FLOOR) else "linear")
        axis.set(title=" · ".join(filter(None, panel)), xlabel="updates")
        below = f"\n(lower values are drawn at {FLOOR:g})" if floored else ""
        axis.set_ylabel(task.value + below)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_scores(path: Path, task: Task, rows: list[Any]) -> None:
    """Draw the scores of each job and the time of its updates.

    Each seed's score is a dot, and the scores of simple baselines are vertical lines.
    """
    figure = Figure(figsize=(11, 2.2 + 0.36 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1], sharey=True)
    gradient = lambda row: row.kind.split(", ")[-1]
    for i, row in enumerate(rows):
        colour, scores = COLOURS[KINDS[gradient(row)]], row.scores[task.score]
        left.plot(scores, [i] * len(scores), "o", color=colour, alpha=0.5, markersize=5)
        left.plot([np.mean(scores)], [i], "|", color=colour, markersize=16)
        bar = right.barh(i, row.ms_per_step, color=colour)
        right.bar_label(bar, fmt="%.3g", padding=3)
    for kind in dict.fromkeys(map(gradient, rows)):
        left.plot([], [], "o", color=COLOURS[KINDS[kind]], label=f"gradient: {kind}")
    for i, reference in enumerate(task.references):
        value, style = float(reference.scores[task.score]), ["--", ":", "-."][i % 3]
        left.axvline(value, color="black", linestyle=style, label=reference.name)
    labels = [f"{row.rule} × {row.update}\nbatch: {row.batch}" for row in rows]
    left.set_yticks(range(len(rows)), labels, fontsize=8)
    left.invert_yaxis()
    better = "higher" if task.higher_is_better else "lower"
    left.set(xlabel=f"{task.measure} ({better} is better)", title=task.title)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    right.set(xlabel="ms per step, all seeds together", xticks=[])
    right.margins(x=0.2)
    left.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def _panel(task: Task, row: Any) -> str:
    """Return the gradient rule to write into the title of a panel, or "".

    If all jobs of a network have the same update rule, they share one panel, and the
    result is "". The legend of a shared panel names the gradient rules.
    """
    updates = {job.update for job in task.jobs if job.network == row.network}
    return row.rule if len(updates) > 1 else ""
