"""Tables and pictures of `online_learning`, and the published results."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.online._dynamical_systems import SYSTEMS

# Published results are from the repository of a paper that was under review in 2026.
# The network has n = 64 tanh units, with initial weights from U(±1/√n). The network was
# trained by Adam at 1e-3 on 8 streams for 15,000 steps, with 10 seeds (truncated BPTT:
# 5 seeds). The state was reset every 200 steps.
PUBLISHED = {  # mean (standard deviation) of the NMSE on Hénon, Mackey–Glass and Lorenz
    "rtrl": (".0052 (.0010)", ".0180 (.0218)", ".0051 (.0040)"),
    "snap_1": (".0052 (.0012)", ".0050 (.0010)", ".0024 (.0008)"),
    "kf_rtrl": (".0384 (.0709)", ".0286 (.0181)", ".0126 (.0079)"),
    "rflo_random": (".0704 (.0163)", ".0572 (.0331)", ".0442 (.0124)"),
    "uoro": (".6583 (.2966)", ".0497 (.0238)", ".0425 (.0431)"),
    "sketched_rtrl": (".0059 (.0007)", ".0065 (.0053)", ".0038 (.0021)"),
    "truncated_bptt, lookback 25, every 25": (
        ".0311 (.0030)",
        ".0080 (.0010)",
        ".0054 (.0007)",
    ),
}
COSINES = {
    "rtrl": 1.0,
    "snap_1": 0.505,
    "kf_rtrl": 0.512,
    "rflo_random": 0.288,
    "uoro": 0.056,
    "sketched_rtrl": 0.927,
}


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print our and published prediction errors, and cosines to exact RTRL.

    The cosine is between the gradient of a rule and the gradient of exact RTRL.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    header = [""]
    for system in systems:
        header += [SYSTEMS[system].title, "published"]
    lines = []
    for rule in rules:
        line = [rule]
        for system in systems:
            published = PUBLISHED.get(rule, ("", "", ""))
            known = published[list(SYSTEMS).index(system)]
            line += [_errors(_find(rows, rule, system)), known]
        lines.append(line)
    report.show_table(
        f"NMSE after {config.steps} steps, n = {config.units}",
        header,
        lines,
        "NMSE: squared error of one-step predictions during learning, in units of the "
        "variance, lower is better. NMSE is the mean of the last five episodes of "
        f"{config.episode} steps, ± standard deviation of {config.seeds} seeds. "
        "Published: n = 64 after 15,000 steps, mean (standard deviation) of 10 seeds "
        "(truncated_bptt: 5 seeds). Lookback 25, every 10: gradients go back 25 steps, "
        "and the parameters are updated every 10 steps.",
    )
    for system in systems:
        scores = {row["rule"]: row["nmse"] for row in rows if row["system"] == system}
        said = report.verdict("NMSE", scores, higher_is_better=False)
        report.conclude(f"{SYSTEMS[system].title}. {said}")
    found = cosines(rows)
    report.show_table(
        "Cosine to exact RTRL, and time",
        ["", *(SYSTEMS[system].title for system in systems), "all", "published", "ms"],
        [_cosine_line(rows, rule, systems, found) for rule in rules],
        "Cosine between the gradients of a rule and of exact RTRL, in the parameters "
        "that affect the carry, higher is better. The cosine is averaged over the "
        "second half of each measured episode, then over seeds and systems. Rules from "
        f"the highest to the lowest cosine: {_order(found)}. In the published results: "
        f"{_order({name: COSINES[name] for name in found if name in COSINES})}. "
        "ms: time of one step of all seeds together, without the comparison to RTRL.",
    )


def cosines(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean cosine between each rule's gradient and exact RTRL's gradient.

    The cosines are averaged first over the episodes of all seeds, then over the
    systems.
    """
    found = {}
    for rule in dict.fromkeys(row["rule"] for row in rows):
        mine = [row["cosines"] for row in rows if row["rule"] == rule]
        means = [np.mean(one) for one in mine if one is not None]
        if means:
            found[rule] = float(np.mean(means))
    return found


def _find(rows: list[dict[str, Any]], rule: str, system: str) -> dict[str, Any] | None:
    mine = [row for row in rows if (row["rule"], row["system"]) == (rule, system)]
    return mine[0] if mine else None


