"""Table and pictures of `identify`: prediction errors, and estimated parameters k."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.identify import tanks
from experiments.applications.identify.methods import SOLVE

NAMES = ("k₁", "k₂", "k₃")
LINEAR = "linear model, recursive least squares"
REFERENCES = {  # {job: style of its curve}; these curves are in all panels
    "persistence": {"color": "#888888", "linestyle": ":"},
    "observer that is told k": {"color": "#888888", "linestyle": "--"},
}


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the table of prediction errors before and after the plant changes."""
    ours = {
        row["job"]: {
            "before": _of_finite(row["before"]),
            "just after": _of_finite(row["after"]),
            "at the end": _of_finite(row["end"]),
            "recovered": _recovered(row["recovery"]),
            "η, λ or gain": _setting(row),
        }
        for row in rows
    }
    report.show_beside(
        f"Two tanks that change after {config.steps // 2} steps",
        ("before", "just after", "at the end", "recovered", "η, λ or gain"),
        ours,
        [],
        "Root mean squared error of the level predicted one step ahead, against the "
        "true level (lower is better): over 500 steps before the change, 50 steps "
        "after it, and the last 500 steps. Measurements have a noise of deviation "
        f"{tanks.MEASUREMENT:g}. Recovered: steps from the change until the error over "
        "50 steps is at most 1.5 times the error before (median, and how many plants "
        "recovered). Settings are the best on the first quarter of the steps. The "
        "forgetting factor "
        f"of gradients is {config.decay:g}. Mean ± standard deviation of "
        f"{config.seeds} plants.",
    )
    parts = {
        "before": "error before the change",
        "after": "error just after the change",
        "end": "error at the end",
    }
    for part, measure in parts.items():
        errors = {
            row["job"]: [np.nan if each is None else each for each in row[part]]
            for row in rows
            if row["job"] not in REFERENCES
        }
        if errors:
            said = report.verdict(
                measure, errors, higher_is_better=False, limits=(0, np.inf)
            )
            report.conclude(said)


def draw(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw prediction errors against the time step, a panel for each model and rule.

    The last panel shows linear models. Two references are in all panels: the
    prediction that the level does not change, and an observer that is told k.
    """
    learned = [row for row in rows if "×" in row["job"]]
    titles = list(dict.fromkeys(row["job"].split(" × ")[0] for row in learned))
    panels = [*titles, LINEAR]
    figure, axes = report.panels(
        len(panels), 1, width=9, height=2.6, sharex=True, sharey=True
    )
    for axis, title in zip(axes[:, 0], panels, strict=True):
        for row in rows:
            model, _, update = row["job"].partition(" × ")
            known = row["job"] in REFERENCES
            if model == title:
                style, label = report.update_style(update), update
            elif not update and (known or title == LINEAR):
                style = REFERENCES.get(row["job"]) or report.update_style(SOLVE)
                if "λ = 1" in row["job"]:
                    style = style | {"color": report.shade(style["color"], 0.45)}
                label = row["job"].removeprefix("least squares, ")
            else:
                continue
            curve = np.array(row["curve"], float)  # None in the JSON becomes NaN
            mean = np.sqrt(np.mean(np.square(curve), axis=0))
            axis.plot(row["times"], mean, linewidth=1.4, label=label, **style)
        _mark_change(axis, config)
        axis.set_title(title)
    least = min(np.nanmin(np.array(row["curve"], float)) for row in rows)
    axes[0, 0].set_ylim(0.8 * least, min(100 * least, axes[0, 0].get_ylim()[1]))
    axes[len(titles) // 2, 0].set_ylabel("error of the level, last 50 steps")
    for axis in axes.flat:
        report.log_ticks(axis)
        axis.label_outer()
    report.label_ends(*axes.flat)
    return figure


def draw_estimates(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw the parameters k that observers estimate for the first plant, and true k."""
    figure, axes = report.panels(1, len(NAMES), width=4.7)
    true = np.array([tanks.BEFORE, tanks.AFTER])
    times = [0, config.steps // 2, config.steps // 2, config.steps]
    for i, (axis, name) in enumerate(zip(axes[0], NAMES, strict=True)):
        axis.plot(
            times, np.repeat(true[:, i], 2), color="#cccccc", linewidth=5, label="true"
        )
        for row in (row for row in rows if "k" in row):
            rule, update = row["job"].removeprefix("observer, ").split(" × ")
            label = update if len(config.rules) == 1 else f"{rule} × {update}"
            found = np.array(row["k"], float)
            axis.plot(
                row["times"], found[:, i], label=label, **report.update_style(update)
            )
        _mark_change(axis, config)
        axis.set_title(f"estimates of {name} by observers, first plant")
    report.label_ends(*axes[0])
    return figure


def _mark_change(axis: Axes, config: Any) -> None:
    axis.axvline(config.steps // 2, color="#888888", linewidth=0.8)
    axis.annotate(
        "the tanks change", (config.steps // 2, 0), (-3, 3), ha="right", va="bottom",
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
        color="#666666",
    )  # fmt: skip
    axis.set_xlabel("time step")


def _of_finite(errors: list[float | None]) -> str:
    found = [error for error in errors if error is not None]
    text = report.mean_sd(found) if found else "diverged"
    lost = len(errors) - len(found)
    return text + (f" ({lost} of {len(errors)} diverged)" if found and lost else "")


def _recovered(steps: list[int | None]) -> str:
    found = [one for one in steps if one is not None]
    if not found:
        return f"never (0/{len(steps)})"
    return f"{np.median(found):.0f} ({len(found)}/{len(steps)})"


def _setting(row: dict[str, Any]) -> str:
    for name in ("learning_rate", "decay", "gain"):
        if name in row:
            return f"{row[name]:g}"
    return ""
