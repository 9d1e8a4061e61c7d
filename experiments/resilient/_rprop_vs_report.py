"""Table and picture of the study `rprop_vs`."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import report
from experiments.resilient._rprop_vs_problems import Problem

OURS = ("rprop", "irprop_plus", "rprop_plus", "rprop_minus", "half_back", "grprop")
OTHERS = {  # {method: its name in the table of styles}
    "optax.rprop": "optax_rprop",
    "torch.optim.Rprop": "torch_rprop",
    "optax.adam": "adam",
    "optax.lbfgs": "lbfgs",
}
STYLES = {  # {method: colour and line style of its curve}
    method: report.update_style(name)
    for method, name in ({name: name for name in OURS} | OTHERS).items()
}
NOTE = (
    "Iterations until E is first below the target, mean ± standard deviation over the "
    "runs that reach it (lower is better); (n/N): n of N runs reach it.\nevals: "
    "evaluations of E and its gradient until the last target, line searches included. "
    "E at the end: median (largest) over runs."
)


def best_rows(rows: list[dict[str, Any]], problem: Problem) -> list[dict[str, Any]]:
    """Return one row of a problem for each method, at the best learning rate."""
    best = {}
    for row in rows:
        if row["problem"] == problem.name:
            name = row["method"]
            if name not in best or rank(row, problem) < rank(best[name], problem):
                best[name] = row
    return list(best.values())


def rank(row: dict[str, Any], problem: Problem) -> float:
    """Return the score that methods are ranked by on a problem; lower is better."""
    if problem.by_target:
        never = problem.steps + 1
        reached = row["reached"][f"{problem.targets[-1]:g}"]
        return float(np.mean([never if i is None else i for i in reached]))
    mean = float(np.mean(row["values"]))
    return mean if np.isfinite(mean) else np.inf


def show(problem: Problem, rows: list[dict[str, Any]], notes: list[str]) -> None:
    """Print the table of all methods on one problem."""
    shown, last = best_rows(rows, problem), f"{problem.targets[-1]:g}"
    header = ["", *(f"to {target:g}" for target in problem.targets), "evals"]
    header.append(f"E after {problem.steps}")
    if problem.reference:
        header.append("elsewhere")
    if problem.accuracy is not None:
        header += [f"test % at {last}", "at the end"]
    notes = [NOTE, *_about_rates(problem, rows), *_about_reference(problem), *notes]
    notes += _left_again(problem, shown)
    lines = [_line(problem, row) for row in shown]
    report.show_table(problem.title, header, lines, " ".join(notes))
    if len(problem.starts) > 1:  # a single run has no interval
        _conclude(problem, shown)


def _conclude(problem: Problem, rows: list[dict[str, Any]]) -> None:
    """Say which methods are fastest; a run that misses the target counts all steps."""
    never, target = problem.steps + 1, f"{problem.targets[-1]:g}"
    iterations = lambda row: [never if i is None else i for i in row["reached"][target]]
    scores = {
        row["label"]: iterations(row) if problem.by_target else row["values"]
        for row in rows
    }
    measure = f"number of iterations to {target}" if problem.by_target else "final E"
    said = report.verdict(measure, scores, higher_is_better=False)
    if problem.by_target and any(never in runs for runs in scores.values()):
        said += f" A run that never reaches {target} counts as {never} iterations."
    report.conclude(said, about=problem.title)


def _about_rates(problem: Problem, rows: list[dict[str, Any]]) -> list[str]:
    rates = sorted({row["rate"] for row in rows} - {None})
    if not rates:
        return []
    by = (
        f"iterations to {problem.targets[-1]:g}"
        if problem.by_target
        else "mean E at the end"
    )
    tried = ", ".join(f"{rate:g}" for rate in rates)
    return [f"Adam's learning rate is the best of {tried}, by {by}."]


def _about_reference(problem: Problem) -> list[str]:
    if not problem.reference:
        return []
    what = "iterations" if problem.by_target else "E"
    where = ", with one unknown rotation" if problem.by_target else ""
    return [f"elsewhere: {what} measured outside this project{where}; optax was 0.2.8."]


def _left_again(problem: Problem, rows: list[dict[str, Any]]) -> list[str]:
    """Return a note on runs that reached the last target, but ended above it."""
    found, last = [], problem.targets[-1]
    for row in rows:
        pairs = zip(row["reached"][f"{last:g}"], row["values"], strict=True)
        count = sum(i is not None and not value < last for i, value in pairs)
        if count:
            found.append(f"{row['label']} in {count} of {len(row['values'])}")
    if not found:
        return []
    return [f"Runs that reached {last:g} and ended above it: {', '.join(found)}."]


def _line(problem: Problem, row: dict[str, Any]) -> list[str]:
    line = [row["label"]]
    for target in problem.targets:
        line.append(_reached(row["reached"][f"{target:g}"]))
    line.append(_reached(row["evaluations_to_last"], count=False))
    line.append(_middle(row["values"]))
    if problem.reference:
        number = problem.reference.get(row["method"])
        line.append("" if number is None else f"{number:g}")
    if problem.accuracy is not None:
        line += [_mean_sd(row[name]) for name in ("accuracy_at_last", "accuracies")]
    return line


def _reached(iterations: list[int | None], count: bool = True) -> str:
    came = [float(i) for i in iterations if i is not None]
    if not came:
        return "–"
    some = count and len(came) < len(iterations)
    return report.mean_sd(came) + (f" ({len(came)}/{len(iterations)})" if some else "")


def _middle(values: list[float]) -> str:
    middle = f"{np.median(values):.2g}"
    return middle if len(values) == 1 else f"{middle} ({np.max(values):.1g})"


def _mean_sd(numbers: list[float | None]) -> str:
    known = [number for number in numbers if number is not None]
    if not known:
        return "–"
    return report.mean_sd(known)


def draw(folder: Path, problems: list[Problem], rows: list[dict[str, Any]]) -> Path:
    """Draw the loss of each problem against the number of iterations.

    For the last problem, the loss is also drawn against the number of evaluations of
    loss and gradient.
    """
    panels = [(problem, "iterations") for problem in problems]
    panels.append((problems[-1], "evaluations of E and its gradient"))
    across = 2 if len(panels) > 2 else len(panels)
    down = -(-len(panels) // across)
    figure, axes = report.panels(down, across, width=6.6, height=4.2)
    for axis, (problem, against) in zip(axes.flat, panels, strict=False):
        _draw_panel(axis, problem, against, best_rows(rows, problem))
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    report.label_ends(*axes.flat[: len(panels)])
    return report.save_picture(folder, "convergence", figure)


def _draw_panel(
    axis: Axes, problem: Problem, against: str, rows: list[dict[str, Any]]
) -> None:
    floor = report.number(problem.floor)
    count = against.startswith("evaluations")
    for row in rows:
        curve = np.maximum(np.median(row["curve"], axis=0), problem.floor)
        xs = row["curve_evaluations" if count else "curve_steps"]
        label = row["label"] if row["rate"] is None else f"{row['method']}, best rate"
        axis.plot(xs, curve, lw=1.5, label=label, **STYLES[row["method"]])
    for target in problem.targets:
        axis.axhline(target, color="#bbbbbb", lw=0.8, zorder=0)
    axis.set(
        title=problem.title,
        xlabel=against,
        xlim=(0, problem.steps),
        ylabel=f"{problem.unit}, median;\nlowest value drawn: {floor}",
    )
    report.log_ticks(axis)
