"""Copy memory and adding: who gets below the floor, and what flows back in time.

Each cell is trained by exact gradients, and one of them by truncated ones too. For
each cell, before and after training, ‖δ_t‖ = ‖∂ℓ_T/∂h_t‖ of the loss ℓ_T of the last
step shows whether anything of it reaches the steps that matter: zeros ε_t are added to
the carries, and the derivative in ε is all δ_t in one backward pass.

At the sizes of the published table, on a GPU:
`python -m experiments copy_adding --copy-length 1000 --adding-length 600 --units 128
--steps 20000`.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients, training
from experiments import report
from experiments.networks import cells
from experiments.through_time import _copy_adding_report, _memory_tasks
from experiments.through_time._memory_tasks import MemoryTask

SHOWN = 100  # examples on which δ is looked at
BELOW, WINDOW = (
    0.9,
    100,
)  # a mean over so many steps, of at most this share of the floor


@dataclasses.dataclass(frozen=True)
class Config:
    """Train tanh, GRU and LSTM to remember, by whole and by truncated gradients."""

    copy_length: int = 25
    """Blank steps of the copy task, whose sequences have 20 more; 1000 in the table."""
    adding_length: int = 60
    """Steps of the adding task; 600 in the table."""
    lookbacks: tuple[int, ...] = (20, 40)
    """Of truncated gradients, every half of it. Copying needs copy_length + 10 steps
    and more."""
    truncated_cell: str = "lstm"
    """The cell that is trained by truncated gradients too: tanh, gru or lstm."""
    units: int = 64
    """Of each cell; about 128 for the size of the table's networks."""
    batch: int = 32
    """Sequences of a step, newly drawn."""
    steps: int = 2000
    """Updates by Adam."""
    learning_rate: float = 3e-3
    """Of Adam; gradients are clipped to a norm of 1. tanh takes a third of it."""
    seeds: int = 2
    """Independent trainings, together."""
    out: Path | None = None
    """Folder to write to; by default runs/copy_adding-<time>."""

    def __post_init__(self):
        """Check the options."""
        least = {"copy_length": 1, "adding_length": 2, "units": 1, "batch": 1}
        for name, low in (least | {"steps": 1, "seeds": 1}).items():
            if getattr(self, name) < low:
                raise ValueError(
                    f"{name} must be at least {low}, got {getattr(self, name)}."
                )
        if not all(lookback >= 1 for lookback in self.lookbacks):
            raise ValueError(f"lookbacks must be at least 1, got {self.lookbacks}.")
        if self.truncated_cell not in cells.DENSE:
            raise ValueError(
                f"truncated_cell must be one of {', '.join(cells.DENSE)}; got "
                f"{self.truncated_cell!r}."
            )
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}."
            )


