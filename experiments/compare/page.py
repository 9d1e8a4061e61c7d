"""What `compare` shows: explanations, tables, pictures, and conclusions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import report
from experiments.compare import diagrams, pictures
from experiments.compare.job import Part, Task
from experiments.compare.tables import grid, label, LEGEND, tabulate

MEANINGS = (
    "“Recurrent” has two meanings: in the literature, recurrent backpropagation is the "
    "method of Almeida and Pineda for networks that settle; in the tutorial “4 Types "
    "of Backpropagation”, it is an update that adds past gradients with a forgetting "
    "factor. Both are here: the first as the rule recurrent_backprop, the second as "
    "the update forgetting."
)
NEXT = (
    "To go on: `python -m experiments chain_rule` shows every factor of the chain rule "
    "for one digit, and `python -m experiments` lists all studies. The notebook "
    "notebooks/01_the_four_kinds.ipynb has each equation beside its code, and "
    "docs/paths.md has a first program for your own network."
)


def show(folder: Path, tasks: Sequence[Task], rows: Sequence[Any]) -> None:
    """Show all tasks that have results, and record them for the page."""
    report.explain(f"<style>{diagrams.STYLE}</style>{diagrams.MARKERS}")
    report.say(
        "A gradient rule says where the gradient comes from, an update what is done "
        "with it; every rule works with every update. " + MEANINGS
    )
    for task in tasks:
        mine = [row for row in rows if row.task == task.name]
        if mine:
            _show_task(folder, task, mine)
    report.say(LEGEND)
    report.say(NEXT)


def _show_task(folder: Path, task: Task, rows: Sequence[Any]) -> None:
    report.heading(task.title, anchor=task.name)
    report.say(task.about)
    if len({row.update.split("(")[0] for row in rows}) > 1:
        cells = grid(task, rows)
        title = f"{task.title}, rule × update: {task.measure}"
        report.show_table(title, cells.header, cells.rows, "– was not trained.")
    networks = dict.fromkeys(row.network for row in rows)
    if len(networks) > 1:
        panels = {
            name: [row for row in rows if row.network == name] for name in networks
        }
        by_update = lambda row: row.update
        report.save_picture(
            folder,
            f"{task.name}-curves-all",
            pictures.draw_curves(task, panels, by_update),
            alt=pictures.alt_of_curves(task, rows, label),
            caption=f"All trainings: {task.value} of {report.listed(list(networks))}. "
            "The same curves follow, kind by kind.",
        )
        report.conclude(conclusion_of_curves(rows, label), about="All trainings")
    for number, part in enumerate(task.parts):
        chosen = [row for row in rows if part.shows(row)]
        if chosen:
            _show_part(folder, task, part, chosen, number)
    report.heading(f"{task.title}: scores", anchor=f"{task.name}-scores", level=3)
    cells = tabulate(task, rows)
    report.show_table(task.title, cells.header, cells.rows, marked=cells.marked)
    report.save_picture(
        folder,
        f"{task.name}-scores",
        pictures.draw_scores(task, rows),
        alt=pictures.alt_of_scores(task, rows),
        caption=f"{task.measure[0].upper()}{task.measure[1:]} of each seed (dots), "
        "their mean (vertical mark), and the 95 % interval of the mean over seeds "
        "(line). Other test data would change the scores, too.",
    )
    report.conclude(conclusion_of_scores(task, rows))


def _show_part(
    folder: Path, task: Task, part: Part, rows: Sequence[Any], number: int
) -> None:
    name_of = (lambda row: row.update) if part.by == "update" else _short_rule
    report.heading(part.kind.title, anchor=part.kind.anchor, level=3)
    report.explain(f'<div class="pair">{part.kind.html()}')
    networks = report.listed(list(dict.fromkeys(row.network for row in rows)))
    what = "updates" if part.by == "update" else "rules"
    steps = sorted({row.steps for row in rows})
    report.save_picture(
        folder,
        f"{task.name}-curves" + (f"-{number + 1}" if number else ""),
        pictures.draw_curves(task, {networks: rows}, name_of),
        alt=pictures.alt_of_curves(task, rows, name_of),
        caption=f"{networks}: {task.value}, for several {what}. Thick lines are means "
        "over seeds, thin lines are single seeds."
        + (" Updates on the full batch end earlier." if len(steps) > 1 else ""),
    )
    about = f"{part.kind.title}, {networks}"
    report.conclude(conclusion_of_curves(rows, name_of), about=about)
    report.explain("</div>")


def _short_rule(row: Any) -> str:
    """Return the settings of truncated BPTT, or the name of another rule."""
    _, _, settings = row.rule.partition("(")
    if not settings:
        return row.rule
    given = dict(part.split("=") for part in settings.rstrip(")").split(", "))
    return report.window(int(given["lookback"]), int(given["every"]))


def conclusion_of_curves(rows: Sequence[Any], name_of: Callable[[Any], str]) -> str:
    """Compare the training losses of the last updates; name curves that coincide."""
    losses = {name_of(row): np.maximum(row.value, pictures.FLOOR) for row in rows}
    measure = "training loss of the last updates"
    said = [report.verdict(measure, losses, higher_is_better=False, limits=(0, np.inf))]
    for group in pictures.coinciding(rows, name_of):
        said.append(
            f"The curves of {report.listed(group)} lie on one another: their means "
            "differ by less than 5 % everywhere."
        )
    if any(np.min(row.curve) < pictures.FLOOR for row in rows):
        said.append(
            f"Losses below {report.number(1.2e-7)}, the resolution of float32, count "
            "as this number."
        )
    return " ".join(said)


def conclusion_of_scores(task: Task, rows: Sequence[Any]) -> str:
    """Compare the scores of all jobs with each other, with guessing and baselines."""
    scores = {label(row): row.scores[task.score] for row in rows}
    measure = task.measure.removesuffix(", %")
    settings = {"unit": task.unit, "limits": task.limits}
    sign = task.higher_is_better
    said = [report.verdict(measure, scores, higher_is_better=sign, **settings)]
    if min(map(len, scores.values())) < 2:
        return said[0]
    found = {name: report.interval(values) for name, values in scores.items()}
    if task.chance is not None:
        same = [n for n, each in found.items() if each.low <= task.chance <= each.high]
        if same:
            said.append(
                f"No difference from guessing ({task.chance:.3g}{task.unit}): "
                f"{report.listed(same)}."
            )
        return " ".join(said)
    for reference in task.references:
        value = float(reference.scores[task.score])
        told = report.against(
            reference.name, value, scores, higher_is_better=sign, unit=task.unit
        )
        said.append(told)
    return " ".join(filter(None, said))
