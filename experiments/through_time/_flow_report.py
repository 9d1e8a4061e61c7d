"""Table and picture of `flow`."""

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

LEAST = 1e-12  # lower end of the axis for gradient norms


def show(rows: list[dict[str, Any]], config: Any, source: str) -> None:
    """Print how each network's gradient norm changes with the steps back in time.

    For each network, the table has one row before training and one row after training.
    """
    lines = []
    for row in rows:
        when = f"after {row['trained']}" if row["trained"] else "before"
        line = [f"{row['cell']}, {row['start']}, {when}"]
        line += [report.mean_sd(row["beta"]), _verdicts(row["verdict"])]
        line += [report.mean_sd(row[name]) for name in ("lookback", "exponent")]
        lines.append([*line, f"{np.exp(np.mean(row['exponent'])):.3f}"])
        lines[-1].append(report.mean_sd(row["bits"]))
    report.show_table(
        f"Gradient flow through time, on held-out text of {source}",
        ["", "β", "verdict", "lookback", "λ_1", "exp λ_1", "bits/character"],
        lines,
        f"Mean ± standard deviation of {config.seeds} seeds, on {config.windows} "
        "windows of text, before training, and after the given number of updates.\n"
        "β: factor by which the gradient of one loss changes per step back, over lags "
        f"up to {config.length - 1}; β is 1 if the gradient neither vanishes nor "
        "explodes. Lookback: the smallest K such that at most a tenth of the gradient "
        "comes from lags k ≥ K.\n"
        "λ_1: the largest Lyapunov exponent of the carry; if λ_1 is below 0, "
        "perturbations of the carry fade. Bits per character: lower is better.",
    )
    _conclude(rows)


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say whose gradients vanish or explode, and which networks predict best."""
    for when in dict.fromkeys(row["trained"] for row in rows):
        mine = {
            f"{row['cell']}, {row['start']}": row
            for row in rows
            if row["trained"] == when
        }
        found: dict[str, list[str]] = {}
        for name, row in mine.items():
            found.setdefault(_verdicts(row["verdict"]), []).append(name)
        said = [
            f"{word.capitalize()}: {'; '.join(each)}." for word, each in found.items()
        ]
        if when:
            bits = {name: row["bits"] for name, row in mine.items()}
            said.append(
                report.verdict("loss", bits, higher_is_better=False, unit=" bits")
            )
        begin = f"after {when} updates" if when else "before training"
        report.conclude(f"Gradients {begin}. {' '.join(said)}")


def _verdicts(words: list[str]) -> str:
    counts = Counter(words)
    if len(counts) == 1:
        return words[0]
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw gradient norms against the number of steps back in time.

    Each column of panels is for one initialisation. The upper row shows networks before
    training, and the lower row shows them after training.
    """
    starts = list(dict.fromkeys(row["start"] for row in rows))
    figure, axes = report.panels(2, len(starts), width=5.6, sharey=True)
    for row in rows:
        axis = axes[int(row["trained"] > 0), starts.index(row["start"])]
        curves = np.maximum(row["curve"], LEAST / 10)
        typical = np.exp(np.log(curves).mean(axis=0))
        style = report.cell_style(row["cell"])
        label = f"{row['cell']}, β {np.mean(row['beta']):.3f}"
        axis.plot(typical, label=label, **style)
        axis.fill_between(
            range(len(typical)), curves.min(axis=0), curves.max(axis=0),
            color=style["color"], alpha=0.13, linewidth=0,
        )  # fmt: skip
    for i, line in enumerate(axes):
        for start, axis in zip(starts, line, strict=True):
            trained = "after training" if i else "before training"
            axis.set_title(f"{start} start, {trained}")
            axis.set(
                xlabel="lag k (steps back)", ylabel="size of the gradient, ‖∂ℓₛ/∂hₛ₋ₖ‖"
            )
            axis.set_ylim(bottom=max(LEAST, axis.get_ylim()[0]))
            report.log_ticks(axis)
            axis.tick_params(labelleft=True)
    report.label_ends(*axes.flat)
    return figure
