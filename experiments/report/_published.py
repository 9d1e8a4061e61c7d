"""Tables that compare measured scores with published scores."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.report._studies import show_table
from experiments.report._tables import mean_sd


class Published(NamedTuple):
    """One row of a table: published scores {measure: score}, and their source."""

    name: str
    scores: Mapping[str, float | str]
    source: str  # author, year, table


def show_beside(
    title: str,
    measures: Sequence[str],
    ours: Mapping[str, Mapping[str, Sequence[float] | float | str]],
    published: Sequence[Published],
    note: str = "",
) -> None:
    """Print a table of the scores of this run, and below them published scores.

    Args:
      title: text above the table.
      measures: names of the measures, which are the headings of the columns. A missing
        score is shown as "–".
      ours: scores of this run, {name: {measure: score}}. A score is a number, a text,
        or a list of numbers over seeds, which is shown as mean ± standard deviation.
      published: published scores, shown below the rows of this run.
      note: text below the table. If there are several seeds, a sentence about means and
        standard deviations is added.
    """
    lines = [
        [name, *(_cell(scores.get(measure)) for measure in measures), "this run"]
        for name, scores in ours.items()
    ]
    for row in published:
        cells = [_cell(row.scores.get(measure)) for measure in measures]
        lines.append([row.name, *cells, row.source])
    seeds = {
        len(score)
        for scores in ours.values()
        for score in scores.values()
        if not isinstance(score, str | float | int)
    }
    if max(seeds, default=1) > 1:
        counts = ", ".join(map(str, sorted(seeds)))
        note = f"{note} Ours: mean ± standard deviation of {counts} seeds.".strip()
    show_table(title, ["", *measures, "source"], lines, note)


def _cell(score: Sequence[float] | float | str | None) -> str:
    if score is None:
        return "–"
    if isinstance(score, str):
        return score
    return f"{score:.4g}" if isinstance(score, float | int) else mean_sd(list(score))
