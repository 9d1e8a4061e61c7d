"""Tables and picture of `agents`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

# Mean and standard deviation of 3 seeds, 200,000 steps, measured by a third party.
ELSEWHERE = (
    "Measured elsewhere on MemoryChain-8, 200,000 steps, 3 seeds: gated cells .94 "
    "(.03) and .88 (.04), a continuous-time network .26 (.40), no memory −.01 (.02)."
)


def title(world: str) -> str:
    """Return the name of an environment in tables and pictures."""
    kind, _, length = world.partition("_")
    if kind == "chain":
        return f"MemoryChain-{length}"
    return {"cartpole": "cart and pole, no velocities", "pendulum": "pendulum"}[world]


HEADER = [
    "", "rule", "λ", "τ", "return", "95 %", "worst", "learnt", "rarer", "critic",
]  # fmt: skip
LEARNED = 0.9  # an agent with this mean return has learnt MemoryChain


def learned(row: dict[str, Any]) -> str:
    """Return how many agents have learnt a chain, with the interval of their share."""
    if not row["world"].startswith("chain"):
        return "–"
    found = sum(score >= LEARNED for score in row["score"])
    low, high = report.wilson(found, len(row["score"]))
    return f"{found} of {len(row['score'])} ({low:.2f}–{high:.2f})"


def _rarest(row: dict[str, Any]) -> str:
    if not row["world"].startswith("chain"):
        return "–"
    return f"{row['rarest'][int(np.argmin(row['score']))]:.3f}"


# Least and greatest return of an episode.
RANGES = {"chain": (-1, 1), "cartpole": (0, 500), "pendulum": (-float("inf"), 0)}


def between(world: str, values: list[float]) -> str:
    """Return the 95 % confidence interval of a mean over agents.

    Returns that are impossible do not belong to the interval.
    """
    least, greatest = _range(world)
    found = report.interval(values)
    return f"{max(found.low, least):.3g} to {min(found.high, greatest):.3g}"


def _range(world: str) -> tuple[float, float]:
    return RANGES[world.partition("_")[0]]


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say which rules have the highest returns, and which do better than a guess."""
    for world in dict.fromkeys(row["world"] for row in rows):
        scores = {row["rule"]: row["score"] for row in rows if row["world"] == world}
        said = report.verdict(
            "return", scores, higher_is_better=True, limits=_range(world)
        )
        if world.startswith("chain"):
            guess = report.against("a guess", 0, scores, higher_is_better=True)
            said = f"{said} {guess}".strip()
        report.conclude(f"{title(world)}. {said}")


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print the returns of all agents, and how many steps they take in a second."""
    lines = [
        [
            title(row["world"]),
            row["rule"],
            f"{row['decay']:g}",
            f"{row['entropy']:g}",
            report.mean_sd(row["score"]),
            between(row["world"], row["score"]),
            f"{min(row['score']):.3g}",
            learned(row),
            _rarest(row),
            f"{np.mean(row['explained']):.2f}",
        ]
        for row in rows
        if "world" in row
    ]
    if lines:
        report.show_table(
            f"Return of an episode after {report.number(config.steps)} steps",
            HEADER,
            lines,
            "Mean return of the episodes that end in the last 10 % of the steps, while "
            "the agent explores and learns; mean ± standard deviation, 95 % interval "
            "of the mean (without impossible returns), and worst of "
            f"{config.seeds} agents. Learnt: agents with a return of at least "
            f"{LEARNED}, and Wilson's 95 % interval of their share. "
            "MemoryChain: at most 1, a guess earns 0. Cart and pole: at most 500. "
            "Pendulum: at most 0; about −400 if it hangs. λ, τ: decay of the traces "
            "and factor of the entropy, chosen with other agents. "
            "Rarer: how often the rarer of the two answers is given, in the agent with "
            "the worst return. "
            "Critic: share of the variance of discounted returns that v explains. "
            + ELSEWHERE,
        )
        _conclude([row for row in rows if "world" in row])
    speeds = [
        [
            row["speed_of"],
            str(row["lanes"]),
            f"{1e6 / row['microseconds']:,.0f}",
            f"{1e6 * row['lanes'] / row['microseconds']:,.0f}",
        ]
        for row in rows
        if "speed_of" in row
    ]
    if speeds:
        report.show_table(
            "Speed on MemoryChain-8",
            ["rule", "agents", "steps/s of each", "steps/s together"],
            speeds,
            "Without compilation. For one core, run the study by `taskset -c 0`.",
        )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the mean return against steps, a panel for each environment."""
    rows = [row for row in rows if "world" in row]
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    columns = min(len(worlds), 3)
    lines = -(-len(worlds) // columns)
    figure, axes = report.panels(lines, columns, width=4.4, height=3.0)
    styles = report.rule_styles(dict.fromkeys(row["rule"] for row in rows))
    for axis, world in zip(axes.flat, worlds, strict=False):
        for row in (row for row in rows if row["world"] == world):
            curves = np.array(row["curve"], float)
            steps = row["steps"] * (1 + np.arange(curves.shape[1])) / curves.shape[1]
            style = styles[row["rule"]]
            axis.plot(steps, curves.mean(axis=0), label=row["rule"], **style)
            axis.fill_between(
                steps, curves.min(axis=0), curves.max(axis=0),
                color=style["color"], alpha=0.15, lw=0,
            )  # fmt: skip
        if world.startswith("chain"):
            axis.set_ylim(-0.55, 1.05)
        axis.set(title=title(world), xlabel="steps", ylabel="return")
    for axis in axes.flat[len(worlds) :]:
        axis.set_visible(False)
    report.legend_below(figure)
    return figure
