"""Study `compare`: all four kinds of backpropagation side by side, on real data."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from bpvariants import training
from experiments import report
from experiments.compare import digits, Job, language, sunspots, Task
from experiments.compare.html import write_report
from experiments.compare.tables import show

TASKS = {
    "digits": digits,
    "language": language,
    "sunspots": sunspots,
}
CHUNKS = 10  # in which each training is cut, to show progress


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare gradient rules × updates on digits, language and sunspots.

    Static, recurrent, resilient, and backpropagation through time, each on a task that
    it is meant for, beside simple references. Writes results.jsonl, config.json,
    pictures and a report.html.
    """

    only: tuple[Literal["digits", "language", "sunspots"], ...] = ()
    """Tasks to run; by default all of them."""
    seeds: int = 3
    """How many trainings of each job, from different initial weights. They run
    together under vmap, so that times and memory are those of all of them."""
    steps: int | None = None
    """Updates of every job; by default each job has a number of its own."""
    first_seed: int = 0
    """The seed of the first training; the others follow from it."""
    out: Path | None = None
    """Folder to write to; by default runs/compare-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("seeds", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one job came to; one line of results.jsonl."""

    task: str
    kind: str
    network: str
    rule: str
    update: str
    batch: str
    steps: int
    scores: dict[str, list[float]]  # [seeds] each
    value: list[float]  # loss of the last steps, [seeds]
    ms_per_step: float  # of all seeds together
    compile_seconds: float
    temp_bytes: int | None
    curve_steps: list[int]
    curve: list[list[float]]  # mean loss of the steps up to each of those, [seeds, …]


@dataclasses.dataclass(frozen=True)
class Result:
    """What `main` returns."""

    rows: list[Row]
    folder: Path
    interrupted: bool


def main(config: Config) -> Result:
    """Run the comparison, show it, and write it to a folder."""
    folder = report.make_folder("compare", config.out)
    report.write_config(folder, config)
    chosen, rows, interrupted, start = [], [], False, time.perf_counter()
    try:
        chosen = [TASKS[name](config.steps) for name in config.only or TASKS]
        with report.Progress(sum(len(task.jobs) for task in chosen)) as progress:
            for row in _run_all(chosen, config, progress):
                rows.append(row)
                report.append_row(folder, dataclasses.asdict(row))
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - start
    show(chosen, rows)
    if rows:
        write_report(folder, config, chosen, rows, seconds, interrupted)
    report.say_where(folder, seconds, interrupted)
    return Result(rows, folder, interrupted)


def _run_all(
    chosen: list[Task], config: Config, progress: report.Progress
) -> Iterator[Row]:
    for task in chosen:
        for job in task.jobs:
            progress.begin(f"{task.name}: {job.rule} × {job.update}", job.steps)
            row, interrupted = run(task.name, job, config, progress.advance)
            if row is not None:
                yield row
            if interrupted:
                raise KeyboardInterrupt


def run(
    task: str, job: Job, config: Config, advance: Callable[[int], None]
) -> tuple[Row | None, bool]:
    """Train all seeds of a job together; tell whether Ctrl-C came, and what it was."""
    init_key, sample_key = jax.random.split(jax.random.key(config.first_seed))
    params = jax.vmap(job.init)(jax.random.split(init_key, config.seeds))
    result = training.fit(
        job.gradient,
        job.optimizer,
        params,
        job.data,
        steps=job.steps,
        chunk=max(1, job.steps // CHUNKS),
        sample=job.sample,
        key=None if job.sample is None else sample_key,
        carry=None if job.carry is None else jax.vmap(job.carry)(params),
        runs=config.seeds,
        log=lambda step, metrics: advance(step),
    )
    if result.steps == 0:
        return None, result.interrupted
    scores = jax.jit(jax.vmap(job.evaluate))(result.params)
    steps, curve = _smooth(result.values)
    row = Row(
        task=task,
        kind=job.kind,
        network=job.network,
        rule=job.rule,
        update=job.update,
        batch=job.batch,
        steps=result.steps,
        scores=jax.tree.map(_as_list, scores),
        value=_as_list(curve[:, -1]),
        ms_per_step=1000 * result.seconds / result.steps,
        compile_seconds=result.compile_seconds,
        temp_bytes=result.temp_bytes,
        curve_steps=steps,
        curve=[_as_list(run) for run in curve],
    )
    return row, result.interrupted


def _smooth(values: np.ndarray, points: int = 20) -> tuple[list[int], np.ndarray]:
    """Return the means of values [seeds, steps] over pieces, and where those end."""
    pieces = np.array_split(np.arange(values.shape[1]), min(points, values.shape[1]))
    means = np.stack([values[:, piece].mean(axis=1) for piece in pieces], axis=1)
    return [int(piece[-1]) + 1 for piece in pieces], means


def _as_list(array: Any) -> list[float]:
    return np.asarray(array, float).tolist()
