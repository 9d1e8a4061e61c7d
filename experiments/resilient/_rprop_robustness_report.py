"""Tables and picture of `rprop_robustness`: test errors under each difficulty.

The difficulties are gradient noise, badly scaled inputs and redundant inputs.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report

TITLES = {
    "noise": "noise of gradients, σ",
    "scales": "scales of inputs, 10⁻ˢ … 10ˢ",
    "copies": "copies of each input",
}
RESILIENT = "rprop"
FALLING = (
    "Rates of updates outside the Rprop family fall to 0 along a cosine, which "
    "averages noise away; --constant keeps them constant."
)


def show(rows: list[dict[str, Any]], config: Any) -> None:
    """Print a table for each difficulty, and sentences on which updates are robust."""
    for axis in dict.fromkeys(row["axis"] for row in rows):
        mine = [row for row in rows if row["axis"] == axis]
        levels = list(dict.fromkeys(row["level"] for row in mine))
        lines = []
        for update in dict.fromkeys(row["update"] for row in mine):
            for choice in ("kept", "tuned"):
                cells = [_cell(row, choice) for row in mine if row["update"] == update]
                lines.append([update, choice, *cells])
        report.show_table(
            f"Digits, MLP 64-32-10, {config.steps} updates: {TITLES[axis]}",
            ["", "rate", *(f"{level:g}" for level in levels)],
            lines,
            "Test error in % (lower is better), mean ± standard deviation of seeds, "
            "and the rate.\nKept: the rate with the lowest training loss without "
            "difficulties; tuned: the rate with the lowest training loss under this "
            "difficulty. A diverged training counts as 90 %.\n"
            + ("All rates are constant." if config.constant else FALLING),
        )
    for line in verdicts(rows):
        report.conclude(line)


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Return sentences that compare by how much each difficulty increases test errors.

    Each difficulty is at its hardest level. Rprop counts as more robust than another
    update if the difficulty increases the test error less with the best Rprop than with
    this update. The two increases must differ by more than √(s² + t²), where s and t
    are the standard deviations of the two increases over seeds.
    """
    sentences = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        mine = [row for row in rows if row["axis"] == axis]
        hardest = max(row["level"] for row in mine)
        for choice, said in {"kept": "rates kept", "tuned": "tuned again"}.items():
            costs = {
                update: _cost(mine, update, hardest, choice)
                for update in dict.fromkeys(row["update"] for row in mine)
            }
            resilient = {u: c for u, c in costs.items() if RESILIENT in u}
            others = {u: c for u, c in costs.items() if RESILIENT not in u}
            if not resilient or not others:
                continue
            best = min(resilient, key=lambda update: resilient[update].mean())
            against = ", ".join(
                f"{_comparison(resilient[best], cost)} {update} ({cost.mean():+.1f})"
                for update, cost in others.items()
            )
            sentences.append(
                f"{TITLES[axis]} = {hardest:g}, {said}: {best} loses "
                f"{resilient[best].mean():+.1f} points; {against}."
            )
    return sentences


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw test errors against levels of difficulty, one panel for each difficulty.

    In the lower row, the learning rates are chosen again at each level.
    """
    difficulties = list(dict.fromkeys(row["axis"] for row in rows))
    choices = {"kept": "rates kept", "tuned": "rates chosen again"}
    figure, axes = report.panels(
        len(choices), len(difficulties), width=5, height=3.7, sharey=True
    )
    for (choice, words), line in zip(choices.items(), axes, strict=True):
        for panel, axis in zip(line, difficulties, strict=True):
            mine = [row for row in rows if row["axis"] == axis]
            levels = sorted({row["level"] for row in mine})
            for update in dict.fromkeys(row["update"] for row in mine):
                own = [row for row in mine if row["update"] == update]
                errors = np.array([row[f"{choice}_error"] for row in own])
                style = report.update_style(update)
                panel.plot(errors.mean(axis=1), marker="o", ms=4, label=update, **style)
                low, high = errors.min(axis=1), errors.max(axis=1)
                colour, at = style["color"], range(len(levels))
                panel.fill_between(at, low, high, color=colour, alpha=0.1, lw=0)
            panel.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
            panel.set(xlabel=TITLES[axis], ylabel="test error, %")
            verdict = _short_verdict(rows, axis) if choice == "kept" else ""
            panel.set_title("\n".join(filter(None, [words, verdict])), fontsize=9)
            report.log_ticks(panel)
    report.label_ends(*axes.flat)
    return figure


def _short_verdict(rows: list[dict[str, Any]], axis: str) -> str:
    first = verdicts([row for row in rows if row["axis"] == axis])
    if not first:
        return axis
    found = {said: [] for said in ("less than", "about as", "more than")}
    for part in first[0].removesuffix(".").split("; ")[1].split(", "):
        said = " ".join(part.split()[:2])
        found[said].append(part.split()[2])
    parts = [f"{said} {', '.join(names)}" for said, names in found.items() if names]
    return "At the hardest level, with rates kept, Rprop loses\n" + "; ".join(parts)


def _cost(rows: list[dict[str, Any]], update: str, level: float, choice: str):
    """Return how much a level of difficulty increases the test error of each seed."""
    error = {
        row["level"]: np.array(row[f"{choice}_error"])
        for row in rows
        if row["update"] == update
    }
    return error[level] - error[0]


def _comparison(resilient: np.ndarray, other: np.ndarray) -> str:
    apart = other.mean() - resilient.mean()
    if abs(apart) <= np.hypot(resilient.std(), other.std()):
        return "about as"
    return "less than" if apart > 0 else "more than"


def _cell(row: dict[str, Any], choice: str) -> str:
    return f"{report.mean_sd(row[f'{choice}_error'])} ({row[f'{choice}_rate']:g})"
