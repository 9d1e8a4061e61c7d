"""Table and picture of the string lengths that networks reach in `copy_length`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import report


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the string lengths that each rule reaches, one table for each cell."""
    once = config.updates == "sequence"
    layers = f"{config.layers} layers of " if config.layers > 1 else ""
    for cell in dict.fromkeys(row["cell"] for row in rows):
        lines = []
        for row in rows:
            if row["cell"] == cell:
                reached = ", ".join(map(str, row["length"]))
                length = report.mean_sd(row["length"])
                late = report.mean_sd([run[-1] for run in row["losses"]])
                line = [row["rule"], length, reached, late, f"{row['seconds']:.0f}"]
                if once:
                    line.append(report.mean_sd(row["cosine"]))
                lines.append(line)
        report.show_table(
            f"Copy task, {cell} of {layers}{config.units} units, after "
            f"{config.steps} steps",
            ["", "length", "by seed", "loss", "seconds", *["cosine"] * once],
            lines,
            f"{_of_length(config)} {_of_updates(config)} Seconds: time of all seeds "
            "together, with compilation.",
        )
        _conclude([row for row in rows if row["cell"] == cell], config)


def _conclude(rows: list[dict[str, Any]], config: Any) -> None:
    """Say which rules copy the longest strings, and how far rtrl is from bptt."""
    if config.shortest == config.longest:
        losses = {row["rule"]: [run[-1] for run in row["losses"]] for row in rows}
        said = report.verdict("loss", losses, higher_is_better=False)
    else:
        lengths = {row["rule"]: row["length"] for row in rows}
        limits = (config.shortest, config.longest)
        said = report.verdict(
            "length", lengths, higher_is_better=True, unit=" bits", limits=limits
        )
    exact = next((row for row in rows if row["rule"] == "rtrl"), None)
    if exact and config.updates == "sequence":
        said += (
            " The cosine of rtrl's gradient to that of bptt is at least "
            f"{min(exact['cosine']):.6f}."
        )
    report.conclude(said, about=rows[0]["cell"])


def _of_length(config: Any) -> str:
    of_seeds = f"mean ± standard deviation of {config.seeds} seeds"
    if config.shortest == config.longest:
        return (
            f"All strings have {config.longest} bits. Loss of the recalled bits in "
            f"nats, lower is better: {of_seeds}; guessing has {np.log(2):.3f}."
        )
    return (
        f"Length: bits of the string, higher is better: {of_seeds}. The string grows "
        f"by one bit when the loss of the recalled bits is below {config.share:g} ln 2 "
        f"= {config.share * np.log(2):.3f} nats, up to {config.longest} bits."
    )


def _of_updates(config: Any) -> str:
    if config.updates == "sequence":
        return (
            "Lookback 1, every 1: gradients stay within one step. All rules "
            "update the parameters once per sequence, so rtrl must equal bptt. Cosine: "
            "of the gradient to that of bptt, at the first parameters."
        )
    return (
        "Lookback 20, every 10: every 10 steps, gradients go back 20 steps and the "
        "parameters are updated; copying L bits needs a lookback above L. bptt updates "
        "once per sequence, online rules update at each recalled bit."
    )


def draw(rows: list[dict[str, Any]], losses: bool = False) -> Figure:
    """Draw string lengths, or losses, against time steps; one panel for each cell."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    styles = report.rule_styles(row["rule"] for row in rows)
    figure, axes = report.panels(1, len(cells), width=6, height=4.4, sharey=True)
    which = "losses" if losses else "lengths"
    for axis, cell in zip(axes[0], cells, strict=True):
        for row in (row for row in rows if row["cell"] == cell):
            style = styles[row["rule"]]
            for steps, reached in zip(row["steps"], row[which], strict=True):
                axis.plot(steps, reached, linewidth=0.6, alpha=0.4, **style)
            end = max(steps[-1] for steps in row["steps"])
            begin = max(steps[0] for steps in row["steps"]) if losses else 0
            at = np.linspace(begin, end, 200)
            runs = zip(row["steps"], row[which], strict=True)
            mean = np.mean([np.interp(at, *run, left=1) for run in runs], axis=0)
            axis.plot(at, mean, linewidth=2, label=row["rule"], **style)
        axis.set(title=f"{cell}: mean of the seeds (thin: each)", xlabel="time steps")
    if losses:
        axes[0, 0].set_yscale("log")
        axes[0, 0].set_ylabel("loss of the recalled bits, nats")
    else:
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylabel("length of the longest string, bits")
    report.label_ends(*axes[0])
    return figure
