"""Jobs of a study, one after another; each resumes where it stopped.

The folder of a run holds config.json, results.jsonl with a line for each finished job,
and for each job its curve, curves/<job>.jsonl, and checkpoints/<job>/.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bpvariants import training
from bpvariants.types import PyTree
from experiments import report
from experiments.harness.errors import DataError

Config = TypeVar("Config")
Row = dict[str, Any]


class Job(NamedTuple):
    """A training of a study, or whatever else takes time and makes a row, or rows.

    After Ctrl-C a job may return a partial result, with "cut_short": True. It is shown
    and written like any other; a resumed run drops it and does the job again.
    """

    name: str
    steps: int  # for the progress
    train: Callable[["Way"], Row | list[Row]]


@dataclasses.dataclass(frozen=True)
class Way:
    """What a job needs on the way: where to write, and whom to tell."""

    job: str
    folder: Path
    advance: Callable[[int], None] = lambda steps: None

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the job are."""
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
          args: of `training.fit`.
          look: (step, metrics) -> what to add to the curve, such as a test error.
          every: after how many steps to write a checkpoint; by default each chunk.
          best: metrics -> what is least in a checkpoint that :meth:`best` returns.
          settings: of `training.fit`.

        Raises:
          KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
        """
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
          params: what they are like.
        """
        return training.read_checkpoint(self.checkpoints, params, best=True)

    def curve(self) -> list[Row]:
        """Return the lines of the curve, of what was trained before too."""
        lines = map(json.loads, self._curve.read_text().splitlines())
        return [{name: _with_nan(line[name]) for name in line} for line in lines]

    @property
    def _curve(self) -> Path:
        return self.folder / "curves" / f"{self.job}.jsonl"


def time_taken(result: training.FitResult) -> Row:
    """Return the milliseconds of a step and the seconds of compilation, for a row.

    Steps that were taken before a run was resumed do not count.
    """
    taken = max(1, result.steps - (result.resumed_from or 0))
    return {
        "ms_per_step": 1000 * result.seconds / taken,
        "compile_seconds": result.compile_seconds,
    }


def open_run(
    study: str,
    config: Config,
    free: Collection[str] = (),
    check: Callable[[Config], Any] | None = None,
) -> tuple[Config, Path]:
    """Make the folder of a run, or with `resume` go on in that of `out`.

    What is left at its default is then as that run has it.

    Args:
      study: its name.
      config: a dataclass with fields `out` and `resume`.
      free: options that may be others when it goes on.
      check: called with the options of the run before anything is written; it raises
        what is wrong with them.

    Returns:
      The options of the run, and its folder.

    Raises:
      DataError: if the folder holds a run and is not to be resumed, or the other way
        round, or if options are given that are not those of the run.
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
    if run.resume and out is not None:
        return run, out
    folder = report.make_folder(study, out)
    report.write_config(folder, run)
    return run, folder


def _recalled(run: Any, free: Collection[str]) -> Any:
    """Return options with those of the run in their folder, but for the free ones."""
    path = run.out / "config.json"
    if not path.exists():
        raise DataError(f"{run.out} holds no run to resume: there is no {path}.")
    stored = json.loads(path.read_text())["config"]
    theirs = {}
    for field in dataclasses.fields(run):
        if field.name in free or field.name not in stored:
            continue
        value, mine = _as_given(stored[field.name]), getattr(run, field.name)
        if isinstance(value, str) and "Path" in str(field.type):
            value = Path(value)
        if mine not in (field.default, value):
            raise DataError(
                f"{field.name}={mine!r} is not that of the run in {run.out}, which has "
                f"{value!r}: leave it out, or begin another run."
            )
        theirs[field.name] = value
    return dataclasses.replace(run, **theirs)


def run_jobs(folder: Path, jobs: Sequence[Job]) -> tuple[list[Row], bool]:
    """Do what is not done yet, and write a row for each; return all rows.

    Args:
      folder: of the run.
      jobs: all of the study, of different names.

    Returns:
      The rows, in the order of jobs, and whether Ctrl-C came before the end.
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
    """Return the rows of finished jobs; drop a torn line, and jobs cut short."""
    path = folder / "results.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    cut_short = {row["job"] for row in rows if row.get("cut_short")}
    rows = [row for row in rows if row["job"] not in cut_short]
    if len(rows) < len(lines):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        report.write_atomically(path, text)
    return rows


def _with_nan(value: Any) -> Any:
    """Return a value of a curve, where what is not finite is written as null."""
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return float("nan") if value is None else value


def _as_given(value: Any) -> Any:
    """Return a value of JSON as an option has it."""
    return tuple(map(_as_given, value)) if isinstance(value, list) else value
