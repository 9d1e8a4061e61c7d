"""Tables and pictures of `robot`: accuracies, and confusion matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import data, report
from experiments.applications.robot.networks import KINDS, read_name
from experiments.networks.cells import DENSE

RIGHT, INTERVAL = "right %", "first seed, Wilson 95 %"
NOTES = "measured for this project's data notes"
ELSEWHERE = [
    report.Published("sensors: majority", {RIGHT: 40.6}, NOTES),
    report.Published("sensors: logistic", {RIGHT: 71.5}, NOTES),
    report.Published("sensors: logistic, 9 past frames", {RIGHT: 77.0}, NOTES),
    report.Published("sensors: MLP 24-32-4", {RIGHT: 90.1}, NOTES),
]
SETS = {"sensors": "24 sensors", "two": "front and left"}
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
    _conclude(rows)
    best = _best(rows)
    title = f"{_name(best)}, first seed"
    report.show_confusion(title, CLASSES, np.array(best["confusion"]))


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say which network is best, and which ones are better than linear models."""
    for inputs in dict.fromkeys(row["inputs"] for row in rows):
        mine = [row for row in rows if row["inputs"] == inputs]
        networks = {row["model"]: row["accuracy"] for row in mine if "params" in row}
        linear = [row for row in mine if "params" not in row]
        sign: Any = {"higher_is_better": True, "unit": " %"}
        said = []
        if networks:
            said = [report.verdict("accuracy", networks, limits=(0, 100), **sign)]
        if networks and linear:
            best = _best(linear)
            said.append(
                report.against(best["model"], best["accuracy"][0], networks, **sign)
            )
        if said:
            told = " ".join(filter(None, said))
            report.conclude(f"{SETS[inputs][0].upper()}{SETS[inputs][1:]}. {told}")


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
    figure, axes = report.panels(len(sets), 2, width=6.2, height=3.9)
    for (of_units, on_the_way), inputs in zip(axes, sets, strict=True):
        mine = [row for row in rows if row["inputs"] == inputs]
        for kind in KINDS:
            _draw_kind(of_units, on_the_way, kind, [r for r in mine if "params" in r])
        linear = [row for row in mine if "params" not in row]
        for row, dash in zip(linear, (":", "-.", "--"), strict=False):
            right = row["accuracy"][0]
            style = {"color": "#888888", "linestyle": dash}
            of_units.axhline(right, label=row["model"], zorder=1, **style)
        of_units.set(title=f"{SETS[inputs]}: mean ± sd of seeds", xlabel="units")
        of_units.set_ylabel("actions predicted correctly, %")
        report.log_ticks(of_units, "x")
        units = sorted({read_name(row["model"])[1] for row in mine if "params" in row})
        of_units.set_xticks(units, map(str, units))
        on_the_way.set(title=f"{SETS[inputs]}: during training", xlabel="updates")
        on_the_way.set_ylabel("actions predicted correctly, %")
    report.label_ends(*axes.flat)
    return figure


def _draw_kind(
    of_units: Axes, on_the_way: Axes, kind: str, rows: Sequence[Any]
) -> None:
    """Draw all networks of a kind; a network with fewer units has a lighter curve."""
    mine = {read_name(row["model"])[1]: row for row in rows
            if read_name(row["model"])[0] == kind}  # fmt: skip
    if not mine:
        return
    style: dict[str, Any] = {"color": "#000000"}
    if kind in DENSE:
        style = report.cell_style(kind)
    units = sorted(mine)
    scores = [mine[each]["accuracy"] for each in units]
    means = [np.mean(score) for score in scores]
    of_units.plot(units, means, marker="o", label=kind, **style)
    of_units.errorbar(
        units, means, [float(np.std(score)) for score in scores], fmt="none", capsize=3,
        ecolor=style["color"],
    )  # fmt: skip
    for i, each in enumerate(units, 1):
        colour = report.shade(style["color"], 0.35 + 0.65 * i / len(units))
        curve = 100 * (1 - np.mean(mine[each]["curve"], axis=1))
        on_the_way.plot(
            mine[each]["curve_steps"], curve, label=mine[each]["model"],
            **{**style, "color": colour},
        )  # fmt: skip


def _name(row: dict[str, Any]) -> str:
    return f"{row['inputs']}: {row['model']}"


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: np.mean(row["accuracy"]))
