"""Tables that fit a terminal, a console for them, and functions that format results."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.report._blocks import Paragraph, record
from experiments.report._files import writes

WIDTH = 130  # width of a full table, in characters
_NAMES = 22  # smallest width of the column with the names of the rows
_LONG = 24  # cells with more characters are texts, which may be wrapped at spaces


class _Recorded(Console):
    """A console that adds the texts that it prints to the page of the study."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects; record texts, without markup."""
        super().print(*objects, **options)
        for each in objects:
            if isinstance(each, str) and each.strip():
                exact = options.get("markup") is False
                plain = each if exact else Text.from_markup(each).plain
                record(Paragraph(plain.strip("\n"), exact=exact))


def wide_console(*, recorded: bool = True) -> Console:
    """Return a console for tables, which is wide if the output is a file or a pipe.

    Texts that are printed by the console are also added to the page of the study,
    unless `recorded` is False.
    """
    console = _Recorded() if recorded else Console()
    if not console.is_terminal:
        console.width = max(WIDTH, console.width)
    return console


def fitting(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    marked: Collection[int] = (),
) -> list[Table]:
    """Return tables that together show all columns, each at most `width` wide.

    If the columns do not fit side by side, the remaining columns follow in further
    tables, which repeat the names of the rows. A number is never cut or wrapped; only
    headings, long texts and the names of the rows are wrapped, at spaces.

    Args:
      title: text above the first table.
      header: headings of the columns; the first column has the names of the rows.
      rows: cells of each row; a row with one cell is a heading of the rows below it.
      width: number of characters of the terminal.
      marked: indices of rows that are printed in bold.
    """
    cells = [[row[i] for row in rows if len(row) > 1] for i in range(len(header))]
    widths = [
        _needed(name, column, len(name))
        for name, column in zip(header, cells, strict=True)
    ]
    first, room = max(map(len, [header[0], *cells[0]])), width - 3
    between = 2 * len(widths)  # spaces between the columns
    if first + sum(widths[1:]) + between > room:  # wrap headings, then names
        widths = [
            _needed(name, column) for name, column in zip(header, cells, strict=True)
        ]
        least = min(first, max(_NAMES, *map(_word, [header[0], *cells[0]])))
        left = room - sum(widths[1:]) - between
        first = max(least, min(first, left if left >= least else room // 3))
    parts, used = [[]], first
    for i in range(1, len(header)):
        if parts[-1] and used + widths[i] + 2 > room:
            parts.append([])
            used = first
        parts[-1].append(i)
        used += widths[i] + 2
    return [
        _table("" if number else title, header, rows, [0, *part], widths, first, marked)
        for number, part in enumerate(parts)
    ]


def _table(title, header, rows, columns, widths, first, marked) -> Table:
    """Return a table of some columns of a table, with the given widths."""
    table = Table(
        title=escape(title) or None, title_justify="left", box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column(escape(header[0]), min_width=first, max_width=first)
    for i in columns[1:]:
        long = any(len(row[i]) > _LONG for row in rows if len(row) > 1)
        table.add_column(
            _wrapped(header[i], widths[i]), justify="left" if long else "right",
            no_wrap=not long, min_width=widths[i],
        )  # fmt: skip
    heading = None  # of the next row, if it has something in these columns
    for number, row in enumerate(rows):
        if len(row) == 1:
            heading = row[0]
        elif 1 in columns or any(row[i] for i in columns[1:]):
            if heading is not None:
                table.add_row(f"[bold]{escape(heading)}")
                heading = None
            style = "bold" if number in marked else None
            table.add_row(*(escape(row[i]) for i in columns), style=style)
    return table


def _needed(name: str, cells: Sequence[str], heading: int | None = None) -> int:
    """Return the width of a column: of its cells, and of the longest word of its name.

    Cells of more than `_LONG` characters may be wrapped at spaces; others may not. If
    `heading` is given, it is the width of the name.
    """
    short = [len(each) if len(each) <= _LONG else _LONG for each in cells]
    words = [_word(each) for each in cells]
    return max([heading or _word(name), *short, *words])


def _word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _wrapped(name: str, width: int | None) -> str:
    """Wrap a heading at spaces into lines of at most `width` characters."""
    lines: list[str] = []
    for word in name.split():
        if lines and len(lines[-1]) + 1 + len(word) <= (width or 0):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return escape("\n".join(lines))


def say_where(folder: Path, seconds: float, interrupted: bool, study: str = "") -> None:
    """Print the folder and the files that contain the results.

    If the run was interrupted, and the name of the study is given, the command that
    continues the run is printed as well.
    """
    if not writes():
        return
    page, results = folder / "report.html", folder / "results.jsonl"
    pictures = [page] if page.exists() else sorted(folder.glob("*.png"))
    done = "Interrupted: the finished part" if interrupted else "The whole run"
    look = f": open {', '.join(map(str, pictures or [results]))}"
    look = look if results.exists() else ", no results yet"
    console = Console()
    console.print(f"{done} ({seconds:.0f} s) is in {folder}{look}", soft_wrap=True)
    if interrupted and study:
        console.print(how_to_continue(study, folder), soft_wrap=True, markup=False)


def how_to_continue(study: str, folder: Path) -> str:
    """Return the commands that continue a stopped run, and that start it again.

    Example:
      >>> print(how_to_continue("flow", Path("runs/a b")))
      To go on with it: python -m experiments flow --resume --out 'runs/a b'
      To start again in the same folder, give --overwrite instead of --resume.
    """
    return (
        f"To go on with it: python -m experiments {study} --resume --out "
        f"{shlex.quote(str(folder))}\n"
        "To start again in the same folder, give --overwrite instead of --resume."
    )


def mean_sd(values: list[float]) -> str:
    """Format the mean ± standard deviation over seeds.

    Example:
      >>> mean_sd([1.0, 1.5]), mean_sd([20.0, 40.0]), mean_sd([0.1 + 0.2, 0.3])
      ('1.25 ± 0.4', '30 ± 14', '0.3 ± 0')
      >>> mean_sd([2345.0]), mean_sd([1200.0, 1300.0])
      ('2345', '1250 ± 71')
    """
    mean = float(np.mean(values))
    shown = f"{mean:.3g}" if abs(mean) < 999.5 else f"{mean:.0f}"
    if len(values) < 2:
        return shown
    deviation = float(np.std(values, ddof=1))
    if deviation < 1e-12 * abs(mean):  # all values are equal, up to rounding
        deviation = 0.0
    return f"{shown} ± {deviation:{'.0f' if deviation >= 10 else '.1g'}}"
