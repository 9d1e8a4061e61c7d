"""Pictures of `compare`: learning curves, and charts of scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import report
from experiments.compare.job import Task

FLOOR = float(np.finfo(np.float32).eps)  # losses below this value are not resolved
BELOW = FLOOR / 2  # losses below FLOOR are drawn at this height


def draw_curves(
    task: Task, panels: Mapping[str, Sequence[Any]], name_of: Callable[[Any], str]
) -> Figure:
    """Draw training losses against the number of updates, labelled at their ends.

    Thick lines are means over seeds, thin lines are single seeds. On a logarithmic axis
    that reaches the resolution of float32, losses below it are drawn in a shaded band.

    Args:
      task: the task of the trainings.
      panels: {title of a panel: its trainings}; the title of a single panel is not
        drawn.
      name_of: function (row) -> name of its curve.
    """
    figure, axes = report.panels(1, len(panels), width=4.9, height=3.3, sharey=True)
    everything = [row for rows in panels.values() for row in rows]
    low = min(float(np.nanmin(row.curve)) for row in everything)
    high = max(float(np.nanmax(row.curve)) for row in everything)
    for axis, (title, rows) in zip(axes.flat, panels.items(), strict=True):
        for row in rows:
            _draw_curve(axis, row, name_of(row))
        axis.set(xlabel="updates")
        if len(panels) > 1:
            axis.set_title(title)
    steps = [row.steps for row in everything]
    if max(steps) > 5 * min(steps):
        for axis in axes.flat:
            report.log_ticks(axis, "x")
    if high > 10 * max(low, FLOOR):
        for axis in axes.flat:
            report.log_ticks(axis)
        if low < FLOOR:
            for axis in axes.flat:
                _mark_floor(axis)
    axes[0, 0].set_ylabel(task.value)
    report.label_ends(*axes.flat, size=8.5)
    return figure


def _draw_curve(axis: Axes, row: Any, name: str) -> None:
    style = style_of(row, name)
    floored = lambda values: np.where(values < FLOOR, BELOW, values)
    curve = np.asarray(row.curve)
    for run in floored(curve):
        axis.plot(row.curve_steps, run, linewidth=0.6, alpha=0.45, **style)
    mean = floored(curve.mean(axis=0))
    axis.plot(row.curve_steps, mean, linewidth=1.8, label=name, **style)


def _mark_floor(axis: Axes) -> None:
    axis.axhspan(FLOOR / 4, FLOOR, color="#dddddd", zorder=0)
    axis.set_ylim(bottom=FLOOR / 4)
    axis.text(
        0.02, FLOOR * 0.6, "below float32", transform=axis.get_yaxis_transform(),
        va="center", fontsize=8, color="#444444",
    )  # fmt: skip


def style_of(row: Any, name: str) -> dict[str, Any]:
    """Return the line style of a row's rule, or of its update, whichever is its name.

    The printed form of the forgetting factor has the colour of `forgetting`, dotted.
    """
    if name != row.update:
        style = report.rule_style(row.rule)
        lookback = row.rule.partition("lookback=")[2].partition(")")[0]
        if lookback and int(lookback) <= 4:
            return style | {"linestyle": ":"}
        return style
    style = report.update_style(row.update)
    return style | ({"linestyle": ":"} if "printed" in row.update else {})


def draw_scores(task: Task, rows: Sequence[Any]) -> Figure:
    """Draw the score of each seed, its mean, and the 95 % interval of the mean.

    Scores of simple baselines are vertical lines.
    """
    figure, panels = report.panels(1, 1, width=5.0, height=1.3 + 0.4 * len(rows))
    axis = panels[0, 0]
    for i, row in enumerate(rows):
        scores = np.asarray(row.scores[task.score], float)
        colour = report.kind_colour(row.kind.split(", ")[-1])
        low, mean, high = report.interval(list(scores))
        if np.isfinite([low, high]).all():
            low, high = (float(np.clip(end, *task.limits)) for end in (low, high))
            axis.plot([low, high], [i, i], color=colour, linewidth=1.2)
        axis.plot(scores, [i] * len(scores), "o", color=colour, alpha=0.5, markersize=5)
        axis.plot([mean], [i], "|", color=colour, markersize=13, markeredgewidth=2)
        axis.annotate(
            f"{row.rule} × {row.update}", (0, i - 0.36), fontsize=8, va="center",
            xycoords=axis.get_yaxis_transform(), color="#222222",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    for i, reference in enumerate(task.references):
        value, style = float(reference.scores[task.score]), ["--", ":", "-."][i % 3]
        axis.axvline(
            value, color="black", linestyle=style, linewidth=1, label=reference.name
        )
    for kind in dict.fromkeys(row.kind.split(", ")[-1] for row in rows):
        colour = report.kind_colour(kind)
        axis.plot([], [], "o-", color=colour, label=f"gradient: {kind}", markersize=5)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(rows) - 0.5, -0.8)
    better = "higher" if task.higher_is_better else "lower"
    axis.set(xlabel=f"{task.measure}\n({better} is better)")
    report.legend_below(figure, fontsize=8)
    return figure


def alt_of_curves(
    task: Task, rows: Sequence[Any], name_of: Callable[[Any], str]
) -> str:
    """Say in words what the learning curves show."""
    said = []
    for row in rows:
        curve = np.asarray(row.curve).mean(axis=0)
        ends = [
            f"{end:.2g}" if end >= FLOOR else "below float32" for end in curve[[0, -1]]
        ]
        said.append(f"{name_of(row)} from {ends[0]} to {ends[1]}")
    return (
        f"Learning curves, {task.value} against updates. Means over seeds: "
        f"{'; '.join(said)}."
    )


def alt_of_scores(task: Task, rows: Sequence[Any]) -> str:
    """Say in words what the chart of scores shows."""
    said = [
        f"{row.rule} × {row.update} {report.mean_sd(row.scores[task.score])}"
        for row in rows
    ]
    said += [
        f"{reference.name} {float(reference.scores[task.score]):.3g}"
        for reference in task.references
    ]
    return f"Dots with intervals, {task.measure}: {'; '.join(said)}."


def coinciding(rows: Sequence[Any], name_of: Callable[[Any], str]) -> list[list[str]]:
    """Return groups of names whose mean curves differ by less than 5 % everywhere."""
    groups: list[list[Any]] = []
    for row in rows:
        curve = np.asarray(row.curve).mean(axis=0)
        for group in groups:
            other = np.asarray(group[0].curve).mean(axis=0)
            same = other.shape == curve.shape and row.steps == group[0].steps
            if same and np.allclose(other, curve, rtol=0.05, atol=FLOOR):
                group.append(row)
                break
        else:
            groups.append([row])
    return [[name_of(row) for row in group] for group in groups if len(group) > 1]
