"""Table and picture of `identify`: prediction errors, and estimated parameters k."""

import itertools
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.identify import tanks

NAMES = ("k₁", "k₂", "k₃")


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


def draw(rows: list[dict[str, Any]], config: Any) -> Figure:
    """Draw prediction errors of the methods, and parameters that observers estimate.

    Errors and parameters are drawn against the time step.
    """
    figure = Figure(figsize=(10, 8), layout="constrained")
    errors, estimates = figure.subplots(2, 1, sharex=True)
    for i, row in enumerate(rows):
        curve = np.array(row["curve"], float)  # None, from JSON, becomes NaN
        mean = np.sqrt(np.mean(np.square(curve), axis=0))
        dash = "-" if "×" in row["job"] else "--"
        style = {
            "color": colormaps["tab20"](i % 20),
            "linewidth": 1.1,
            "label": row["job"],
        }
        errors.plot(row["times"], mean, dash, **style)
    least = min(np.nanmin(np.array(row["curve"], float)) for row in rows)
    errors.set(yscale="log", ylim=(0.8 * least, 100 * least))
    errors.set(ylabel="error of the level, last 50 steps")
    errors.set_title("Predicting two tanks that change")
    errors.legend(fontsize=7, ncols=2)
    known = [row for row in rows if "k" in row]
    jump, dashes = config.steps // 2, ("-", "--", "-.", ":")
    for row, dash in zip(known, itertools.cycle(dashes)):
        found = np.array(row["k"], float)
        for i, name in enumerate(NAMES):
            label = f"{name}, {row['job']}" if i == 0 else None
            estimates.plot(row["times"], found[:, i], dash, color=f"C{i}", label=label)
    true = np.array([tanks.BEFORE, tanks.AFTER])
    for i, name in enumerate(NAMES):
        style = {"color": f"C{i}", "linewidth": 4, "alpha": 0.25}
        times, of = [0, jump, jump, config.steps], np.repeat(true[:, i], 2)
        estimates.plot(times, of, label=f"{name}, true", **style)
    estimates.set(xlabel="step", title="Estimates of k by observers, first seed")
    estimates.legend(fontsize=7, ncols=2)
    for axis in (errors, estimates):
        axis.axvline(jump, color="0.5", linewidth=0.8)
        axis.grid(alpha=0.3)
    return figure


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