def _errors(row: dict[str, Any] | None) -> str:
    if row is None:
        return "—"
    return report.mean_sd(row["nmse"])


def _cosine_line(rows, rule, systems, found) -> list[str]:
    mine = [_find(rows, rule, system) for system in systems]
    line = [
        f"{np.mean(row['cosines']):.3f}" if row and row["cosines"] else "—"
        for row in mine
    ]
    line.append(f"{found[rule]:.3f}" if rule in found else "—")
    line.append(f"{COSINES[rule]:.3f}" if rule in COSINES else "—")
    times = [row["ms_per_step"] for row in mine if row and row["ms_per_step"]]
    return [rule, *line, f"{np.median(times):.2f}" if times else "?"]


def _order(found: dict[str, float]) -> str:
    return ", ".join(sorted(found, key=lambda name: -found[name]))


def draw_errors(rows: list[dict[str, Any]]) -> Figure:
    """Draw the NMSE (prediction error) of each episode against time steps.

    There is one panel for each system. A thin line is a seed, and a thick line is the
    geometric mean over seeds.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    styles = report.rule_styles(rules)
    figure, axes = report.panels(1, len(systems), width=5.4, height=4.2)
    for axis, system in zip(axes[0], systems, strict=True):
        for rule in rules:
            row = _find(rows, rule, system)
            if row is None:
                continue
            style = styles[rule]
            for run in row["curve"]:
                axis.plot(row["curve_steps"], run, lw=0.5, alpha=0.35, **style)
            mean = np.exp(np.mean(np.log(row["curve"]), axis=0))
            axis.plot(row["curve_steps"], mean, lw=1.8, label=rule, **style)
        axis.set(title=SYSTEMS[system].title, xlabel="time steps")
        report.log_ticks(axis)
    axes[0, 0].set_ylabel("NMSE of an episode (thin: seeds)")
    report.label_ends(*axes[0])
    return figure


def draw_cosines(rows: list[dict[str, Any]]) -> Figure:
    """Draw the cosine between each rule's gradient and exact RTRL's gradient.

    The left panel shows the mean cosine for each system. The right panel shows how the
    cosine changes during training.
    """
    found = cosines(rows)
    rules = sorted(found, key=lambda name: -found[name])
    height = 1.8 + 0.4 * len(rules)
    figure, axes = report.panels(1, 2, width=5.8, height=height)
    left, right = axes[0]
    for rule in rules:
        colour = report.rule_style(rule)["color"]
        left.barh(rule, found[rule], color=report.shade(colour, 0.45))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    for system, marker in zip(systems, "ov^", strict=False):
        values = [
            np.mean(row["cosines"]) if row and row["cosines"] else np.nan
            for row in (_find(rows, rule, system) for rule in rules)
        ]
        style = {"color": "#444444", "linestyle": "", "ms": 5}
        left.plot(values, rules, marker=marker, label=SYSTEMS[system].title, **style)
    published = [COSINES.get(rule, np.nan) for rule in rules]
    left.plot(published, rules, "k|", ms=18, mew=2, label="published mean")
    left.invert_yaxis()
    left.axvline(0, color="black", linewidth=0.8)
    left.set(xlabel="cosine to the gradient of exact RTRL (bar: mean)")
    left.grid(visible=False, axis="y")
    for rule in (rule for rule in rules if rule != "rtrl"):
        mine = [row for row in rows if row["rule"] == rule and row["cosines"]]
        count = min(len(row["cosine_steps"]) for row in mine)
        runs = np.concatenate([np.array(row["cosines"])[:, :count] for row in mine])
        mean, deviation = runs.mean(axis=0), runs.std(axis=0)
        steps = mine[0]["cosine_steps"][:count]
        style = report.rule_style(rule)
        right.plot(steps, mean, marker="o", ms=3, label=rule, **style)
        right.fill_between(
            steps, mean - deviation, mean + deviation, alpha=0.15, lw=0,
            color=style["color"],
        )  # fmt: skip
    right.set(xlabel="time steps", ylabel="cosine, mean ± sd")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=4, fontsize=8, frameon=False
    )
    if right.lines:
        report.label_ends(right)
    return figure
