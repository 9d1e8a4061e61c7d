"""Tables and the picture of the study `atlas`, from the rows of its results."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from experiments import report
from experiments.networks.cells import LABELS
from experiments.online._atlas_conclusions import Row, sentence, verdict
from experiments.online._atlas_rules import LEFT_OUT, OWN, RECURRENT, STATIC
from experiments.online._atlas_statistics import capped, interval, Verdict

CELLS = LABELS | {"linear": "own linear network", "layers": "feed-forward network"}
TITLES = {
    "copy": "copy",
    "adding": "adding",
    "mackey_glass": "Mackey–Glass",
    "breathing": "breathing",
    "spoken_digits": "spoken digits",
    "influence": "influence balancing",
    "yin_yang": "Yin-Yang",
}
CAPTION = (
    "Regret of each rule: (test loss − best loss) / (trivial predictor's loss − best "
    "loss), where 0 is the best rule of a task and a cell. Hatched: not different from "
    "the best rule in a paired test with Holm's correction. ×: left out, because the "
    "rule does not support the cell or equals another rule there. Empty: not run. No "
    "colour: no rule is better than the trivial predictor."
)
COLOURS = LinearSegmentedColormap.from_list(
    "regret", ["#ffffff", report.shade("#d55e00", 0.45), "#d55e00", "#7a3500"]
)
EQUAL = "#0072b2"


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Return {(task, cell): {rule: row}}."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["task"], row["cell"]), {})[row["rule"]] = row
    return found


def show(rows: Sequence[Row]) -> None:
    """Print a table of losses, regrets and gradients for each task and cell."""
    header = ["rule", "test loss", "95 %", "regret", "p", "rate", "cosine"]
    header += ["bias", "spread", "µs a step", "bytes"]
    for (task, cell), rules in groups(rows).items():
        found = verdict(rules)
        lines = [_cells(rule, row, found) for rule, row in rules.items()]
        trivial = next(iter(rules.values()))["trivial"]
        report.show_table(
            f"{TITLES[task]}, {CELLS[cell]}: lower losses are better",
            header, lines,
            f"Trivial predictor: {trivial:.3g}. p: paired test against {found.best}, "
            "corrected by Holm's method. Cosine: before, during and after training.",
        )  # fmt: skip
        said = sentence(dict(rules)).replace("`", "")  # names are code in Markdown
        report.conclude(said, about=f"{TITLES[task]}, {CELLS[cell]}")


def _cells(rule: str, row: Row, found: Verdict) -> list[str]:
    low, mean, high = interval(capped(row["test"], row["trivial"]).tolist())
    p = found.p_values.get(rule)
    return [
        rule,
        f"{mean:.3g}",
        f"{low:.3g} … {high:.3g}",
        f"{found.regrets[rule]:.2f}",
        "" if p is None else f"{p:.2g}",
        f"{row['rate']:g}",
        " ".join(f"{middle(each):.2f}" for each in row["cosine"]),
        f"{middle(row['bias']):.2g}",
        f"{middle(row['spread']):.2g}",
        f"{row['microseconds']:.1f}",
        f"{row['temp_bytes']:.0f}",
    ]


def middle(values: Sequence[float | None]) -> float:
    """Return the median of the finite values; NaN if there are none."""
    finite = [value for value in values if value is not None]
    return statistics.median(finite) if finite else float("nan")


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the regrets: a panel for each cell, and one for each task with its own."""
    found = groups(rows)
    panels: list[tuple[str, list[tuple[str, str]], tuple[str, ...]]] = []
    for cell in dict.fromkeys(cell for _, cell in found if cell in LABELS):
        pairs = [(task, cell) for task in TITLES if task not in OWN]
        panels.append((CELLS[cell], pairs, RECURRENT))
    for task, cell in OWN.items():
        if (task, cell) in found:
            rules = STATIC if task == "yin_yang" else RECURRENT
            panels.append((TITLES[task], [(task, cell)], rules))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = report.panels(lines, columns, width=3.3, height=4.1)
    for axis, (title, pairs, rules) in zip(axes.flat, panels, strict=False):
        _panel(axis, title, pairs, rules, found)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    near = Patch(facecolor="white", edgecolor=EQUAL, hatch="///")
    names = {f"regret {value:g}": COLOURS(value) for value in (0.1, 0.5, 1.0)}
    shown = [Patch(facecolor=each, edgecolor="#888888") for each in names.values()]
    figure.legend(
        [near, *shown], ["not different from the best", *names],
        loc="outside lower center", ncols=4 if columns > 1 else 1, frameon=False,
        fontsize=9,
    )  # fmt: skip
    return figure


def _panel(
    axis: Axes, title: str, pairs: list[tuple[str, str]], rules: tuple[str, ...],
    found: dict[tuple[str, str], dict[str, Row]],
) -> None:  # fmt: skip
    """Draw one panel: a row for each rule, a column for each task."""
    axis.set_title(title)
    axis.grid(False)
    axis.set_xlim(0, len(pairs))
    axis.set_ylim(len(rules), 0)
    single = len(pairs) == 1
    labels = [""] if single else [TITLES[task] for task, _ in pairs]
    axis.set_xticks([i + 0.5 for i in range(len(pairs))], labels, fontsize=8)
    if not single:
        for text in axis.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")
    names = [rule.replace("forward_gradient", "forward_grad.") for rule in rules]
    axis.set_yticks([i + 0.5 for i in range(len(rules))], names, fontsize=8)
    axis.tick_params(length=0)
    for column, pair in enumerate(pairs):
        judged = verdict(found[pair]) if pair in found else None
        for line, rule in enumerate(rules):
            if (rule, pair[1]) in LEFT_OUT:
                _write(axis, column, line, "×", "#888888")
            elif judged is not None and rule in judged.regrets:
                _square(axis, column, line, rule, judged)


def _square(axis: Axes, column: int, line: int, rule: str, judged: Verdict) -> None:
    """Draw the regret of a rule as a coloured, perhaps hatched, square."""
    value = judged.regrets[rule]
    equal = rule == judged.best or rule in judged.equal
    if not judged.learned:
        _write(axis, column, line, f"{value:.2f}", "#888888")
        return
    axis.add_patch(Rectangle((column, line), 1, 1, facecolor=COLOURS(value), lw=0))
    if equal:
        axis.add_patch(
            Rectangle(
                (column, line), 1, 1, fill=False, edgecolor=EQUAL, hatch="///",
                lw=0, alpha=0.45,
            )
        )  # fmt: skip
    weight = "bold" if rule == judged.best else "normal"
    _write(
        axis,
        column,
        line,
        f"{value:.2f}",
        "white" if value > 0.7 else "#222222",
        weight,
    )


def _write(
    axis: Axes, column: int, line: int, text: str, colour: str, weight: str = "normal"
) -> None:
    axis.text(
        column + 0.5, line + 0.5, text, ha="center", va="center", fontsize=7.5,
        color=colour, weight=weight,
    )  # fmt: skip


def describe(rows: Sequence[Row]) -> str:
    """Say in words what the picture shows."""
    said = []
    for (task, cell), rules in groups(rows).items():
        found = verdict(rules)
        best = report.listed([found.best, *found.equal])
        said.append(f"{TITLES[task]}, {CELLS[cell]}: {best}")
    return (
        "Squares coloured by regret, a row for each rule. Best or not different from "
        f"the best: {'; '.join(said)}."
    )
