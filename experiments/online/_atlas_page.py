"""The page that is derived from the committed table of the study `atlas`.

Every sentence of the page about results is computed from the table, so the page says
that rules differ only where the paired tests say so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import report
from experiments.online._atlas_conclusions import Row, sentence, verdict
from experiments.online._atlas_report import CELLS, groups, middle, TITLES
from experiments.online._atlas_rules import (
    CELLS as CHOSEN,
    combinations,
    label,
    LEFT_OUT,
    OWN,
    RECURRENT,
    RULES,
    STATIC,
    TASKS,
)
from experiments.online._atlas_table import Table
from experiments.online._atlas_words import (
    BEST,
    CONTROL,
    GRADIENTS,
    INTRODUCTION,
    PICTURE,
    REMARKS,
    SUMMARY,
    TRIVIAL,
)


def page(table: Table) -> str:
    """Return the page in Markdown."""
    found = groups(table["rows"])
    parts = [
        INTRODUCTION.format(**_counts(table, found)),
        _summary(found, table["sizes"]),
        _control(found),
        "## Best rules of each task and cell\n\n" + BEST.format(**table["sizes"]),
        *(_task(task, found) for task in TITLES if any(task == t for t, _ in found)),
        _gradients(table["rows"]),
        _missing(found),
    ]
    return "\n\n".join(parts) + "\n"


def _counts(table: Table, found: Mapping) -> dict[str, Any]:
    sizes, versions = table["sizes"], table["versions"]
    every = combinations(TASKS, CHOSEN, RULES)
    return sizes | versions | {
        "picture": PICTURE,
        "done": len(table["rows"]),
        "all": len(every),
        "pairs": len(found),
        "each_rate": report.listed([f"{rate:g}" for rate in sizes["rates"]]),
    }  # fmt: skip


def _summary(
    found: Mapping[tuple[str, str], Mapping[str, Row]], sizes: Mapping[str, Any]
) -> str:
    """Return a table with a line for each rule, over all tasks with recurrent cells."""
    pairs = [pair for pair in found if pair[0] not in OWN]
    judged = {pair: verdict(dict(found[pair])) for pair in pairs}
    learned = [pair for pair in pairs if judged[pair].learned]
    lines = [
        "| rule | best, or not different | median regret | time | memory |",
        "|---|---|---|---|---|",
    ]
    shares: dict[str, float] = {}
    for rule in RECURRENT:
        mine = [pair for pair in learned if rule in found[pair]]
        if not mine:
            continue
        good = [p for p in mine if rule in (judged[p].best, *judged[p].equal)]
        shares[rule] = len(good) / len(mine)
        regret = middle([judged[pair].regrets[rule] for pair in mine])
        lines.append(
            f"| `{label(rule)}` | {len(good)} of {len(mine)} | {regret:.2f} | "
            f"{_times(found, mine, rule, 'microseconds')} | "
            f"{_times(found, mine, rule, 'temp_bytes')} |"
        )
    lanes = max(len(sizes["rates"]) * sizes["trials"], sizes["seeds"])
    text = SUMMARY.format(learned=len(learned), pairs=len(pairs), lanes=lanes)
    return f"{text}\n\n" + "\n".join(lines) + f"\n\n{_often(shares)}"


def _control(found: Mapping[tuple[str, str], Mapping[str, Row]]) -> str:
    """Say how much bptt and rtrl differ, although their gradients are equal."""
    apart, separated = {}, 0
    for (task, cell), rules in found.items():
        if not {"bptt", "rtrl"} <= set(rules):
            continue
        judged = verdict(dict(rules))
        regrets = [judged.regrets[rule] for rule in ("bptt", "rtrl")]
        good = (judged.best, *judged.equal)
        apart[f"{TITLES[task]}, {CELLS[cell]}"] = abs(regrets[0] - regrets[1])
        separated += ("bptt" in good) != ("rtrl" in good)
    if not apart:
        return "`bptt` and `rtrl` were not both run, so noise cannot be checked."
    most = max(apart, key=lambda name: apart[name])
    return CONTROL.format(
        pairs=len(apart), separated=separated, largest=apart[most], where=most,
        median=middle([*apart.values()]),
    )  # fmt: skip


def _often(shares: Mapping[str, float]) -> str:
    """Say which rules are most often and least often not different from the best."""
    if not shares:
        return "No rule has learned a task."
    ends = max(shares.values()), min(shares.values())
    names = [
        report.listed([f"`{label(rule)}`" for rule in shares if shares[rule] == end])
        for end in ends
    ]
    if ends[0] == ends[1]:
        return f"All rules are equally often not different from the best: {names[0]}."
    return (
        f"Most often best, or not different from the best ({100 * ends[0]:.0f} % of "
        f"pairs): {names[0]}. Least often ({100 * ends[1]:.0f} %): {names[1]}."
    )


def _times(found: Mapping, pairs: Sequence[tuple[str, str]], rule: str, of: str) -> str:
    """Return the median ratio of a cost to that of bptt, in words."""
    ratios = [
        found[pair][rule][of] / found[pair]["bptt"][of]
        for pair in pairs
        if "bptt" in found[pair]
    ]
    return f"{middle(ratios):.2g} ×" if ratios else ""


def _task(task: str, found: Mapping[tuple[str, str], Mapping[str, Row]]) -> str:
    """Return the section of a task: a sentence for each cell."""
    said = []
    for (name, cell), rules in found.items():
        if name == task:
            said.append(f"- **{CELLS[cell]}.** {sentence(dict(rules))}")
    trivial = next(iter(next(r for (t, _), r in found.items() if t == task).values()))
    head = (
        f"### {TITLES[task]}\n\nThe trivial predictor, {TRIVIAL[task]}, has the loss "
    )
    tail = f"{trivial['trivial']:.3g}.{REMARKS.get(task, '')}"
    return f"{head}{tail}\n\n" + "\n".join(said)


def _gradients(rows: Sequence[Row]) -> str:
    """Return a table of cosines, bias and spread of each rule: medians over pairs."""
    lines = [
        "| rule | cosine before | during | after | bias | standard error | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in (*RECURRENT, *STATIC):
        mine = [row for row in rows if row["rule"] == rule]
        if not mine:
            continue
        cosines = [middle([middle(row["cosine"][i]) for row in mine]) for i in range(3)]
        others = [
            middle([middle(row[name]) for row in mine])
            for name in ("bias", "bias_error", "spread")
        ]
        cells = [f"{c:.2f}" for c in cosines] + [f"{each:.2g}" for each in others]
        lines.append(f"| `{label(rule)}` | {' | '.join(cells)} |")
    return GRADIENTS + "\n\n" + "\n".join(lines)


def _missing(found: Mapping[tuple[str, str], Mapping[str, Row]]) -> str:
    """List what the rules do not support, and what was not run."""
    lines = [
        f"- `{rule}` with {CELLS[cell]}: {reason}."
        for (rule, cell), reason in LEFT_OUT.items()
    ]
    absent: dict[str, list[str]] = {}
    for task, cell, rule in combinations(TASKS, CHOSEN, RULES):
        if rule not in found.get((task, cell), {}):
            absent.setdefault(f"{TITLES[task]}, {CELLS[cell]}", []).append(rule)
    text = "## What was left out\n\n" + "\n".join(lines)
    if not absent:
        return f"{text}\n\nAll other combinations were run."
    whole = {f"{TITLES[task]}, {CELLS[cell]}" for task, cell in found}
    listed = [
        f"- {pair}: {', '.join(rules) if pair in whole else 'all rules'}."
        for pair, rules in absent.items()
    ]
    return f"{text}\n\nNot run yet:\n\n" + "\n".join(listed)
