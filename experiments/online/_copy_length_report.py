"""Table and picture of the string lengths that networks reach in `copy_length`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import report


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the string lengths that each rule reaches, one table for each cell."""
    for cell in dict.fromkeys(row["cell"] for row in rows):
        lines = []
        for row in rows:
            if row["cell"] == cell:
                reached = ", ".join(map(str, row["length"]))
                length = report.mean_sd(row["length"])
                late = report.mean_sd([run[-1] for run in row["losses"]])
                line = [row["rule"], length, reached, late, f"{row['seconds']:.0f}"]
                lines.append(line)
        report.show_table(
            f"Copy task, {cell} of {config.units} units, after {config.steps} steps",
            ["", "length", "by seed", "loss", "seconds"],
            lines,
            f"Length: bits of the string, higher is better: mean ± standard deviation "
            f"of {config.seeds} seeds. The string grows by one bit when the loss of "
            f"the recalled bits is below {config.share:g} ln 2 = "
            f"{config.share * np.log(2):.3f} nats, up to {config.longest} bits. "
            "Lookback 20, every 10: every 10 steps, gradients go back 20 steps and the "
            "parameters are updated; copying L bits needs a lookback above L. bptt "
            "updates once per sequence, online rules update at each recalled bit. "
            "Seconds: time of all seeds together, with compilation.",
        )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the string lengths against training time steps, one panel for each cell."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    styles = report.rule_styles(row["rule"] for row in rows)
    figure, axes = report.panels(1, len(cells), width=6, height=4.4, sharey=True)
    for axis, cell in zip(axes[0], cells, strict=True):
        for row in (row for row in rows if row["cell"] == cell):
            style = styles[row["rule"]]
            for steps, lengths in zip(row["steps"], row["lengths"], strict=True):
                axis.plot(steps, lengths, linewidth=0.6, alpha=0.4, **style)
            end = max(steps[-1] for steps in row["steps"])
            at = np.linspace(0, end, 200)
            runs = zip(row["steps"], row["lengths"], strict=True)
            mean = np.mean([np.interp(at, *run, left=1) for run in runs], axis=0)
            axis.plot(at, mean, linewidth=2, label=row["rule"], **style)
        axis.set(title=f"{cell}: mean of the seeds (thin: each)", xlabel="time steps")
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("length of the longest string, bits")
    report.label_ends(*axes[0])
    return figure
