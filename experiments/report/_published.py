"""Tables of measured scores beside published ones."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.report._studies import show_table
from experiments.report._tables import mean_sd


class Published(NamedTuple):
    """A published row: its scores by measure, and their source."""

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
    """Print a table: the scores of this run, then published scores with sources.

    Args:
      title: above the table.
      measures: the columns; a missing score is shown as "–".
      ours: name -> measure -> the scores of the seeds, shown as mean ± standard
        deviation, or one number, or text.
      published: the rows below.
      note: text below the table. With several seeds, a sentence about means and
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
