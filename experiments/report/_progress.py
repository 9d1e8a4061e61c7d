"""Progress of the current job and of all jobs: bars in a terminal, lines in a log."""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as RichProgress,
    TextColumn,
    TimeElapsedColumn,
)

from experiments.report._files import writes

SECONDS = 10.0  # time between two lines in a log


def log(text: str) -> None:
    """Write lines to stderr at once, so that a log file has them."""
    if writes():
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Context manager that shows progress on stderr.

    In a terminal, there are two progress bars: for all jobs, and for the current job.
    If stderr is a file or a pipe, a line is written at the beginning, at the end, and
    at most once in `SECONDS` in between.
    """

    def __init__(self, jobs: int):
        console = Console(stderr=True)
        self._lines = not console.is_terminal
        self._bars = RichProgress(
            TextColumn("{task.description:<46}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=self._lines or not writes(),
        )
        self._jobs = self._bars.add_task("jobs", total=jobs)
        self._count, self._done = jobs, 0
        self._steps = None
        self._name, self._total = "", 0
        self._start = time.monotonic()
        self._said = -SECONDS  # time of the last line

    def __enter__(self):
        """Show both progress bars."""
        self._bars.start()
        return self

    def __exit__(self, *exception):
        """Stop both bars; without an exception, count the last job as done."""
        if exception[0] is None:
            self._end_job()
            self._say(f"{self._done} of {self._count} jobs done")
        elif self._steps is not None:
            self._say(f"stopped in job {self._done + 1} of {self._count}: {self._name}")
        self._bars.stop()

    def begin(self, name: str, steps: int) -> None:
        """Count the previous job as done, and show a bar for the next job."""
        self._end_job()
        self._steps = self._bars.add_task(name, total=steps)
        self._name, self._total = name, steps
        self._say_now_and_then("begins")

    def advance(self, step: int) -> None:
        """Show the number of finished steps of the current job."""
        if self._steps is not None:
            self._bars.update(self._steps, completed=step)
            self._say_now_and_then(f"{step} of {self._total} steps")

    def _end_job(self) -> None:
        if self._steps is not None:
            self._bars.advance(self._jobs)
            self._bars.remove_task(self._steps)
            self._steps, self._done = None, self._done + 1

    def _say_now_and_then(self, state: str) -> None:
        if time.monotonic() - self._start - self._said >= SECONDS:
            job = f"job {self._done + 1} of {self._count}"
            self._say(f"{job}: {self._name}, {state}")

    def _say(self, text: str) -> None:
        if self._lines:
            self._said = time.monotonic() - self._start
            minutes, seconds = divmod(round(self._said), 60)
            log(f"[{minutes}:{seconds:02}] {text}")
