"""Study `compare`: four kinds of backpropagation compared on real data."""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import training
from experiments import report
from experiments.compare import digits, Job, memory, sunspots, Task
from experiments.compare.memory import chosen_rate
from experiments.compare.page import show
from experiments.harness import jobs
from experiments.harness.options import at_least, known
from experiments.harness.study import run_study, TrainingStudy

TASKS = {
    "digits": digits,
    "memory": memory,
    "sunspots": sunspots,
}
CHUNKS = 10  # chunks of updates in each training; progress is shown after each chunk


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """What are the four kinds of backpropagation, and how do they compare?

    Static, recurrent and resilient backpropagation and backpropagation through time are
    explained, and trained on handwritten digits, on a task with a long memory, and on
    yearly sunspots. Results are compared with simple baselines.
    """

    QUICK = {"steps": 10, "seeds": 2}
    CHECKS = {"steps": at_least(1), "only": known(TASKS)}

    only: tuple[Literal["digits", "memory", "sunspots"], ...] = ()
    """Tasks to run; by default all tasks."""
    seeds: int = 3
    """Number of training runs of each job, from different initial weights. All runs of
    a job share one vmap, so times and memory are totals over all seeds."""
    steps: int | None = None
    """Number of updates of every job; by default each job has its own number."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Result of a job (a training).

    Loss curves are averaged over pieces, which are groups of successive updates. The
    fields "job" and "wall_seconds" are added when the row is written.
    """

    task: str
    kind: str
    network: str
    rule: str
    update: str
    batch: str
    steps: int
    scores: dict[str, list[float]]  # {name of a score: [seeds]}
    value: list[float]  # mean training loss in the last piece of each seed's curve
    ms_per_step: float  # time of an update of all seeds' networks together
    compile_seconds: float
    temp_bytes: int | None
    curve_steps: list[int]  # number of updates at the end of each piece
    curve: list[list[float]]  # mean training loss of each piece, [seeds, pieces]


def main(config: Config) -> report.Result:
    """Run all jobs (trainings) of all tasks; print the results and write them."""
    tasks = cache(_tasks)  # the data are loaded once, not twice
    return run_study(
        "compare",
        config,
        lambda config: _jobs(config, tasks(config)),
        lambda folder, config, rows: _finish(folder, config, rows, tasks(config)),
    )


def _tasks(config: Config) -> list[Task]:
    """Return the tasks to run.

    With the option `quick`, each task keeps only one job (training) for each network
    and kind of gradient rule.
    """
    tasks = [TASKS[name](config.steps) for name in config.only or TASKS]
    return list(map(_at_quick_size, tasks)) if config.quick else tasks


def _at_quick_size(task: Task) -> Task:
    kept = {}
    for job in task.jobs:
        kept.setdefault((job.network, job.rule.split("(")[0]), job)
    return dataclasses.replace(task, jobs=list(kept.values()))


def _jobs(config: Config, tasks: list[Task]) -> list[jobs.Job]:
    return [
        jobs.Job(_name(task, job), job.steps, partial(run, task.name, job, config))
        for task in tasks
        for job in task.jobs
    ]


def _name(task: Task, job: Job) -> str:
    update = job.update.partition("({")[0]  # without a rate that is not chosen yet
    return f"{task.name}: {job.network}, {job.rule} × {update}"


def _finish(
    folder: Path, config: Config, rows: list[jobs.Row], tasks: list[Task]
) -> None:
    fields = [field.name for field in dataclasses.fields(Row)]
    results = [Row(**{name: row[name] for name in fields}) for row in rows]
    show(folder, tasks, results)


def run(task: str, job: Job, config: Config, way: jobs.Way) -> jobs.Row:
    """Train the networks of all seeds of a job; return its row of results.

    After Ctrl-C, the row has the results of the updates so far.
    """
    init_key, sample_key = jax.random.split(jax.random.key(config.first_seed))
    keys = jax.random.split(init_key, config.seeds)
    lanes = max(1, len(job.rates))  # networks of each seed
    if job.rates:
        keys = jnp.repeat(keys, lanes, axis=0)
        params = _for_all_seeds(job.init)(
            keys, jnp.tile(jnp.array(job.rates), config.seeds)
        )
    else:
        params = _for_all_seeds(job.init)(keys)
    given, settings = way.on_devices(
        job.gradient,
        job.optimizer,
        params,
        job.data,
        carry=None if job.carry is None else jax.vmap(job.carry)(params),
        runs=config.seeds * lanes,
    )
    result = training.fit(
        *given,
        **settings,
        steps=job.steps,
        chunk=max(1, job.steps // CHUNKS),
        sample=job.sample,
        key=None if job.sample is None else sample_key,
        log=lambda step, metrics: way.advance(step),
    )
    if result.steps == 0:
        raise KeyboardInterrupt
    by_lane = lambda array: np.asarray(array).reshape(config.seeds, lanes, -1)
    found = jax.tree.map(by_lane, _for_all_seeds(job.evaluate)(result.params))
    lane, update = 0, job.update
    if job.rates:
        lane = chosen_rate(found.pop("validation")[..., 0])
        update = job.update.format(rate=job.rates[lane])
    scores = {name: each[:, lane, 0] for name, each in found.items()}
    steps, curve = _smooth(by_lane(result.values)[:, lane])
    row = Row(
        task=task,
        kind=job.kind,
        network=job.network,
        rule=job.rule,
        update=update,
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
    cut_short = {"cut_short": True} if result.interrupted else {}
    return dataclasses.asdict(row) | cut_short


@cache
def _for_all_seeds(function: Callable) -> Callable:
    """Return `function` under `vmap` over seeds; it is compiled once for all jobs."""
    return jax.jit(jax.vmap(function))


def _smooth(values: np.ndarray, points: int = 20) -> tuple[list[int], np.ndarray]:
    """Split the updates into pieces; return each piece's last update and mean losses.

    The losses `values` have the shape [seeds, updates]. The mean losses have the shape
    [seeds, pieces].
    """
    pieces = np.array_split(np.arange(values.shape[1]), min(points, values.shape[1]))
    means = np.stack([values[:, piece].mean(axis=1) for piece in pieces], axis=1)
    return [int(piece[-1]) + 1 for piece in pieces], means


def _as_list(array: Any) -> list[float]:
    return np.asarray(array, float).tolist()
