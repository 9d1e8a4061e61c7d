"""A console for wide tables, and functions that format results."""

from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.report._files import writes

WIDTH = 130  # width of a full table, in characters


def wide_console() -> Console:
    """Return a console for tables, which is wide if the output is a file or a pipe."""
    console = Console()
    if not console.is_terminal:
        console.width = max(WIDTH, console.width)
    return console


def say_where(folder: Path, seconds: float, interrupted: bool) -> None:
    """Print the folder and the files that contain the results."""
    if not writes():
        return
    page, results = folder / "report.html", folder / "results.jsonl"
    pictures = [page] if page.exists() else sorted(folder.glob("*.png"))
    done = "Interrupted: the finished part" if interrupted else "The whole run"
    look = f": open {', '.join(map(str, pictures or [results]))}"
    look = look if results.exists() else ", no results yet"
    Console().print(f"{done} ({seconds:.0f} s) is in {folder}{look}", soft_wrap=True)


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
