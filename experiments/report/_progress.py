"""Progress bars of the current job and of all jobs."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as RichProgress,
    TextColumn,
    TimeElapsedColumn,
)

from experiments.report._files import writes


class Progress:
    """Context manager with two progress bars: for all jobs, and for the current job."""

    def __init__(self, jobs: int):
        self._bars = RichProgress(
            TextColumn("{task.description:<46}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not writes(),
        )
        self._jobs = self._bars.add_task("jobs", total=jobs)
        self._steps = None

    def __enter__(self):
        """Show both progress bars."""
        self._bars.start()
        return self

    def __exit__(self, *exception):
        """Stop both bars; without an exception, count the last job as done."""
        if self._steps is not None and exception[0] is None:
            self._bars.advance(self._jobs)
            self._bars.remove_task(self._steps)
        self._bars.stop()

    def begin(self, name: str, steps: int) -> None:
        """Count the previous job as done, and show a bar for the next job."""
        if self._steps is not None:
            self._bars.advance(self._jobs)
            self._bars.remove_task(self._steps)
        self._steps = self._bars.add_task(name, total=steps)

    def advance(self, step: int) -> None:
        """Show the number of finished steps of the current job."""
        if self._steps is not None:
            self._bars.update(self._steps, completed=step)