def main(config: Config) -> report.Result:
    """Train all, show them beside floors and the published table, and write them."""
    folder = report.make_folder("copy_adding", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    tasks = {
        "copy": _memory_tasks.copy_memory(config.copy_length),
        "adding": _memory_tasks.adding(config.adding_length),
    }
    jobs = [(task, *job) for task in tasks for job in _jobs(config)]
    try:
        with report.Progress(len(jobs)) as progress:
            for task, cell, rule, make_rule in jobs:
                progress.begin(f"{task}, {cell} by {rule}", config.steps)
                row, stopped = _row(
                    config, tasks[task], cell, make_rule, progress.advance
                )
                if row is not None:
                    rows.append({"task": task, "cell": cell, "rule": rule} | row)
                    report.append_row(folder, rows[-1])
                if stopped:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    _copy_adding_report.show(rows, config)
    if rows:
        report.save_picture(folder, "loss", _copy_adding_report.draw_losses(rows))
        report.save_picture(folder, "flow", _copy_adding_report.draw_flow(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _jobs(config: Config) -> list[tuple[str, str, Callable]]:
    """Return what each task is trained by: cell, rule, (step, loss) -> rule.

    Another rule is another line here.
    """
    jobs: list[tuple[str, str, Callable]]
    jobs = [(cell, "bptt", gradients.bptt) for cell in cells.DENSE]
    for lookback in config.lookbacks:
        every = max(1, lookback // 2)
        make_rule = lambda step, loss, every=every, lookback=lookback: (
            gradients.truncated_bptt(step, loss, every=every, lookback=lookback)
        )
        jobs.append((config.truncated_cell, f"({lookback}; {every})", make_rule))
    return jobs


def _row(
    config: Config, task: MemoryTask, cell: str, make_rule: Callable, advance: Callable
) -> tuple[dict[str, Any] | None, bool]:
    step = cells.make_step(cell)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    init = lambda key: cells.init(key, cell, task.inputs, config.units, task.outputs)
    params = jax.vmap(init)(keys)
    like = jax.eval_shape(init, keys[0])["cell"]
    carry = cells.CELLS[cell].carry(like, (config.batch,))
    rate = config.learning_rate * (1 / 3 if cell == "tanh" else 1)
    result = training.fit(
        make_rule(step, task.loss),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        params,
        (),
        steps=config.steps,
        chunk=min(100, config.steps),
        sample=lambda key, _: (carry, *task.draw(key, config.batch)),
        key=jax.random.key(1),
        runs=config.seeds,
        log=lambda step, metrics: advance(step),
    )
    if not result.steps:
        return None, result.interrupted
    width = max(1, result.steps // 50)
    whole = result.values[:, : result.steps // width * width]
    curve = whole.reshape(config.seeds, -1, width).mean(axis=2)
    flow = jax.jit(jax.vmap(lambda params: gradient_flow(task, cell, params)))
    row = {"floor": task.floor, "loss": result.values[:, -10 * width :].mean(axis=1)}
    row |= {"curve": curve, "curve_steps": width * (1 + np.arange(curve.shape[1]))}
    row |= {"flow_before": flow(params), "flow_after": flow(result.params)}
    row = {name: np.asarray(value, float).tolist() for name, value in row.items()}
    row |= {"below": [_first_below(run, BELOW * task.floor) for run in result.values]}
    row |= {"params": sum(leaf[0].size for leaf in jax.tree.leaves(params))}
    row |= {"steps": result.steps, "ms_per_step": 1000 * result.seconds / result.steps}
    row |= {"compile_seconds": result.compile_seconds, "temp_bytes": result.temp_bytes}
    return row, result.interrupted


def _first_below(values: np.ndarray, bound: float) -> int | None:
    """Return the step at which the mean of the last WINDOW is below; None if never."""
    window = min(WINDOW, len(values))
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    found = np.flatnonzero(means < bound)
    return int(found[0]) + window if len(found) else None


def gradient_flow(task: MemoryTask, cell: str, params: cells.Params) -> jax.Array:
    """Return ‖δ_t‖, t = 1 … T, of the last step's loss, a mean over examples, [T]."""
    advance, read = cells.CELLS[cell], cells.visible(cell)
    xs, targets, _ = task.draw(jax.random.key(2), SHOWN)
    carry = advance.carry(params["cell"], (SHOWN,))
    epsilon = jax.tree.map(lambda leaf: jnp.zeros((task.steps, *leaf.shape)), carry)

    def perturbed(params, carry, x_and_epsilon):
        x, epsilon = x_and_epsilon
        carry, _ = advance(params["cell"], carry, x)
        return jax.tree.map(jnp.add, carry, epsilon), None

    def losses(epsilon):
        last, _ = gradients.unroll(perturbed, params, carry, (xs, epsilon))
        return jnp.sum(task.loss(cells.readout(params, read(last)), targets[-1]))

    deltas = jax.tree.leaves(jax.grad(losses)(epsilon))
    norms = jnp.sqrt(sum(jnp.sum(delta**2, axis=-1) for delta in deltas))
    return jnp.mean(norms, axis=1)
