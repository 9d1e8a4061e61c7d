"""Table and picture of `add_task`: losses, and the lowest losses that are possible."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

# {remembered inputs: lowest possible loss of a network that remembers only these
# inputs, called the floor}. The floors were computed outside this project.
FLOORS = {"nothing": 0.66156, "x_{t−t₂}": 0.62774, "x_{t−t₁}": 0.51917, "both": 0.45445}
IN_MATHS = {"x_{t−t₂}": "$x_{t-t_2}$", "x_{t−t₁}": "$x_{t-t_1}$"}
SMOOTHED = 15  # each point of a curve is averaged with the 15 points before it


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the loss of each rule, and the name of the lowest floor above this loss.

    A floor is the lowest loss that is possible with a certain memory of past inputs.
    """
    for delays in dict.fromkeys(tuple(row["delays"]) for row in rows):
        lines = []
        for row in rows:
            if tuple(row["delays"]) == delays:
                time, loss = row["microseconds"], row["loss"]
                below = _below(float(np.mean(loss)))
                lines.append([row["rule"], report.mean_sd(loss), below])
                lines[-1] += [str(row["steps"]), "" if time is None else f"{time:.0f}"]
        lines += [
            [f"knows {name}", f"{x:.5f}", *3 * [""]] for name, x in FLOORS.items()
        ]
        report.show_table(
            f"Add task, t₁, t₂ = {delays[0]}, {delays[1]}",
            ["", "cross-entropy", "below the floor of", "steps", "µs/step"],
            lines,
            "Cross-entropy in nats in the last fifth of the steps, lower is better: "
            "mean ± standard deviation of "
            f"{config.seeds} seeds; each step is predicted before the network learns "
            "from it. Lookback 20, every 10: every 10 steps, gradients go back 20 "
            "steps; learning to remember t steps needs a lookback above t. Without a "
            "leak, rflo equals truncated_bptt with a lookback of 1 up to rounding. "
            "µs/step: time of one step of all seeds together, without compilation.",
        )
        scores = {
            row["rule"]: row["loss"] for row in rows if tuple(row["delays"]) == delays
        }
        said = report.verdict("cross-entropy", scores, higher_is_better=False)
        about = f"t₁, t₂ = {delays[0]}, {delays[1]}"
        report.conclude(said, about=about)


def _below(loss: float) -> str:
    """Return the name of the lowest floor in `FLOORS` that is above the loss."""
    above = [name for name, floor in FLOORS.items() if loss < floor]
    return above[-1] if above else "none"


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw smoothed losses against time steps, one panel for each pair of delays.

    Horizontal lines show the floors (lowest possible losses).
    """
    tasks = list(dict.fromkeys(tuple(row["delays"]) for row in rows))
    styles = report.rule_styles(row["rule"] for row in rows)
    figure, axes = report.panels(1, len(tasks), width=6.6, height=4.6, sharey=True)
    for axis, delays in zip(axes[0], tasks, strict=True):
        for row in (row for row in rows if tuple(row["delays"]) == delays):
            mean = np.mean(row["curve"], axis=0)
            size = row["steps"] / len(mean)
            smooth = [
                np.mean(mean[max(0, i - SMOOTHED) : i + 1]) for i in range(len(mean))
            ]
            axis.plot(
                size * (1 + np.arange(len(mean))), smooth, label=row["rule"],
                linewidth=1.6, **styles[row["rule"]],
            )  # fmt: skip
        for name, floor in FLOORS.items():
            axis.axhline(floor, color="#666666", linewidth=0.8, linestyle=":")
            axis.text(
                0.01, floor, f"floor: knows {IN_MATHS.get(name, name)}", fontsize=8,
                ha="left", va="bottom", transform=axis.get_yaxis_transform(),
                color="#666666",
            )  # fmt: skip
        axis.set(title=f"t₁, t₂ = {delays[0]}, {delays[1]}", xlabel="time steps")
        axis.set_ylim(0.44, 0.72)
    axes[0, 0].set_ylabel("cross-entropy, nats")
    report.label_ends(*axes[0])
    return figure
