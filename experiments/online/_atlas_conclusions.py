"""Sentences of the study `atlas` on the best rules of a task and a cell."""

from typing import Any, TypeAlias

from experiments import report
from experiments.online._atlas_rules import label
from experiments.online._atlas_statistics import capped, compare, interval, Verdict

Row: TypeAlias = dict[str, Any]


def verdict(rules: dict[str, Row]) -> Verdict:
    """Compare all rules of a task and a cell."""
    trivial = next(iter(rules.values()))["trivial"]
    return compare({rule: row["test"] for rule, row in rules.items()}, trivial)


def sentence(rules: dict[str, Row]) -> str:
    """Say which rules are best for a task and a cell, and which of them is cheapest."""
    if len(rules) < 2:
        return "Only one rule was run, so nothing is compared."
    found = verdict(rules)
    ends = lambda rule: interval(
        capped(rules[rule]["test"], rules[rule]["trivial"]).tolist()
    )
    if not found.learned:
        return (
            "No rule has a loss below that of the trivial predictor "
            f"(lowest: {found.best}, {_loss(ends(found.best))})."
        )
    lowest = f"`{label(found.best)}` ({_loss(ends(found.best))})"
    if len(found.equal) == len(rules) - 1:
        text = f"No difference between the {len(rules)} rules that were run"
        text += f"; the lowest loss is that of {lowest}"
    elif found.equal:
        names = report.listed([f"`{label(rule)}`" for rule in found.equal])
        text = f"Lowest loss: {lowest}; no difference from {names}"
    else:
        text = f"Lowest loss: {lowest}, lower than all others"
    worse = [r for r in found.regrets if r not in (found.best, *found.equal)]
    text += "."
    good = [found.best, *found.equal]
    quick = min(good, key=lambda rule: rules[rule]["microseconds"])
    small = min(good, key=lambda rule: rules[rule]["temp_bytes"])
    if len(good) > 1:
        least = f"the least time is that of `{label(quick)}`, the least memory that of "
        text += f" Of these, {least}`{label(small)}`."
    if worse:
        worse.sort(key=lambda rule: found.regrets[rule])
        near, far = worse[0], worse[-1]
        with_regret = lambda rule: f"`{label(rule)}` (regret {found.regrets[rule]:.2f})"
        text += f" Worse: {with_regret(near)}"
        if len(worse) > 1:
            text = text.replace("Worse:", f"Worse: {len(worse)} rules, from")
            text += f" to {with_regret(far)}"
        text += "."
    return text


def _loss(ends: tuple[float, float, float]) -> str:
    low, mean, high = ends
    return f"{mean:.3g}, 95 % interval {low:.3g} to {high:.3g}"
