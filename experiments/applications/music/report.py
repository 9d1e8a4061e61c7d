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
TITLES["own"] = "your MIDI files"
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
        for model, score in PUBLISHED.get(name, {}).items()
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
    _conclude(name, rows)


def _conclude(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Say which network is best, and which ones are better than the baselines."""
    part = "test" if all(row.get("test") for row in rows) else "validation"
    networks = {row["model"]: row[part] for row in rows if "cell" in row}
    others = {row["model"]: row[part] for row in rows if "cell" not in row}
    if not networks:
        return
    sign: Any = {"higher_is_better": False, "unit": " nats"}
    said = [report.verdict(f"{part} loss", networks, **sign)]
    if others:
        best = min(others, key=lambda model: others[model])
        said.append(report.against(best, others[best], networks, **sign))
    if part == "test" and name in PUBLISHED:
        best = min(("LSTM", "GRU"), key=lambda cell: PUBLISHED[name][cell])
        known = PUBLISHED[name][best]
        said.append(report.against(f"the published {best}", known, networks, **sign))
    report.conclude(" ".join(filter(None, said)), about=TITLES[name])


def draw_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw validation losses and training losses against the number of updates.

    Each row of panels shows one data set; a thin line is a seed.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = report.panels(len(sets), 2, width=6, height=3.9, sharey="row")
    for line, name in zip(axes, sets, strict=True):
        validation, training = line
        mine = [row for row in rows if row["set"] == name]
        for row in (row for row in mine if "cell" in row):
            style, steps = report.cell_style(row["cell"]), row["curve_steps"]
            curve, train = np.array(row["curve"]), np.array(row["train_curve"])
            validation.plot(steps, curve, linewidth=0.6, alpha=0.4, **style)
            label = row["model"]
            validation.plot(steps, curve.mean(axis=1), label=label, **style)
            training.plot(steps, train.mean(axis=1), label=label, **style)
        best = min(np.min(row["validation"]) for row in mine)
        levels = {row["model"]: row["validation"] for row in mine if "cell" not in row}
        for i, (label, level) in enumerate(levels.items()):
            style = {"color": "#888888", "linestyle": (":", "-.")[i % 2], "zorder": 1}
            validation.axhline(level, label=label, **style)
        if name in PUBLISHED:
            best = min(PUBLISHED[name][model] for model in ("LSTM", "GRU"))
            label = "best LSTM or GRU, published (test)"
            validation.axhline(best, color="#444444", linestyle="--", label=label)
        top = max(row["validation"] for row in mine if row["model"].startswith("ind"))
        validation.set_ylim(0.8 * best, 1.08 * top)
        for axis, what in ((validation, "validation"), (training, "training")):
            axis.set(title=f"{TITLES[name]}: {what}", xlabel="updates")
            axis.set_ylabel("nats per step")
    report.label_ends(*axes.flat)
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
        axis.axvline(prime - 0.5, color=report.COLOURS[1], linewidth=1.4)
        axis.set(title=title, ylabel="MIDI note", ylim=(low + 19, high + 23))
        octaves = [note for note in range(24, 109, 12) if low + 19 < note < high + 23]
        axis.set_yticks(octaves)
        axis.grid(axis="y", alpha=0.4)
    axes[-1, 0].set_xlabel("step; steps left of the red line were given")
    figure.suptitle(TITLES[name])
    return figure
