"""The result of a study; a function to print a table, and one to save a picture."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.report._files import writes
from experiments.report._tables import wide_console


@dataclasses.dataclass(frozen=True)
class Result:
    """Return value of a study's `main`; its rows are the lines of results.jsonl."""

    rows: list[dict[str, Any]]
    folder: Path
    interrupted: bool


def show_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> None:
    """Print a table and a note below it; the first column has the names of the rows."""
    if not writes():
        return
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = wide_console()
    console.print(table)
    if note:
        console.print(f"[dim]{note}\n")


def save_picture(folder: Path, name: str, figure: Figure) -> Path:
    """Save a picture as PNG in the folder of a run; return its path."""
    path = folder / f"{name}.png"
    if writes():
        figure.savefig(path, dpi=110)
    return path
