"""The result of a study; a function to print a table, and one to save a picture."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.markup import escape

from experiments.report._blocks import Picture, record, Table
from experiments.report._descriptions import describe
from experiments.report._files import writes
from experiments.report._tables import fitting, wide_console

DPI = 110  # pixels of a picture per inch of its figure


@dataclasses.dataclass(frozen=True)
class Result:
    """Return value of a study's `main`; its rows are the lines of results.jsonl."""

    rows: list[dict[str, Any]]
    folder: Path
    interrupted: bool


def show_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    *,
    marked: Collection[int] = (),
) -> None:
    """Print a table with a note below it, and add both to the page of the study.

    In a narrow terminal, the columns that do not fit follow in further tables.

    Args:
      title: text above the table.
      header: headings of the columns; the first column has the names of the rows.
      rows: cells of each row; a row with one cell is a heading of the rows below it.
      note: text below the table.
      marked: indices of rows that stand out.
    """
    if not writes():
        return
    console = wide_console(recorded=False)
    for table in fitting(title, header, rows, console.width, marked):
        console.print(table)
    if note:
        console.print(f"[dim]{escape(note)}\n")
    record(Table(title, header, rows, note, marked))


def save_picture(
    folder: Path, name: str, figure: Figure, *, alt: str = "", caption: str = ""
) -> Path:
    """Save a picture as PNG in the folder of a run, and add it to the page.

    Args:
      folder: the folder of the run.
      name: name of the file, without ".png".
      figure: the picture.
      alt: text that says what is seen; by default, the axes, curves and ends of curves
        of the figure are listed.
      caption: text below the picture; by default, the titles of the figure.

    Returns:
      The path of the picture.
    """
    (path,) = save_pictures(folder, {name: figure}, alts={name: alt}, caption=caption)
    return path


def save_pictures(
    folder: Path,
    figures: Mapping[str, Figure],
    *,
    alts: Mapping[str, str] | None = None,
    caption: str = "",
) -> list[Path]:
    """Save pictures that stand side by side in the page, with one caption.

    On a narrow screen, the pictures stand below one another. The arguments are those of
    :func:`save_picture`, with a figure and an alternative text for each name.
    """
    paths = [folder / f"{name}.png" for name in figures]
    if not writes():
        return paths
    files = []
    for path, (name, figure) in zip(paths, figures.items(), strict=True):
        figure.savefig(path, dpi=DPI)
        files.append((path, (alts or {}).get(name) or describe(figure)))
    record(Picture(files, caption or _titles(figures)))
    return paths


def show_file(path: Path, *, alt: str, caption: str) -> None:
    """Add an image file in the folder of a run, such as a GIF, to the page."""
    record(Picture([(path, alt)], caption))


def _titles(figures: Mapping[str, Figure]) -> str:
    """Return the titles of panels as a caption; without titles, the figures' names."""
    names = ", ".join(name.replace("_", " ").replace("-", " ") for name in figures)
    found = []
    for figure in figures.values():
        found.append(figure.get_suptitle())
        found += [axis.get_title() for axis in figure.axes]
    titles = dict.fromkeys(" ".join(title.split()) for title in found if title)
    said = " · ".join(titles) or names
    return f"{said[:1].upper()}{said[1:]}."
