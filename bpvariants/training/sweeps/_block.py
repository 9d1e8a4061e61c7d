"""Functions that train a block of a sweep: runs that train together under `vmap`."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants.training.sweeps._compile import Block
from bpvariants.training.sweeps._lanes import DIVERGED, RUNNING, STATUS
from bpvariants.training.sweeps._runs import COLUMNS, Group, Run
from bpvariants.types import PyTree


class Clock:
    """Clock that calls `progress` with the number of ended runs and the time left."""

    def __init__(self, progress: Callable | None, steps: int, runs: int, ended: int):
        self.seconds, self._taken = 0.0, 0  # seconds and steps of all runs so far
        self._progress, self._steps = progress, steps
        self._runs, self._ended = runs, ended

    def tell(self, taken: int, lanes: int, steps_left: int, ended: int) -> None:
        """Count `taken` more steps of each run of the block, and call `progress`."""
        self._taken += taken * lanes
        if self._progress is not None:
            others = (self._runs - self._ended - lanes) * self._steps
            left = others + lanes * (steps_left if ended < lanes else 0)
            rate = self.seconds / self._taken if self._taken else math.nan
            self._progress(self._ended + ended, self._runs, left * rate)

    def end(self, lanes: int) -> None:
        """Count the runs of a block as ended."""
        self._ended += lanes


def stacked(group: Group, runs: Sequence[Run], size: int) -> tuple[PyTree, jax.Array]:
    """Return the float fields and keys of `size` runs; repeat the last run if needed.

    The floats are weakly typed, so that they behave like Python floats in make_run.
    """
    runs = [runs[min(i, len(runs) - 1)] for i in range(size)]
    stack = lambda values: jnp.stack([jnp.asarray(value) for value in values])
    floats = {name: stack(run.fields[name] for run in runs) for name in group.traced}
    seeds = jnp.asarray(np.array([run.seed for run in runs], np.uint32))
    return floats, jax.vmap(jax.random.key)(seeds)


def run_block(
    block: Block,
    group: Group,
    runs: Sequence[Run],
    steps: int,
    chunk: int,
    curves: bool,
    clock: Clock,
) -> list[dict[str, Any]]:
    """Train at most `block.size` runs; return each run's row of the sweep's table."""
    floats, keys = block.put(stacked(group, runs, block.size))
    begin = time.perf_counter()
    lanes, before = block.start(floats, keys), clock.seconds
    points = []
    for first in range(0, steps, chunk):
        last = min(first + chunk, steps)
        lanes = block.advance(floats, keys, lanes, np.int32(first), np.int32(last))
        status = np.asarray(lanes.status)[: len(runs)]
        if curves:
            points.append(jax.device_get((lanes.steps, lanes.metrics)))
        clock.seconds = before + time.perf_counter() - begin
        ended = int(np.sum(status != RUNNING)) if last < steps else len(runs)
        clock.tell(last - first, len(runs), steps - last, ended)
        if ended == len(runs):
            break
    evaluated = (
        {} if block.evaluate is None else block.evaluate(floats, keys, lanes.state)
    )
    status, taken, metrics, evaluated = jax.device_get(
        (lanes.status, lanes.steps, lanes.metrics, evaluated)
    )
    clock.seconds = before + time.perf_counter() - begin
    clock.end(len(runs))
    _check_names(group, metrics, evaluated)
    rows = []
    for i, run in enumerate(runs):
        is_bad = status[i] == DIVERGED
        after = {name: math.nan if is_bad else v[i] for name, v in evaluated.items()}
        measured = {name: values[i] for name, values in metrics.items()} | after
        row = run.fields | {
            "seed": run.seed,
            "status": STATUS[status[i]],
            "steps": int(taken[i]),
            "limit": steps,
            "seconds": (clock.seconds - before) / len(runs),
            **{name: _number(value) for name, value in measured.items()},
        }
        rows.append(row | ({"curve": _curve(points, i)} if curves else {}))
    return rows


def _curve(points: list[tuple], lane: int) -> dict[str, list]:
    """Return a run's metrics after each chunk of steps, until the run has ended."""
    curve: dict[str, list] = {"step": []}
    for taken, metrics in points:
        if curve["step"][-1:] == [int(taken[lane])]:
            break  # the run ended in an earlier chunk
        curve["step"].append(int(taken[lane]))
        for name, values in metrics.items():
            curve.setdefault(name, []).append(_number(values[lane]))
    return curve


def _number(value: Any) -> Any:
    """Convert a value to a Python number; infinity becomes NaN.

    The file of a sweep stores NaN as null, but cannot store infinity.
    """
    number = value.item() if hasattr(value, "item") else value
    is_bad = isinstance(number, float) and not math.isfinite(number)
    return math.nan if is_bad else number


def _check_names(group: Group, metrics: dict, evaluated: dict) -> None:
    fields = [*COLUMNS, *group.static, *group.traced]
    for name in [*metrics, *evaluated]:
        if name in fields or (name in metrics and name in evaluated):
            raise ValueError(
                f"a metric {name!r} has the name of another column of the table "
                f"({', '.join([*fields, *metrics])}); give it another name."
            )
