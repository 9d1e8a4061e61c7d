"""The tables and the pictures of `speech`."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import data, report
from experiments.applications._scores import draw_confusion, percent, show_confusion

DIGITS = tuple("0123456789")
ACCURACY = "test accuracy %"
LOGISTIC, OWN = "logistic, 5 segments", "measured outside this project"
OFFICIAL = [
    report.Published("CNN on MFCC", {ACCURACY: 97.0}, "web report, another split"),
    report.Published("BiLSTM", {ACCURACY: "F1 96"}, "web report, unknown split"),
    report.Published(LOGISTIC, {ACCURACY: 90.0}, OWN),
]
APART = {"lucas": 45.4, "nicolas": 46.8, "george": 70.6}
APART |= {"yweweler": 79.2, "theo": 85.2, "jackson": 87.8}


def name_of(row: dict[str, Any]) -> str:
    """Return how a row is named in tables."""
    if row["job"] == "logistic":
        return LOGISTIC
    return f"{row['cell'].upper()}, {row['pooling']} state"


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print a table of each split, and who is taken for whom."""
    _show_official([row for row in rows if "accuracy" in row], config)
    _show_left_out([row for row in rows if row.get("speakers")])
    for title, row in _confusions(rows).items():
        show_confusion(title, DIGITS, np.array(row["confusion"]))


def _show_official(rows: list[dict[str, Any]], config: Any) -> None:
    ours = {}
    for row in rows:
        cells: dict[str, Any] = {ACCURACY: row["accuracy"]}
        if "confusion" in row:
            counts = np.array(row["confusion"])
            cells["first seed, 95 %"] = percent(int(counts.trace()), int(counts.sum()))
            cells["rule × update"] = f"{row['rule']} × {row['update']}"
            cells["epochs"] = f"{row['epochs']:.3g}"
            cells["weights"] = f"{row['params']:,}"
            cells["ms"] = f"{row['ms_per_step']:.1f}"
        ours[name_of(row)] = cells
    part = "validation takes, 5 to 9" if config.tune else "official test takes, 0 to 4"
    measures = (ACCURACY, "first seed, 95 %", "rule × update", "epochs", "weights")
    report.show_beside(
        f"Spoken digits, known speakers: {part}",
        (*measures, "ms"),
        ours,
        OFFICIAL,
        "ms: of a step of all seeds.",
    )


def _show_left_out(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    measures = [*rows[0]["speakers"], "mean"]
    ours = {}
    for row in rows:
        scores = np.array([*row["speakers"].values()])  # [speakers, seeds]
        ours[name_of(row)] = row["speakers"] | {"mean": scores.mean(axis=0).tolist()}
    known = {name: APART[name] for name in rows[0]["speakers"]}
    known["mean"] = float(np.mean([*known.values()]))
    report.show_beside(
        "Spoken digits, by a speaker who was left out: accuracy %",
        measures,
        ours,
        [report.Published(LOGISTIC, known, OWN)],
    )


def _confusions(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows of which to show who is taken for whom, by title."""
    found = {}
    for row in rows:
        if "confusion" in row and row["job"] == "speakers":
            found["Unknown speakers, first seed"] = row
        elif "confusion" in row:
            found.setdefault("Known speakers, first seed", row)
    return found


def save_pictures(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Draw how networks learn, and who is taken for whom."""
    for title, row in _confusions(rows).items():
        name = f"confusion_{title.split()[0].lower()}"
        figure = draw_confusion(title, DIGITS, np.array(row["confusion"]))
        figure.axes[0].set(xlabel="what it was taken for", ylabel="digit spoken")
        report.save_picture(folder, name, figure)
    if any("curve" in row for row in rows):
        report.save_picture(folder, "speech", draw_curves(rows))


def draw_curves(rows: list[dict[str, Any]]) -> Figure:
    """Draw accuracy on the way: of each kind of network, of each unknown speaker."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for row in rows:
        if "curve" not in row:
            continue
        epochs = row["epochs"] / row["steps"]
        of_row = [point for point in row["curve"] if "accuracy" in point]
        if of_row:
            errors = [100 - np.array(point["accuracy"]) for point in of_row]
            label = f"{name_of(row)}: {100 - np.mean(row['accuracy']):.1f} %"
            _plot(left, of_row, epochs, errors, label)
        of_row = [point for point in row["curve"] if "speakers" in point]
        for speaker in row.get("speakers", ()):
            errors = [100 - np.array(point["speakers"][speaker]) for point in of_row]
            label = f"{speaker}: {100 - np.mean(row['speakers'][speaker]):.1f} %"
            colour = f"C{data.SPEAKERS.index(speaker)}"
            _plot(right, of_row, epochs, errors, label, colour)
            right.axhline(100 - APART[speaker], color=colour, ls=":", lw=1)
    left.axhline(10.0, color="black", ls=":", lw=1, label="logistic: 10.0 %")
    left.axhline(3.0, color="black", ls="--", lw=1, label="CNN, another split: 3 %")
    left.set(title="Known speakers", ylabel="error, %", yscale="log")
    right.set(title="Unknown speakers, dotted: logistic", ylabel="error, %", ylim=0)
    for axis in (left, right):
        axis.set_xlabel("epochs")
        axis.grid(alpha=0.3, which="both")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
    return figure


def _plot(axis, points, epochs, errors, label, colour=None) -> None:
    """Plot the mean of the seeds, and each of them as a thin line."""
    at = [epochs * point["step"] for point in points]
    errors = np.maximum(errors, 0.1)  # which a logarithm can show
    line = axis.plot(at, errors.mean(axis=1), "o-", color=colour, ms=3, label=label)[0]
    axis.plot(at, errors, color=line.get_color(), alpha=0.4, linewidth=0.8)
