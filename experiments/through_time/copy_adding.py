"""The copy and adding tasks: losses, lowest losses without memory, and gradient flow.

Each cell is trained by BPTT, and one cell also by truncated BPTT. Let ℓ_T be the loss
of the last step T, and h_t the carry of step t. For each cell, the study measures the
norm ‖δ_t‖ of the gradient δ_t = ∂ℓ_T/∂h_t before and after training. If ‖δ_t‖ is tiny
at the steps that must be remembered, the gradient has vanished. To compute all δ_t in
one backward pass, the study adds zeros ε_t to the carries h_t, and differentiates ℓ_T
with respect to all ε_t.

The command for the sizes of the published table, on a GPU, is
`python -m experiments copy_adding --copy-length 1000 --adding-length 600 --units 128
--steps 20000`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import report
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import cells
from experiments.through_time import _copy_adding_report, _memory_tasks
from experiments.through_time._memory_tasks import MemoryTask

TASKS = ("copy", "adding")
SHOWN = 100  # number of sequences on which gradient norms are measured
# The training loss counts as below the floor (the lowest loss of a network without
# memory) if the mean of WINDOW losses is below BELOW · floor.
BELOW, WINDOW = 0.9, 100


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """Which recurrent cells learn the copy and adding tasks, which need memory?"""

    QUICK: ClassVar = {
        "tasks": ("adding",),
        "adding_length": 20,
        "lookbacks": (10,),
        "units": 16,
        "steps": 200,
        "seeds": 1,
    }
    CHECKS: ClassVar = {
        "tasks": all_of(given, known(TASKS)),
        "copy_length units batch steps lookbacks": at_least(1),
        "adding_length": at_least(2),
        "truncated_cell": known(cells.DENSE),
        "learning_rate": above(0),
    }

    tasks: tuple[str, ...] = TASKS
    """Tasks to learn, from copy and adding."""
    copy_length: int = 25
    """Number of blank steps of the copy task; 1000 in the published table. Sequences
    have 20 more steps."""
    adding_length: int = 60
    """Number of steps of the adding task; 600 in the published table."""
    lookbacks: tuple[int, ...] = (20, 40)
    """Lookbacks h of truncated BPTT, with windows of h/2 steps. To learn the copy task,
    h must be at least copy_length + 10."""
    truncated_cell: str = "lstm"
    """Cell that is also trained by truncated BPTT: tanh, gru or lstm."""
    units: int = 64
    """Number of units of each cell; about 128 gives the published network size."""
    batch: int = 32
    """Number of sequences in a mini-batch; each update draws new sequences."""
    steps: int = 2000
    """Number of Adam updates."""
    learning_rate: float = 3e-3
    """Learning rate of Adam; the tanh cell has a third of this rate. Gradients are
    clipped to a norm of 1."""
    seeds: int = 2
    """Number of independent training runs, under one vmap."""


def main(config: Config) -> report.Result:
    """Train all cells; show losses, lowest losses without memory, published losses."""
    return run_study("copy_adding", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job (training) for each task, cell and gradient rule."""
    tasks = {
        "copy": _memory_tasks.copy_memory(config.copy_length),
        "adding": _memory_tasks.adding(config.adding_length),
    }
    jobs = []
    for name in config.tasks:
        for cell, rule, make_rule in _trained(config):
            about = {"task": name, "cell": cell, "rule": rule}
            train = partial(_row, config, tasks[name], about, make_rule)
            jobs.append(Job(f"{name}-{cell}-{rule}", config.steps, train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _copy_adding_report.show(rows, config)
    report.save_picture(folder, "loss", _copy_adding_report.draw_losses(rows))
    report.save_picture(folder, "flow", _copy_adding_report.draw_flow(rows))


def _trained(config: Config) -> list[tuple[str, str, Callable]]:
    """Return (cell, name of the rule, function (step, loss) -> rule) for each training.

    To compare another gradient rule, add a triple to the list in this function.
    """
    trained: list[tuple[str, str, Callable]]
    trained = [(cell, "bptt", gradients.bptt) for cell in cells.DENSE]
    for lookback in config.lookbacks:
        every = max(1, lookback // 2)
        make_rule = partial(gradients.truncated_bptt, every=every, lookback=lookback)
        name = f"truncated_bptt, {report.window(lookback, every)}"
        trained.append((config.truncated_cell, name, make_rule))
    return trained


def _row(
    config: Config, task: MemoryTask, about: Row, make_rule: Callable, way: Way
) -> Row:
    """Train a cell by a rule from all seeds; return losses, gradient norms, times."""
    cell = about["cell"]
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    init = lambda key: cells.init(key, cell, task.inputs, config.units, task.outputs)
    params = jax.vmap(init)(keys)
    like = jax.eval_shape(init, keys[0])["cell"]
    carry = cells.CELLS[cell].carry(like, (config.batch,))
    rate = config.learning_rate * (1 / 3 if cell == "tanh" else 1)
    result = way.fit(
        make_rule(cells.make_step(cell), task.loss),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        params,
        (),
        steps=config.steps,
        chunk=min(100, config.steps),
        sample=lambda key, _: (carry, *task.draw(key, config.batch)),
        key=jax.random.key(config.first_seed + 1),
        runs=config.seeds,
        over=(0, 1, 1, 1),
    )
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
    row |= {"steps": result.steps, "temp_bytes": result.temp_bytes}
    return about | row | time_taken(result)


def _first_below(values: np.ndarray, bound: float) -> int | None:
    """Return the first update at which the mean of the last losses is below `bound`.

    The mean is over the last WINDOW losses. Return None if the mean is never below
    `bound`.
    """
    window = min(WINDOW, len(values))
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    found = np.flatnonzero(means < bound)
    return int(found[0]) + window if len(found) else None


def gradient_flow(task: MemoryTask, cell: str, params: cells.Params) -> jax.Array:
    """Return the norms ‖∂ℓ_T/∂h_t‖ for the carries h_t of all steps t, as an array [T].

    The loss of the last step is ℓ_T. The norms are averaged over sequences.
    """
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
