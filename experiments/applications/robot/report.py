"""Tables and pictures of `robot`: accuracies, and confusion matrices."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import data, report
from experiments.applications.robot.networks import KINDS, read_name

RIGHT, INTERVAL = "right %", "first seed, Wilson 95 %"
COLOURS = dict(zip(KINDS, ("0.4", "C3", "C0", "C2"), strict=True))
NOTES = "measured for this project's data notes"
ELSEWHERE = [
    report.Published("sensors: majority", {RIGHT: 40.6}, NOTES),
    report.Published("sensors: logistic", {RIGHT: 71.5}, NOTES),
    report.Published("sensors: logistic, 9 past frames", {RIGHT: 77.0}, NOTES),
    report.Published("sensors: MLP 24-32-4", {RIGHT: 90.1}, NOTES),
]
CLASSES = [action.replace("-", " ").lower() for action in data.ACTIONS]


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the table of accuracies, and the confusion matrix of the best method.

    Args:
      rows: the lines of results.jsonl.
      config: settings of the study.
    """
    ours = {
        _name(row): {
            RIGHT: row["accuracy"],
            INTERVAL: report.percent(int(np.trace(row["confusion"])), row["of"]),
            "weights": f"{row['params']:,}" if "params" in row else "",
            "epochs": f"{row['epochs']:.0f}" if "params" in row else "",
        }
        for row in rows
    }
    part = "validation" if config.tune else "test"
    report.show_beside(
        f"Wall following: the robot's action, {config.rule} × {config.update}",
        (RIGHT, INTERVAL, "weights", "epochs"),
        ours,
        [] if config.tune else ELSEWHERE,
        f"Share of actions predicted correctly on the {part} part, the later frames "
        "(higher is better). Neighbouring frames are alike, so Wilson's intervals are "
        "too narrow. No network sees past actions. Freire et al. 2009, second-hand: an "
        "MLP(2,6,4) and an Elman network with 4 units solve the two-distance task.",
    )
    best = _best(rows)
    title = f"{_name(best)}, first seed"
    report.show_confusion(title, CLASSES, np.array(best["confusion"]))


def save_pictures(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the pictures of the confusion matrix and of the accuracies."""
    best = _best(rows)
    title = f"{_name(best)}, first seed"
    picture = report.draw_confusion(title, CLASSES, np.array(best["confusion"]))
    report.save_picture(folder, "confusion", picture)
    networks = [row for row in rows if "params" in row]
    if networks:
        report.save_picture(folder, "robot", draw(rows))


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw accuracies against the number of units and against the number of updates."""
    sets = list(dict.fromkeys(row["inputs"] for row in rows if "params" in row))
    figure = Figure(figsize=(11, 4.2 * len(sets)), layout="constrained")
    axes = figure.subplots(len(sets), 2, squeeze=False)
    for (of_units, on_the_way), inputs in zip(axes, sets, strict=True):
        mine = [row for row in rows if row["inputs"] == inputs]
        for kind in KINDS:
            points = []
            for row in (row for row in mine if "params" in row):
                of, units = read_name(row["model"])
                if of != kind:
                    continue
                points.append(
                    (units, np.mean(row["accuracy"]), np.std(row["accuracy"]))
                )
                curve = 100 * (1 - np.mean(row["curve"], axis=1))
                dash = "-" if units > 8 else "--"
                style = {"color": COLOURS[kind], "linestyle": dash}
                on_the_way.plot(row["curve_steps"], curve, label=row["model"], **style)
            if points:
                units, mean, deviation = zip(*sorted(points), strict=True)
                style = {"color": COLOURS[kind], "marker": "o", "capsize": 3}
                of_units.errorbar(units, mean, deviation, label=kind, **style)
        for row, dash in zip(
            (row for row in mine if "params" not in row),
            (":", "-.", "--"),
            strict=False,
        ):
            style = {"color": "0.6", "linestyle": dash}
            right = row["accuracy"][0]
            of_units.axhline(right, label=f"{row['model']}: {right:.1f} %", **style)
        names = {"sensors": "24 sensors", "two": "front and left"}
        of_units.set(title=f"{names[inputs]}: mean ± sd of seeds", xlabel="units")
        of_units.set(ylabel="right, %", xscale="log")
        of_units.xaxis.set_major_formatter("{x:g}")
        of_units.xaxis.set_minor_formatter("{x:g}")
        on_the_way.set(title=f"{names[inputs]}: during training", xlabel="updates")
        for axis in (of_units, on_the_way):
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    return figure


def _name(row: dict[str, Any]) -> str:
    return f"{row['inputs']}: {row['model']}"


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: np.mean(row["accuracy"]))
