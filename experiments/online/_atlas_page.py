"""The committed table of the study `atlas`, and the page that is derived from it.

Every sentence of the page about results is computed from the table, so the page says
that rules differ only where the paired tests say so.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import report
from experiments.harness.errors import DataError
from experiments.harness.rows import finished
from experiments.online._atlas_report import CELLS, groups, middle, Row, TITLES, verdict
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
from experiments.online._atlas_statistics import capped, interval
from experiments.online._atlas_words import (
    BEST,
    GRADIENTS,
    INTRODUCTION,
    PICTURE,
    SUMMARY,
)

SIZES = ("units", "batch", "updates", "rates", "trials", "seeds", "draws", "first_seed")
KEPT = (
    "task", "cell", "rule", "rate", "validation", "test", "trivial", "cosine", "bias",
    "bias_error", "spread", "microseconds", "temp_bytes",
)  # fmt: skip
Table = dict[str, Any]


def enter(folders: Sequence[Path], commit: str) -> Table:
    """Return the table of runs; a combination in several of them is that of the last.

    Args:
      folders: folders of runs of the study, which need not be finished.
      commit: the commit with which they were made.

    Raises:
      DataError: if a folder has no run, or runs have different sizes.
    """
    rows: dict[tuple[str, str, str], Row] = {}
    sizes: dict[str, Any] | None = None
    versions: dict[str, str] = {}
    for folder in folders:
        path = folder / "config.json"
        if not path.exists():
            raise DataError(f"{folder} holds no run: there is no {path}.")
        stored = json.loads(path.read_text())
        mine = {name: stored["config"][name] for name in SIZES}
        if sizes not in (None, mine):
            raise DataError(f"{folder} has the sizes {mine}, other runs have {sizes}.")
        sizes, versions = mine, stored["versions"]
        for row in finished(folder):
            rows[row["task"], row["cell"], row["rule"]] = {
                name: rounded(row[name]) for name in KEPT
            }
    order = combinations(TASKS, CHOSEN, RULES)
    return {
        "sizes": sizes,
        "versions": versions | {"commit": commit},
        "rows": [rows[names] for names in order if names in rows],
    }


def rounded(value: Any) -> Any:
    """Round numbers to four digits.

    Example:
      >>> rounded([0.123456, None, "copy"])
      [0.1235, None, 'copy']
    """
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def to_text(table: Table) -> str:
    """Return a table as JSON, one line for each combination."""
    head = {name: table[name] for name in table if name != "rows"}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table["rows"])
    return json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n"


def page(table: Table) -> str:
    """Return the page in Markdown."""
    found = groups(table["rows"])
    parts = [
        INTRODUCTION.format(**_counts(table, found)),
        _summary(found),
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
        "ratio": report.listed([f"{rate:g}" for rate in sizes["rates"]]),
    }  # fmt: skip


def _summary(found: Mapping[tuple[str, str], Mapping[str, Row]]) -> str:
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
    text = SUMMARY.format(learned=len(learned), pairs=len(pairs))
    return f"{text}\n\n" + "\n".join(lines) + f"\n\n{_often(shares)}"


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
    head = f"### {TITLES[task]}\n\nThe trivial predictor has the loss "
    return f"{head}{trivial['trivial']:.3g}.\n\n" + "\n".join(said)


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
    if len(found.equal) == len(rules) - 1:
        text = f"No difference between the {len(rules)} rules that were run"
    elif found.equal:
        names = report.listed([f"`{label(rule)}`" for rule in found.equal])
        text = f"Lowest loss: `{label(found.best)}`; no difference from {names}"
    else:
        text = f"Lowest loss: `{label(found.best)}`, lower than all others"
    worse = [r for r in found.regrets if r not in (found.best, *found.equal)]
    text += f" (loss {_loss(ends(found.best))})."
    good = [found.best, *found.equal]
    quick = min(good, key=lambda rule: rules[rule]["microseconds"])
    small = min(good, key=lambda rule: rules[rule]["temp_bytes"])
    if len(good) > 1:
        text += f" Of these, the least time is that of `{label(quick)}`"
        text += f", the least memory that of `{label(small)}`."
    if worse:
        near = min(worse, key=lambda rule: found.regrets[rule])
        far = max(worse, key=lambda rule: found.regrets[rule])
        text += f" Worse: {len(worse)}, with regrets from {found.regrets[near]:.2f}"
        text += f" (`{label(near)}`) to {found.regrets[far]:.2f} (`{label(far)}`)."
    return text


def _loss(ends: tuple[float, float, float]) -> str:
    low, mean, high = ends
    return f"{mean:.3g}, 95 % interval {low:.3g} to {high:.3g}"


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
