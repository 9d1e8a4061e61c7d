"""Running and resuming the jobs of a study (usually trainings), one after another.

The folder of a run has the file config.json with the options, and results.jsonl with
the rows of finished jobs. For a job that trains by :meth:`Way.fit`, the folder also has
the learning curve in curves/<job>.jsonl, and the checkpoints in checkpoints/<job>/.
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
from experiments.harness.inputs import check_unchanged, sums_of
from experiments.harness.placement import mesh_of, placed
from experiments.harness.rows import finished, Row as Row

Config = TypeVar("Config")


class Job(NamedTuple):
    """A part of a study, usually one training, that returns one or more result rows.

    After Ctrl-C, a job may return a partial result, marked by "cut_short": True. A
    partial result is shown and written like a complete one. When the run is resumed,
    the partial result is deleted and the job is repeated.
    """

    name: str
    steps: int  # total number of steps of the job, for the progress bar
    train: Callable[["Way"], Row | list[Row]]


@dataclasses.dataclass(frozen=True)
class Way:
    """The files and the progress bar of a job."""

    job: str
    folder: Path
    advance: Callable[[int], None] = lambda steps: None
    devices: int | None = None  # number of devices to train on; None: one device

    @property
    def checkpoints(self) -> Path:
        """Path of the folder with the job's checkpoints."""
        return self.folder / "checkpoints" / self.job

    def fit(
        self,
        *args: Any,
        look: Callable | None = None,
        every: int | None = None,
        best: Callable | None = None,
        over: Sequence[int | None] | None = None,
        **settings: Any,
    ) -> training.FitResult:
        """Train by `training.fit`, with checkpoints, a learning curve and progress.

        Args:
          args: positional arguments of :func:`training.fit`.
          look: function (step, metrics) -> dict of values, such as a test error, to
            write to the learning curve after each chunk.
          every: number of training steps between two checkpoints; by default, a
            checkpoint is written after each chunk.
          best: function (metrics) -> score, where lower is better. The method `best`
            later returns the checkpoint with the lowest score.
          over: the batch axis of each entry of a batch, such as (0, 1, 1), or None for
            an entry without one. On several devices, batches are divided along it
            unless the runs can be divided.
          settings: keyword arguments of `training.fit`.

        Raises:
          KeyboardInterrupt: after Ctrl-C; a checkpoint is written before it is raised.
        """
        if not any(self.checkpoints.glob("[0-9]*")):  # a new training begins
            self._curve.unlink(missing_ok=True)
        curve = training.JsonLog(self._curve, look)
        args, settings = self.on_devices(*args, over=over, **settings)
        result = training.fit(
            *args,
            log=[curve, lambda step, metrics: self.advance(step)],
            checkpoint=training.Checkpoint(self.checkpoints, every, keep=1, best=best),
            **settings,
        )
        if result.stopped == "interrupt":
            raise KeyboardInterrupt
        return result

    def on_devices(
        self, *args: Any, over: Sequence[int | None] | None = None, **settings: Any
    ) -> tuple[tuple, dict[str, Any]]:
        """Return the arguments of `training.fit`, placed on the devices of the study.

        For studies that call :func:`training.fit` themselves; `over` is as in `fit`.
        """
        mesh = mesh_of(self.devices)
        if mesh is None:
            return args, settings
        rule, update, params, *rest = args
        rule, settings, params = placed(mesh, rule, settings, params, over)
        return (rule, update, params, *rest), settings

    def best(self, params: PyTree) -> tuple[int, PyTree]:
        """Return the step and the params of the best checkpoint of the job.

        Args:
          params: a tree with the structure, shapes and dtypes of the params to read.
        """
        return training.read_checkpoint(self.checkpoints, params, best=True)

    def curve(self) -> list[Row]:
        """Return the learning curve, also of updates before the run was resumed."""
        lines = map(json.loads, self._curve.read_text().splitlines())
        return [{name: _with_nan(line[name]) for name in line} for line in lines]

    @property
    def _curve(self) -> Path:
        return self.folder / "curves" / f"{self.job}.jsonl"


def time_taken(result: training.FitResult) -> Row:
    """Return the times of a training as fields of a result row.

    The times are milliseconds per training step, and seconds of compilation. If a run
    was resumed, only the training steps after the resumption are counted.
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
    """Create the folder of a new run, or with `resume` continue the run in `out`.

    When a run is continued, options that the user does not set keep the values that
    they had when the run began. The options in `free` are an exception. The user's
    files, which the study names in `FILES`, must be unchanged. Within the `with` block,
    no other process can run a study in the folder.

    Args:
      study: the study's name.
      config: options of the study, a dataclass with fields `out`, `resume` and
        `overwrite`.
      free: names of options that may have new values when the run is continued.
      check: function (options) -> None that raises an error if the run cannot work; it
        is called before any file is written.

    Yields:
      The options of the run, and its folder.

    Raises:
      DataError: if neither `resume` nor `overwrite` is set, but the folder has a run;
        if `resume` is True, but the folder has no run; if an option or a file of the
        user has changed since the run began; or if another process uses the folder.
    """
    run: Any = config
    out: Path | None = run.out
    if run.resume:
        run = _recalled(run, {"out", "resume", "overwrite", *free})
    elif out is not None and (out / "checkpoints").exists() and not run.overwrite:
        raise DataError(
            f"{out} holds checkpoints of a run: add --resume to go on with it, "
            "--overwrite to delete it and start again, or choose another --out."
        )
    if run.resume:
        check_unchanged(run, _stored(run.out).get("files", {}))
    files = sums_of(run)  # computed before the study itself reads these files
    if check is not None:
        check(run)
    resumed = out if run.resume else None
    folder = resumed or report.make_folder(study, out, run.overwrite)
    with report.locked(folder):
        if run.overwrite:
            report.clear(folder)
        if resumed is None:
            report.write_config(folder, run, files)
        yield run, folder


def _recalled(run: Any, free: Collection[str]) -> Any:
    """Return a stored run's options; options in `free` keep their values in `run`."""
    stored, theirs = _stored(run.out)["config"], {}
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


def _stored(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json, which was written when the run began."""
    path = folder / "config.json"
    if not path.exists():
        raise DataError(f"{folder} holds no run to resume: there is no {path}.")
    try:
        content = json.loads(path.read_bytes())
        content["config"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged ({error}), so the run cannot be resumed: start a new "
            "run in another --out."
        ) from error
    return content


def run_jobs(
    folder: Path, jobs: Sequence[Job], devices: int | None = None
) -> tuple[list[Row], bool]:
    """Run the unfinished jobs, write their rows, and return the rows of all jobs.

    Args:
      folder: the folder of the run.
      jobs: all jobs of the study, with different names.
      devices: number of devices to train on; by default one.

    Returns:
      The rows of all finished jobs, in the order of `jobs`, and whether Ctrl-C stopped
      the run.
    """
    rows: dict[str, list[Row]] = {}
    for row in finished(folder):
        rows.setdefault(row["job"], []).append(row)
    interrupted = False
    try:
        with report.Progress(len(jobs)) as progress:
            for job in jobs:
                progress.begin(job.name, job.steps)
                if job.name in rows:
                    continue
                start = time.perf_counter()
                found = job.train(Way(job.name, folder, progress.advance, devices))
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


def _with_nan(value: Any) -> Any:
    """Replace null by NaN in a value from JSON; null is written for NaN and inf."""
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return float("nan") if value is None else value


def _as_given(value: Any) -> Any:
    """Convert a value from JSON to the value of an option: lists become tuples."""
    return tuple(map(_as_given, value)) if isinstance(value, list) else value
