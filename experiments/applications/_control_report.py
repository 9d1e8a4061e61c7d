"""What `control` shows: tables beside references, curves, and how errors flow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.applications._control_systems import SYSTEMS
from experiments.applications._scores import percent

GOALS = {
    "pendulum": "at least 95 % upright",
    "cartpole": "at least 90 % upright, in place",
    "arm": "at most 2 cm from its goal in the mean",
}
COLOURS = {"bptt": "C0", "truncated_bptt": "C1", "forward_gradient": "C2", "pes": "C4"}


def show(name: str, rows: Sequence[dict[str, Any]], config: Any) -> None:
    """Print the table of one system.

    Args:
      name: of the system.
      rows: its lines of results.jsonl.
      config: of the study.
    """
    system = SYSTEMS[name]
    errors = [f"mean {kind}" for kind, _ in system.tolerances]
    measures = ["success, %", "95 % of all", *errors, "cost", "/ iLQR", "/ LQR"]
    measures += ["ms/update"]
    first = rows[0]
    ours: dict[str, Any] = {
        "no action": {"success, %": first["idle"], "cost": first["idle_cost"]},
        "untrained": {
            "success, %": first["untrained"],
            "cost": first["untrained_cost"],
            **dict(zip(errors, first["untrained_error"], strict=True)),
        },
    }
    for row in rows:
        ours[f"{row['rule']}, {row['steps']} updates"] = {
            "success, %": row["success"],
            "95 % of all": percent(*row["succeeded"]),
            **dict(zip(errors, row["error"], strict=True)),
            "cost": row["cost"],
            "/ iLQR": row["to_ilqr"],
            "/ LQR": row["to_lqr"],
            "ms/update": row["ms_per_step"],
        }
    allowed = ", ".join(f"{kind} ≤ {most}" for kind, most in system.tolerances)
    report.show_beside(
        f"{name}: {GOALS[name]}",
        measures,
        ours,
        [],
        f"{config.judged} random starts, {system.judged * system.dt:.0f} s. Success: "
        f"{allowed} throughout the last second; errors are means over it. "
        f"Cost: of a step. / iLQR: that of {config.compared} episodes, over what iLQR "
        "finds for each, which it begins from no action and from the policy's; / LQR: "
        "that near the goal, over the best linear policy's.",
    )


def draw_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw cost and success against updates: a column for each system."""
    names = list(dict.fromkeys(row["system"] for row in rows))
    figure = Figure(figsize=(1 + 4.4 * len(names), 6.4), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False, sharex="col")
    for (above, below), name in zip(axes.T, names, strict=True):
        for row in (row for row in rows if row["system"] == name):
            steps = [line["step"] for line in row["curve"]]
            colour = COLOURS.get(row["rule"], "0.4")
            for axis, measure in ((above, "cost"), (below, "success")):
                values = np.array([line[measure] for line in row["curve"]])
                axis.plot(steps, values, color=colour, linewidth=0.6, alpha=0.6)
                axis.plot(steps, values.mean(axis=1), color=colour, label=row["rule"])
        idle = rows[[row["system"] for row in rows].index(name)]["idle_cost"][0]
        above.axhline(idle, color="black", linestyle=":", label="no action")
        above.set(title=name, ylabel="cost of a step", yscale="log")
        below.set(xlabel="updates", ylabel="success, %", ylim=(-3, 103))
        above.legend(fontsize=8)
        for axis in (above, below):
            axis.grid(alpha=0.3)
    return figure


def draw_flow(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw errors in the state against the lag: a column for each system."""
    names = list(dict.fromkeys(row["system"] for row in rows))
    figure = Figure(figsize=(1 + 4.4 * len(names), 4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        mine = [row for row in rows if row["system"] == name]
        untrained = mine[0]["flow"][0]
        _draw_curve(axis, untrained, "black", "untrained")
        for row in mine:
            colour = COLOURS.get(row["rule"], "0.4")
            _draw_curve(axis, row["flow"][1], colour, row["rule"])
        dt = SYSTEMS[name].dt
        axis.set(title=name, yscale="log", ylabel="‖∂ℓ_s/∂s_{s−k}‖")
        axis.set_xlabel(f"lag k, steps of {dt} s")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def _draw_curve(axis: Any, flow: dict[str, Any], colour: str, label: str) -> None:
    curves = np.array(flow["curve"], float)
    curves = np.where(curves > 0, curves, np.nan)
    typical = np.exp(np.log(curves).mean(axis=0))
    label = f"{label}, β {np.mean(flow['beta']):.2f}"
    axis.plot(typical, color=colour, label=label)
    axis.fill_between(
        range(len(typical)), curves.min(axis=0), curves.max(axis=0),
        color=colour, alpha=0.15, linewidth=0,
    )  # fmt: skip
