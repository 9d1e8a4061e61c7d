"""Tables and pictures of `control`: scores, learning curves and gradient flow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.control.systems import SYSTEMS

GOALS = {
    "pendulum": "at least 95 % upright",
    "cartpole": "at least 90 % upright, in place",
    "arm": "at most 2 cm from its goal on average",
}


def show(name: str, rows: Sequence[dict[str, Any]], config: Any) -> None:
    """Print the table of one system.

    Args:
      name: name of the system.
      rows: lines of results.jsonl about this system.
      config: settings of the study.
    """
    system, first, seeds = SYSTEMS[name], rows[0], config.seeds
    header = ["", "success", *(f"mean {kind}" for kind, _ in system.tolerances)]
    header += ["cost", "/ iLQR", "/ LQR", "ms/update"]
    none, cost = len(system.tolerances) * ["–"], first["untrained_cost"]
    untrained = [report.mean_sd(error) for error in first["untrained_error"]]
    baselines = {
        "no action": ("idle", none, first["idle_cost"][:1]),
        "untrained": ("untrained", untrained, cost),
    }
    lines = [
        [name, f"{np.mean(first[key]):.1f} %", *errors, report.mean_sd(costs), *3 * "–"]
        for name, (key, errors, costs) in baselines.items()
    ]
    for row in rows:
        measures = *row["error"], row["cost"], row["to_ilqr"], row["to_lqr"]
        line = [f"{row['rule']}, {row['steps']}", report.percent(*row["succeeded"])]
        line += [report.mean_sd(values) for values in measures]
        lines.append([*line, f"{row['ms_per_step']:.1f}"])
    allowed = ", ".join(f"{kind} ≤ {most}" for kind, most in system.tolerances)
    report.show_table(
        f"{name}: {GOALS[name]}",
        header,
        lines,
        f"Rows: rule, number of updates. Tests: {config.judged} random starts, "
        f"{system.judged * system.dt:.0f} s each. Success (higher is better), with "
        f"Wilson's interval over all {seeds} seeds: {allowed} throughout the last "
        "second. Errors (lower is better) are means over the last second. Cost (lower "
        f"is better): mean of a step.\n/ iLQR: cost of {config.compared} episodes "
        "relative to iLQR's. / LQR: cost from as many starts near the goal relative to "
        "the best linear policy's.\nMean ± standard deviation over seeds; ms: time of "
        "an update, all seeds together.",
    )
    _conclude(name, rows)


def _conclude(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Say which rule has the lowest cost, and which ones beat no training and iLQR."""
    names = [f"{row['rule']}, {row['steps']} updates" for row in rows]
    costs = {each: row["cost"] for each, row in zip(names, rows, strict=True)}
    untrained = {
        each: row["untrained_cost"] for each, row in zip(names, rows, strict=True)
    }
    shares = {each: row["to_ilqr"] for each, row in zip(names, rows, strict=True)}
    sign: Any = {"higher_is_better": False}
    said = [
        report.verdict("cost", costs, **sign),
        report.against("the cost of the untrained policy", untrained, costs, **sign),
        report.against("iLQR, whose costs are the unit", 1, shares, **sign),
    ]
    report.conclude(" ".join(filter(None, said)), about=name)


def draw_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw cost and success rate against the number of updates, for each system."""
    names = list(dict.fromkeys(row["system"] for row in rows))
    figure, axes = report.panels(2, len(names), width=5.2, height=3.3, sharex="col")
    for (above, below), name in zip(axes.T, names, strict=True):
        for row in (row for row in rows if row["system"] == name):
            steps = [line["step"] for line in row["curve"]]
            style = report.rule_style(row["rule"])
            for axis, measure in ((above, "cost"), (below, "success")):
                values = np.array([line[measure] for line in row["curve"]])
                axis.plot(steps, values, linewidth=0.6, alpha=0.5, **style)
                axis.plot(steps, values.mean(axis=1), label=row["rule"], **style)
        idle = rows[[row["system"] for row in rows].index(name)]["idle_cost"][0]
        above.axhline(idle, color="#888888", linestyle=":", label="no action")
        above.set(title=name, ylabel="cost of a step")
        below.set(xlabel="updates", ylabel="success, %", ylim=(-3, 103))
        report.log_ticks(above)
    report.label_ends(*axes.flat)
    return figure


def draw_flow(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the norm of the gradient of a step's cost in an earlier state.

    The horizontal axis is the lag: the number of steps from that state to the cost.
    """
    names = list(dict.fromkeys(row["system"] for row in rows))
    figure, axes = report.panels(1, len(names), width=5.6, height=4)
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row["system"] == name]
        untrained = {"color": "#888888", "linestyle": "-"}
        _draw_curve(axis, mine[0]["flow"][0], untrained, "untrained")
        for row in mine:
            _draw_curve(
                axis, row["flow"][1], report.rule_style(row["rule"]), row["rule"]
            )
        axis.set(title=name, ylabel="size of the gradient, ‖∂ℓₛ/∂sₛ₋ₖ‖")
        axis.set_xlabel(f"lag k, steps of {SYSTEMS[name].dt} s")
        report.log_ticks(axis)
    report.label_ends(*axes[0])
    return figure


def _draw_curve(
    axis: Any, flow: dict[str, Any], style: dict[str, Any], label: str
) -> None:
    curves = np.array(flow["curve"], float)
    curves = np.where(curves > 0, curves, np.nan)
    typical = np.exp(np.log(curves).mean(axis=0))
    label = f"{label}, β {np.mean(flow['beta']):.2f}"
    axis.plot(typical, label=label, **style)
    axis.fill_between(
        range(len(typical)), curves.min(axis=0), curves.max(axis=0),
        color=style["color"], alpha=0.13, linewidth=0,
    )  # fmt: skip
