"""Tables and pictures of `categorise`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.markup import escape

from experiments import report
from experiments.applications.categorise.baselines import NAMES

ACCURACY, F1, TOGETHER = "accuracy %", "F1 of spam", "seeds together, 95 %"
TITLES = {"sms_spam": "SMS Spam", "trec": "TREC, six classes", "own": "your texts"}
OWN = "measured elsewhere"
KIM = "harvardnlp, after Kim 2014"
PUBLISHED = {
    "sms_spam": [
        report.Published("logistic, tf-idf of 1–4 characters", {F1: 0.965}, OWN),
        report.Published("the same, repeats left in", {F1: 0.968}, OWN),
    ],
    "trec": [
        report.Published("CNN, random words", {ACCURACY: 88.2}, KIM),
        report.Published("CNN, static word vectors", {ACCURACY: 91.8}, KIM),
        report.Published("CNN, nonstatic", {ACCURACY: 92.8}, KIM),
        report.Published("CNN, multichannel", {ACCURACY: 91.8}, KIM),
        report.Published("logistic, 1–2 words", {ACCURACY: 89.0}, OWN),
    ],
}


def name_of(row: dict[str, Any]) -> str:
    """Return the name that a row of results has in tables and pictures."""
    if "units_of" not in row:
        return NAMES[row["set"]]
    return f"{row['cell'].upper()} over {row['units_of']}, {row['pooling']} state"


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print a table and a confusion matrix for each data set."""
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        _show_set(name, mine, config)
        for title, classes, counts in _confusions(mine).values():
            report.show_confusion(title, classes, counts)


def _show_set(name: str, rows: list[dict[str, Any]], config: Any) -> None:
    ours: dict[str, dict[str, Any]] = {}
    for row in rows:
        cells = {ACCURACY: row["accuracy"]}
        if "f1" in row:
            cells[F1] = row["f1"]
        if "majority" in row:
            ours["the most frequent class"] = {ACCURACY: row["majority"]}
            cells[TOGETHER] = _interval(row)
        else:
            cells[TOGETHER] = _interval(row["together"])
            cells["rule × update"] = f"{row['rule']} × {row['update']}"
            cells["epochs"] = f"{row['epochs']:.3g}"
            cells["weights"] = f"{row['params']:,}"
        ours[name_of(row)] = cells
    part = "validation part" if config.tune else "test part"
    some = (F1,) if any("f1" in row for row in rows) else ()
    measures = (ACCURACY, *some, TOGETHER, "rule × update", "epochs", "weights")
    report.show_beside(
        f"{TITLES[name]}: {part}",
        measures,
        ours,
        PUBLISHED.get(name, []),
        "Higher is better. Seeds together: class probabilities are averaged over "
        "seeds. The most frequent class is determined on the tested texts.",
    )
    _conclude(name, rows, config)


def _conclude(name: str, rows: list[dict[str, Any]], config: Any) -> None:
    """Say which network is best, and which ones are better than the baselines."""
    networks = {name_of(row): row["accuracy"] for row in rows if "units_of" in row}
    if not networks:
        return
    others = {name_of(row): row["accuracy"][0] for row in rows if "units_of" not in row}
    if not config.tune:  # published accuracies are of the test part
        for one in PUBLISHED.get(name, [])[:1]:
            if ACCURACY in one.scores:
                others[f"the published {one.name}"] = float(one.scores[ACCURACY])
    sign: Any = {"higher_is_better": True}
    said = [report.verdict("accuracy", networks, unit=" %", limits=(0, 100), **sign)]
    for other, value in others.items():
        said.append(report.against(other, value, networks, unit=" %", **sign))
    report.conclude(" ".join(filter(None, said)), about=TITLES[name])


def _interval(row: dict[str, Any]) -> str:
    """Format a row's accuracy with its 95 % interval, and its F1 score if present."""
    counts = np.array(row["confusion"])
    text = report.percent(int(counts.trace()), int(counts.sum()))
    return f"{text}, F1 {row['f1'][0]:.3f}" if "f1" in row else text


def _confusions(
    rows: list[dict[str, Any]],
) -> dict[str, tuple[str, list[str], np.ndarray]]:
    """Return {data set: (title, classes, confusion counts of the first network)}."""
    found: dict[str, tuple[str, list[str], np.ndarray]] = {}
    for row in rows:
        if "units_of" in row:
            title = f"{TITLES[row['set']]}: {name_of(row)}, first seed"
            counts = np.array(row["confusion"])
            found.setdefault(row["set"], (title, row["classes"], counts))
    return found


def say(text: str, name: str, classes: Sequence[str], likely: np.ndarray) -> None:
    """Print the three most probable classes of a text."""
    order = np.argsort(-likely)
    others = ", ".join(f"{classes[i]} {100 * likely[i]:.0f} %" for i in order[1:3])
    report.say(
        f"{TITLES[name]}: {escape(repr(text))} is [bold]{classes[order[0]]}[/bold] "
        f"({100 * likely[order[0]]:.0f} %; else {others})"
    )


def save_pictures(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Draw learning curves and confusion matrices, and save them as pictures."""
    for name, (title, classes, counts) in _confusions(rows).items():
        figure = report.draw_confusion(title.replace(": ", ":\n"), classes, counts)
        report.save_picture(folder, f"confusion_{name}", figure)
    if any("curve" in row for row in rows):
        report.save_picture(folder, "categorise", draw_curves(rows))


def draw_curves(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against epochs; each panel shows one data set.

    A thin line shows one seed, and a thick line the mean over seeds.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = report.panels(1, len(sets), width=6.6, height=4.2)
    for axis, name in zip(axes[0], sets, strict=True):
        mine = [row for row in rows if row["set"] == name]
        levels, networks = {}, [row for row in mine if "curve" in row]
        for row in mine:
            error = 100 - np.mean(row["accuracy"])
            if "curve" not in row:
                levels[f"{name_of(row)}, {error:.1f} %"] = error, ":"
        for published in PUBLISHED.get(name, [])[:1]:
            if ACCURACY in published.scores:
                error = 100 - float(published.scores[ACCURACY])
                levels[f"{published.name}, published, {error:.1f} %"] = error, "--"
        for row in networks:
            _draw_network(axis, row, networks)
        for label, (error, dash) in levels.items():
            style = {"color": "#666666", "linestyle": dash, "linewidth": 1}
            axis.axhline(error, label=label, **style)
        axis.set(title=TITLES[name], xlabel="epochs", ylabel="test error, %")
        axis.set(xlim=(0, None), ylim=(0, None))
    report.label_ends(*axes[0])
    return figure


def _draw_network(axis: Axes, row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Draw one network; networks with the same cell have different shades."""
    same = [each for each in rows if each["cell"] == row["cell"]]
    style = report.cell_style(row["cell"])
    share = 0.4 + 0.6 * (1 + same.index(row)) / len(same)
    style["color"] = report.shade(style["color"], share)
    points = [point for point in row["curve"] if "accuracy" in point]
    at = [row["epochs"] / row["steps"] * point["step"] for point in points]
    errors = 100 - np.array([point["accuracy"] for point in points])
    label = f"{name_of(row)}, {100 - np.mean(row['accuracy']):.1f} %"
    axis.plot(at, errors.mean(axis=1), marker="o", ms=3, label=label, **style)
    axis.plot(at, errors, alpha=0.35, linewidth=0.8, **style)
