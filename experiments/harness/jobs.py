"""Jobs of a study, run one after another; each resumes where it stopped.

The folder of a run holds config.json, and results.jsonl with the rows of finished jobs.
A job that trains by :meth:`Way.fit` also has its learning curve there,
curves/<job>.jsonl, and checkpoints/<job>/.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bpvariants import training
from bpvariants.types import PyTree
from experiments import report
from experiments.harness.errors import DataError

Config = TypeVar("Config")
Row = dict[str, Any]


class Job(NamedTuple):
    """One unit of work of a study, usually a training; it makes one row or several.

    After Ctrl-C a job may return a partial result, with "cut_short": True. The result
    is shown and written like any other; a resumed run drops it and repeats the job.
    """

    name: str
    steps: int  # total, for the progress bar
    train: Callable[["Way"], Row | list[Row]]


@dataclasses.dataclass(frozen=True)
class Way:
    """Where a job writes its files, and how it reports its progress."""

    job: str
    folder: Path
    advance: Callable[[int], None] = lambda steps: None

    @property
    def checkpoints(self) -> Path:
        """Folder of the job's checkpoints."""
        return self.folder / "checkpoints" / self.job

    def fit(
        self,
        *args: Any,
        look: Callable | None = None,
        every: int | None = None,
        best: Callable | None = None,
        **settings: Any,
    ) -> training.FitResult:
        """Train as :func:`training.fit` does, with checkpoints, a curve and progress.

        Args:
          args: arguments of `training.fit`.
          look: (step, metrics) -> dict to add to the curve, such as a test error.
          every: steps between checkpoints; by default one after each chunk.
          best: metrics -> score, lower is better; :meth:`best` returns the checkpoint
            with the lowest one.
          settings: keyword arguments of `training.fit`.

        Raises:
          KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
        """
        if not any(self.checkpoints.glob("[0-9]*")):  # it ended before its first one
            self._curve.unlink(missing_ok=True)
        curve = training.JsonLog(self._curve, look)
        result = training.fit(
            *args,
            log=[curve, lambda step, metrics: self.advance(step)],
            checkpoint=training.Checkpoint(self.checkpoints, every, keep=1, best=best),
            **settings,
        )
        if result.stopped == "interrupt":
            raise KeyboardInterrupt
        return result

    def best(self, params: PyTree) -> tuple[int, PyTree]:
        """Return the step and the params of the best checkpoint of the job.

        Args:
          params: an example of the same structure, shapes and dtypes.
        """
        return training.read_checkpoint(self.checkpoints, params, best=True)

    def curve(self) -> list[Row]:
        """Return the lines of the curve, including those from before a resume."""
        lines = map(json.loads, self._curve.read_text().splitlines())
        return [{name: _with_nan(line[name]) for name in line} for line in lines]

    @property
    def _curve(self) -> Path:
        return self.folder / "curves" / f"{self.job}.jsonl"


def time_taken(result: training.FitResult) -> Row:
    """Return the milliseconds of a step and the seconds of compilation, for a row.

    Steps from before a resume do not count.
    """
    taken = max(1, result.steps - (result.resumed_from or 0))
    return {
        "ms_per_step": 1000 * result.seconds / taken,
        "compile_seconds": result.compile_seconds,
    }


@contextmanager
def open_run(
    study: str,
    config: Config,
    free: Collection[str] = (),
    check: Callable[[Config], Any] | None = None,
) -> Iterator[tuple[Config, Path]]:
    """Make the folder of a run, or with `resume` continue the run in `out`.

    Options left at their defaults then take that run's values, except free ones. During
    the block, no other process can run a study in the folder.

    Args:
      study: the study's name.
      config: a dataclass with fields `out` and `resume`.
      free: options that may differ when the run continues.
      check: called with the options of the run before anything is written; it raises
        an error if they are wrong.

    Yields:
      The options of the run, and its folder.

    Raises:
      DataError: if the folder holds a run and `resume` is False, or holds none and
        `resume` is True, if a given option differs from that of the run, or if another
        process uses the folder.
    """
    run: Any = config
    out: Path | None = run.out
    if run.resume:
        run = _recalled(run, {"out", "resume", *free})
    elif out is not None and (out / "checkpoints").exists():
        raise DataError(
            f"{out} holds checkpoints of a run: add --resume to go on with it, "
            "or choose another --out."
        )
    if check is not None:
        check(run)
    begun = out if run.resume else None
    folder = begun or report.make_folder(study, out)
    with report.locked(folder):
        if begun is None:
            report.write_config(folder, run)
        yield run, folder


def _recalled(run: Any, free: Collection[str]) -> Any:
    """Return the options of the run in the folder; free ones keep their new values."""
    path = run.out / "config.json"
    if not path.exists():
        raise DataError(f"{run.out} holds no run to resume: there is no {path}.")
    try:
        stored = json.loads(path.read_bytes())["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}), so the run cannot be resumed: start a new "
            "run in another --out."
        ) from error
    theirs = {}
    for field in dataclasses.fields(run):
        if field.name in free or field.name not in stored:
            continue
        value, mine = _as_given(stored[field.name]), getattr(run, field.name)
        if isinstance(value, str) and "Path" in str(field.type):
            value = Path(value)
        if mine not in (field.default, value):
            raise DataError(
                f"{field.name}={mine!r} differs from the run in {run.out}, which has "
                f"{value!r}: leave it out, or start a new run in another --out."
            )
        theirs[field.name] = value
    return dataclasses.replace(run, **theirs)


def run_jobs(folder: Path, jobs: Sequence[Job]) -> tuple[list[Row], bool]:
    """Run the jobs that are not finished, write their rows, and return all rows.

    Args:
      folder: the folder of the run.
      jobs: all jobs of the study, with different names.

    Returns:
      The rows, in the order of jobs, and whether Ctrl-C stopped the run early.
    """
    rows: dict[str, list[Row]] = {}
    for row in _finished(folder):
        rows.setdefault(row["job"], []).append(row)
    interrupted = False
    try:
        with report.Progress(len(jobs)) as progress:
            for job in jobs:
                progress.begin(job.name, job.steps)
                if job.name in rows:
                    continue
                start = time.perf_counter()
                found = job.train(Way(job.name, folder, progress.advance))
                seconds = {"wall_seconds": time.perf_counter() - start}
                found = found if isinstance(found, list) else [found]
                rows[job.name] = [{"job": job.name} | row | seconds for row in found]
                report.append_rows(folder, rows[job.name])
                if any(row.get("cut_short") for row in found):
                    raise KeyboardInterrupt
                progress.advance(job.steps)
    except KeyboardInterrupt:
        interrupted = True
    return [row for job in jobs for row in rows.get(job.name, [])], interrupted


def _finished(folder: Path) -> list[Row]:
    """Return the rows of finished jobs; drop an incomplete line and jobs cut short."""
    path = folder / "results.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    rows = [_row(path, number, line) for number, line in enumerate(whole, start=1)]
    cut_short = {row["job"] for row in rows if row.get("cut_short")}
    rows = [row for row in rows if row["job"] not in cut_short]
    if len(rows) < len(lines):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        report.write_atomically(path, text)
    return rows


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
        _ = row["job"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged: line {number} is not a row of a job ({error!r}). "
            "Delete that line; its job is then run again."
        ) from error
    return row


def _with_nan(value: Any) -> Any:
    """Return a value of a curve; the file has null for nonfinite values, here NaN."""
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return float("nan") if value is None else value


def _as_given(value: Any) -> Any:
    """Return a JSON value as an option holds it: lists become tuples."""
    return tuple(map(_as_given, value)) if isinstance(value, list) else value
