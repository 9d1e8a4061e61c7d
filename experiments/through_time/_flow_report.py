"""Table and picture of the study of flow through time."""

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

LEAST = 1e-12  # of errors that are drawn


def show(rows: list[dict[str, Any]], config: Any, source: str) -> None:
    """Print a line for each network, before its training and after."""
    lines = []
    for row in rows:
        when = f"after {row['trained']}" if row["trained"] else "before"
        line = [f"{row['cell']}, {row['start']}, {when}"]
        line += [_mean_sd(row["beta"], 3), _verdicts(row["verdict"])]
        line += [_mean_sd(row["lookback"], 0), _mean_sd(row["exponent"], 3)]
        lines.append([*line, f"{np.exp(np.mean(row['exponent'])):.3f}"])
        lines[-1].append(_mean_sd(row["bits"], 2))
    report.show_table(
        f"Errors on their way back, in {source}",
        ["", "β", "verdict", "lookback", "λ_1", "exp λ_1", "bits/character"],
        lines,
        f"Mean ± standard deviation over {config.seeds} seeds, of {config.windows} "
        f"windows.\nβ: errors of one loss change by it a step, on lags up to "
        f"{config.length - 1}. Lookback: lags from there on have a tenth of all errors."
        "\nλ_1: the largest Lyapunov exponent, of the carry along the text; before and "
        "after so many updates.",
    )


def _mean_sd(values: list[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def _verdicts(words: list[str]) -> str:
    counts = Counter(words)
    if len(counts) == 1:
        return words[0]
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw errors against the lag: a column for each start, a line for each cell."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    starts = list(dict.fromkeys(row["start"] for row in rows))
    axes = figure.subplots(2, len(starts), squeeze=False, sharey=True)
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    for row in rows:
        axis = axes[int(row["trained"] > 0), starts.index(row["start"])]
        curves = np.maximum(row["curve"], LEAST / 10)
        typical = np.exp(np.log(curves).mean(axis=0))
        colour = f"C{cells.index(row['cell'])}"
        label = f"{row['cell']}, β {np.mean(row['beta']):.3f}"
        axis.plot(typical, color=colour, label=label)
        axis.fill_between(
            range(len(typical)), curves.min(axis=0), curves.max(axis=0),
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
    for i, line in enumerate(axes):
        for start, axis in zip(starts, line, strict=True):
            trained = "after training" if i else "before training"
            axis.set(title=f"{start} start, {trained}", yscale="log")
            axis.set(xlabel="lag k (steps back)", ylabel="‖∂ℓ_s/∂h_{s−k}‖")
            axis.set_ylim(bottom=max(LEAST, axis.get_ylim()[0]))
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend(fontsize=8)
    return figure
