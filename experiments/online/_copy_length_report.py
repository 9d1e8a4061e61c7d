"""Table and picture of the string lengths that networks reach in `copy_length`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

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
            "truncated (h; h′): every h′ steps, gradients go back h steps and the "
            "parameters are updated; copying L bits needs h > L. bptt updates once per "
            "sequence, online rules update at each recalled bit. Seconds: time of all "
            "seeds together, with compilation.",
        )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the string lengths against training time steps, one panel for each cell."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    figure = Figure(figsize=(6 * len(cells) + 2, 5), layout="constrained")
    axes = figure.subplots(1, len(cells), squeeze=False, sharey=True)[0]
    for axis, cell in zip(axes, cells, strict=True):
        for row in (row for row in rows if row["cell"] == cell):
            style = {"color": f"C{rules.index(row['rule']) % 10}"}
            offline = row["rule"] == "bptt" or row["rule"].startswith("truncated")
            style["linestyle"] = "--" if offline else "-"
            for steps, lengths in zip(row["steps"], row["lengths"], strict=True):
                axis.plot(steps, lengths, linewidth=0.6, alpha=0.4, **style)
            end = max(steps[-1] for steps in row["steps"])
            at = np.linspace(0, end, 200)
            runs = zip(row["steps"], row["lengths"], strict=True)
            mean = np.mean([np.interp(at, *run, left=1) for run in runs], axis=0)
            axis.plot(at, mean, linewidth=2, label=row["rule"], **style)
        axis.set(title=f"{cell}: mean of the seeds (thin: each)", xlabel="steps")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("length of the string, bits")
    handles = {}
    for axis in axes:
        lines, names = axis.get_legend_handles_labels()
        handles |= dict(zip(names, lines, strict=True))
    figure.legend(
        handles.values(), handles.keys(), fontsize=8, loc="outside right upper"
    )
    return figure
