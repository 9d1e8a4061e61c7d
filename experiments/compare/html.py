"""The page report.html of `compare`, with all tables and pictures of a run."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

import jinja2

from experiments import report
from experiments.compare.job import Task
from experiments.compare.pictures import draw_curves, draw_scores
from experiments.compare.tables import LEGEND, tabulate

PAGE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>bpvariants: {{ study }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; }
body { padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: .25em .7em; text-align: left; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.best td { font-weight: 600; background: #eef6ff; }
.wide { overflow-x: auto; } img { max-width: 100%; } .note { color: #555; }
</style>
<h1>bpvariants: {{ study }}</h1>
<p>{{ seeds }} seeds, trained together under <code>vmap</code>. {{ legend }} The
best score of a table is shaded. In the curves, thin lines are single seeds. Settings of
the updates are given as in the code.</p>
{% if interrupted %}<p><strong>Interrupted: some jobs are missing, or the last one was
cut short.</strong></p>{% endif %}
{% for section in sections %}
<h2>{{ section.title }}</h2>
<p>{{ section.about }}</p>
<div class="wide"><table>
<tr>{% for name in section.cells.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for line in section.cells.rows %}
<tr{% if loop.index0 == section.cells.best %} class="best"{% endif %}>
{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% for picture in section.pictures %}
<p><img alt="{{ picture.alt }}" src="data:image/png;base64,{{ picture.data }}"></p>
{% endfor %}
{% endfor %}
<p class="note">{{ seconds }} s in total · {{ settings }} · {{ versions }}</p>
</html>
""")


def write_report(
    folder: Path,
    config: Any,
    chosen: list[Task],
    rows: list[Any],
    seconds: float,
    interrupted: bool,
) -> None:
    """Write report.html, with the pictures of each task that has results."""
    sections = []
    for task in chosen:
        mine = [row for row in rows if row.task == task.name]
        if not mine:
            continue
        pictures = {
            folder / f"{task.name}-curves.png": (draw_curves, "learning curves"),
            folder / f"{task.name}-scores.png": (draw_scores, "scores and times"),
        }
        embedded = []
        for path, (draw, what) in pictures.items():
            draw(path, task, mine)
            data = base64.b64encode(path.read_bytes()).decode()
            embedded.append({"alt": f"{task.title}: {what}", "data": data})
        cells = tabulate(task, rows)
        sections.append(
            {"title": task.title, "about": task.about, "cells": cells}
            | {"pictures": embedded}
        )
    page = PAGE.render(
        study="the four kinds of backpropagation, side by side",
        seeds=config.seeds,
        sections=sections,
        interrupted=interrupted,
        seconds=round(seconds),
        legend=LEGEND,
        settings=_phrase(dataclasses.asdict(config)),
        versions=_phrase(report.versions()),
    )
    report.write_atomically(folder / "report.html", page)


def _phrase(settings: dict[str, Any]) -> str:
    """Return options as text, "name value, …"; leave out `resume` and unset options."""
    given = {
        name: value
        for name, value in settings.items()
        if value not in (None, ()) and value is not False and name != "resume"
    }
    return ", ".join(f"{name} {value}" for name, value in given.items())
