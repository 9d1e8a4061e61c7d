"""Tables and pictures of `speech`."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import data, report

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
SPEAKERS = {  # {speaker: colour and line style}
    speaker: {"color": report.COLOURS[i], "linestyle": ("-", "--")[i % 2]}
    for i, speaker in enumerate(data.SPEAKERS)
}


def name_of(row: dict[str, Any]) -> str:
    """Return the name that a row of results has in tables and pictures."""
    if row["job"] == "logistic":
        return LOGISTIC
    return f"{row['cell'].upper()}, {row['pooling']} state"


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print a table and a confusion matrix for each split of the recordings."""
    _show_official([row for row in rows if "accuracy" in row], config)
    _show_left_out([row for row in rows if row.get("speakers")])
    for title, counts in _confusions(rows).values():
        report.show_confusion(title, DIGITS, counts)


def _show_official(rows: list[dict[str, Any]], config: Any) -> None:
    ours = {}
    for row in rows:
        cells: dict[str, Any] = {ACCURACY: row["accuracy"]}
        if "confusion" in row:
            counts = np.array(row["confusion"])
            cells["first seed, 95 %"] = report.percent(
                int(counts.trace()), int(counts.sum())
            )
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
        "Higher is better. ms: time of a step, all seeds together.",
    )
    scores = {name_of(row): row["accuracy"] for row in rows}
    _conclude("accuracy on known speakers", scores)


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
    means = {name: list(np.atleast_1d(each["mean"])) for name, each in ours.items()}
    _conclude("mean accuracy on unknown speakers", means)


def _conclude(measure: str, scores: dict[str, list[float]]) -> None:
    """Say which network is best, and which ones are better than logistic regression."""
    networks = {name: each for name, each in scores.items() if name != LOGISTIC}
    sign: Any = {"higher_is_better": True}
    said = []
    if networks:
        said = [report.verdict(measure, networks, unit=" %", limits=(0, 100), **sign)]
    if LOGISTIC in scores:
        (value,) = scores[LOGISTIC]
        said.append(
            report.against("logistic regression", value, networks, unit=" %", **sign)
        )
    if any(said):
        report.conclude(" ".join(filter(None, said)))


def _confusions(rows: list[dict[str, Any]]) -> dict[str, tuple[str, np.ndarray]]:
    """Return {"known" or "unknown": (title, confusion counts)} of the first network.

    Tested speakers are "known" if they were in the training part, else "unknown".
    """
    found = {}
    for row in rows:
        if "confusion" in row:
            who = "unknown" if row["job"] == "speakers" else "known"
            title = f"{who.capitalize()} speakers: {name_of(row)}, first seed"
            found.setdefault(who, (title, np.array(row["confusion"])))
    return found


def save_pictures(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Draw learning curves and confusion matrices, and save them as pictures."""
    for who, (title, counts) in _confusions(rows).items():
        figure = report.draw_confusion(title, DIGITS, counts)
        figure.axes[0].set(xlabel="digit predicted", ylabel="digit spoken")
        report.save_picture(folder, f"confusion_{who}", figure)
    if any("curve" in row for row in rows):
        report.save_picture(folder, "speech", draw_curves(rows))


def draw_curves(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against epochs, for each kind of network and unknown speaker.

    A thin line shows one seed, and a thick line the mean over seeds. Unknown speakers
    have a panel each; its dotted line is logistic regression.
    """
    networks = [row for row in rows if row["job"] != "logistic"]
    logistic = next((row for row in rows if row["job"] == "logistic"), None)
    speakers = list(
        dict.fromkeys(s for row in networks for s in row.get("speakers", {}))
    )
    figure, axes = report.panels(1, 1 + bool(speakers), width=6.4, height=4.2)
    known, *unknown = axes[0]
    for row in networks:
        points = [point for point in row["curve"] if "accuracy" in point]
        if points:
            errors = [100 - np.array(point["accuracy"]) for point in points]
            label = f"{name_of(row)}, {100 - np.mean(row['accuracy']):.1f} %"
            _plot(known, row, points, errors, label, _style(row))
        points = [point for point in row["curve"] if "speakers" in point]
        for speaker, scores in row.get("speakers", {}).items():
            label = f"{speaker}, {100 - np.mean(scores):.1f} %"
            errors = [100 - np.array(point["speakers"][speaker]) for point in points]
            _plot(unknown[0], row, points, errors, label, SPEAKERS[speaker])
    if logistic is not None:
        error = 100 - logistic["accuracy"][0]
        _level(known, error, f"logistic regression, {error:.1f} %", ":")
        for speaker, scores in logistic["speakers"].items() if unknown else ():
            unknown[0].plot(
                0, 100 - scores[0], marker=">", markersize=7, clip_on=False,
                color=SPEAKERS[speaker]["color"], linestyle="",
            )  # fmt: skip
    _level(known, 3.0, "published CNN, another split, 3 %", "--")
    for axis, title in zip(
        (known, *unknown),
        ("known speakers", "unknown speakers (triangles: logistic regression)"),
        strict=False,
    ):
        axis.set(title=title, ylim=(0, None), xlabel="epochs", ylabel="test error, %")
        axis.set_xlim(left=0)
    report.label_ends(*axes[0])
    return figure


def _style(row: dict[str, Any]) -> dict[str, Any]:
    """Return the style of a network: its cell's, dotted if it is pooled otherwise."""
    style = report.cell_style(row["cell"])
    if row["pooling"] == "last":
        return style
    return style | {"color": report.shade(style["color"], 0.5)}


def _level(axis: Axes, error: float, label: str, dash: str) -> None:
    axis.axhline(error, color="#666666", ls=dash, lw=1, label=label)


def _plot(axis, row, points, errors, label, style) -> None:
    at = [row["epochs"] / row["steps"] * point["step"] for point in points]
    axis.plot(at, np.mean(errors, axis=1), marker="o", ms=3, label=label, **style)
    axis.plot(at, errors, alpha=0.35, linewidth=0.8, **style)
