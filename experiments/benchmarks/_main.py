"""`python -m experiments benchmarks`: runs them, shows a table, writes it."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments import report
from experiments.benchmarks._bptt import bptt
from experiments.benchmarks._fit import fit
from experiments.benchmarks._fixed_point import fixed_point
from experiments.benchmarks._online import online
from experiments.benchmarks._parallel import parallel
from experiments.benchmarks._proben1 import proben1
from experiments.benchmarks._rprop import rprop
from experiments.benchmarks._sweep import sweep
from experiments.harness.timing import Measured

BENCHMARKS = {
    "bptt": bptt,
    "fit": fit,
    "fixed_point": fixed_point,
    "online": online,
    "parallel": parallel,
    "rprop": rprop,
    "proben1": proben1,
    "sweep": sweep,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Time this library against its peers: the same work, in turns, in one run.

    Peers come with `pip install -e ".[benchmarks]"`; those that are missing are left
    out, and said to be.
    """

    only: tuple[
        Literal[
            "bptt",
            "fit",
            "fixed_point",
            "online",
            "parallel",
            "rprop",
            "proben1",
            "sweep",
        ],
        ...,
    ] = ()
    """Benchmarks to run; by default all of them."""
    repeats: int = 30
    """How often each is timed; the median counts."""
    parameters: int = 4_000_000
    """How many float32 parameters the rprop benchmark steps; 100000000 or 1000000000
    on a GPU."""
    out: Path | None = None
    """Folder to write to; by default runs/benchmarks-<time>."""

    def __post_init__(self):
        """Check the options."""
        if self.repeats < 2:
            raise ValueError(f"repeats must be at least 2, got {self.repeats}.")
        if self.parameters < 1:
            raise ValueError(f"parameters must be at least 1, got {self.parameters}.")


@dataclasses.dataclass(frozen=True)
class Result:
    """What `main` returns."""

    rows: list
    folder: Path
    interrupted: bool


def main(config: Config) -> Result:
    """Run the benchmarks, show them, and write them to a folder."""
    folder = report.make_folder("benchmarks", config.out)
    report.write_config(folder, config)
    names, rows, interrupted = config.only or tuple(BENCHMARKS), [], False
    try:
        with report.Progress(len(names)) as progress:
            for name in names:
                progress.begin(name, 1)
                for measured in _run(name, config):
                    rows.append(measured)
                    report.append_row(folder, measured._asdict())
                progress.advance(1)
    except KeyboardInterrupt:
        interrupted = True
    _show(rows)
    Console().print(f"All of it is in {folder / 'results.jsonl'}", soft_wrap=True)
    return Result(rows, folder, interrupted)


def _run(name: str, config: Config) -> Iterable[Measured]:
    if name == "rprop":
        return rprop(config.repeats, config.parameters)
    return BENCHMARKS[name](config.repeats)


def _show(rows: list[Measured]) -> None:
    """Print a table, with the work above those who do it."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "ms", "quartiles", "ratio", "compile s", "temp MiB", "note"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    groups = [row.group for row in rows]
    for i, row in enumerate(rows):
        if row.group not in groups[:i]:
            table.add_row(f"[bold]{row.group}")
        numbers = f"{row.ms:.3g}", f"± {row.spread:.0%}", f"{row.ratio:.2g}"
        known = lambda number, digits: (
            "" if math.isnan(number) else f"{number:.{digits}f}"
        )
        more = known(row.compile_seconds, 1), known(row.temp_mib, 2)
        table.add_row(f"  {row.name}", *numbers, *more, row.note)
    console = report.wide_console()
    console.print(table)
    console.print(
        "[dim]Medians of calls in turns; quartiles: half their distance, relative to "
        "the median; ratio: to the first of each group, which is ours."
    )
