"""Table of `music` with published losses; pictures of learning and of piano rolls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

SOURCE = "Bai et al. 2018, table 1"
PUBLISHED = {
    "jsb_chorales": {"RNN": 8.91, "LSTM": 8.45, "GRU": 8.43, "TCN": 8.10},
    "nottingham": {"RNN": 4.05, "LSTM": 3.29, "GRU": 3.46, "TCN": 3.07},
}
SIZES = {"jsb_chorales": "300K", "nottingham": "1M"}
TITLES = {"jsb_chorales": "JSB Chorales", "nottingham": "Nottingham"}
COLOURS = {"tanh": "C3", "gru": "C0", "lstm": "C2"}
MEASURES = ("test", "validation", "train", "params", "best step", "minutes")


def show(name: str, rows: Sequence[dict[str, Any]], of: str) -> None:
    """Print the table of losses on one data set.

    Args:
      name: name of the data set.
      rows: lines of results.jsonl about this data set.
      of: names of the gradient rule and of the update rule that trained the networks.
    """
    ours = {}
    for row in rows:
        scores = {name: row[name] for name in ("test", "validation") if row.get(name)}
        if "cell" in row:
            scores |= {
                "train": row["train"],
                "params": f"{row['params'] / 1000:.0f}K",
                "best step": str(row["best_step"]),
                "minutes": f"{row['wall_seconds'] / 60:.1f}",
            }
        ours[row["model"]] = scores
    published = [
        report.Published(model, {"test": score, "params": SIZES[name]}, SOURCE)
        for model, score in PUBLISHED[name].items()
    ]
    report.show_beside(
        f"{TITLES[name]}, {of}",
        MEASURES,
        ours,
        published,
        "Nats per step (lower is better), summed over 88 keys; the first step of a "
        "piece is not scored. Networks are tested with the parameters of the lowest "
        "validation loss, averaged over seeds. Train: training loss at that step, with "
        "dropout. Minutes: all seeds together.",
    )


def draw_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw validation and training losses against the number of updates.

    Each panel shows one data set.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(6 * len(sets), 4.4), layout="constrained")
    axes = figure.subplots(1, len(sets), squeeze=False)[0]
    for axis, name in zip(axes, sets, strict=True):
        for row in (row for row in rows if row["set"] == name):
            if "cell" not in row:
                dash = ":" if row["model"].startswith("ind") else "-."
                style = {"color": "0.5", "linestyle": dash}
                axis.axhline(row["validation"], label=row["model"], **style)
                continue
            colour, steps = COLOURS[row["cell"]], row["curve_steps"]
            curve, train = np.array(row["curve"]), np.array(row["train_curve"])
            axis.plot(steps, curve, color=colour, linewidth=0.6, alpha=0.5)
            label = f"{row['model']}, validation"
            axis.plot(steps, curve.mean(axis=1), color=colour, label=label)
            label = f"{row['model']}, training"
            style = {"color": colour, "linestyle": "--", "linewidth": 0.9}
            axis.plot(steps, train.mean(axis=1), label=label, **style)
        best = min(PUBLISHED[name][model] for model in ("LSTM", "GRU"))
        label = "best LSTM or GRU on test, published"
        axis.axhline(best, color="black", linewidth=0.8, label=label)
        top = max(row["validation"] for row in rows if row["model"].startswith("ind"))
        axis.set(title=TITLES[name], xlabel="updates", ylabel="nats per step")
        axis.set_ylim(0.8 * best, 1.08 * top)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def draw_rolls(
    name: str, rolls: Sequence[tuple[str, np.ndarray]], prime: int
) -> Figure:
    """Draw piano rolls, one above the other.

    Args:
      name: name of the data set.
      rolls: pairs (title, piano roll [T, 88] of zeros and ones).
      prime: number of time steps that the network was given, from the start of a piece.
    """
    figure = Figure(figsize=(10, 1.9 * len(rolls)), layout="constrained")
    axes = figure.subplots(len(rolls), 1, squeeze=False, sharex=True, sharey=True)
    keys = np.flatnonzero(np.any([roll.any(axis=0) for _, roll in rolls], axis=0))
    low, high = (int(keys.min()), int(keys.max())) if keys.size else (0, 87)
    for axis, (title, roll) in zip(axes[:, 0], rolls, strict=True):
        axis.imshow(
            roll.T, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1,
            extent=(-0.5, len(roll) - 0.5, 20.5, 108.5), interpolation="nearest",
        )  # fmt: skip
        axis.axvline(prime - 0.5, color="C3", linewidth=1)
        axis.set(title=title, ylabel="MIDI note", ylim=(low + 19, high + 23))
        octaves = [note for note in range(24, 109, 12) if low + 19 < note < high + 23]
        axis.set_yticks(octaves)
        axis.grid(axis="y", alpha=0.4)
    axes[-1, 0].set_xlabel("step; steps left of the red line were given")
    figure.suptitle(TITLES[name])
    return figure
