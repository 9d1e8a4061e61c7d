"""Networks, losses and updates of the study spiking, for both tasks."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, gradients
from bpvariants.types import PyTree, Step
from experiments.networks import spiking
from experiments.online import _spiking_tasks
from experiments.online._spiking_tasks import Batch

REGULARISATION, RATE = 300.0, 0.01  # c_reg, and the wanted spikes per step f*
ADAM = 5e-3  # learning rate
# {name of a rule: (factory, whether the readout sends errors back by random weights)}
RULES: dict[str, tuple[Callable, bool]] = {
    "bptt": (gradients.bptt, False),
    "rtrl": (gradients.rtrl, False),
    "eprop": (partial(gradients.eprop, visible=spiking.visible), False),
    "eprop, random feedback": (partial(gradients.eprop, visible=spiking.visible), True),
    "rflo": (gradients.rflo, False),
}


class Task(NamedTuple):
    """A task, the network that is trained on it, and its gradient rule."""

    params: PyTree
    batches: Iterator[Batch]
    step: Step
    carry: Callable[[int], PyTree]  # number of examples -> carry before the first step
    rule: Callable  # as `gradients.bptt` returns; the loss includes the penalty
    scale: float  # the task's loss is `scale` times the mean over steps and examples
    descent: optax.GradientTransformation  # the update of the reference program


def make_task(
    name: str, rule: str, units: int = 100, size: int = 1, seed: int = 1
) -> Task:
    """Return the task "regression" or "evidence" for a rule in `RULES`.

    With the defaults, the network and its draws are those of the reference programs.
    """
    make, random = RULES[rule]
    of_regression = name == "regression"
    if of_regression:
        weights, batches = _spiking_tasks.regression(units, seed)
        T, kind = 1000, cells.lif
        cell = partial(kind, tau=30.0, threshold=0.03, normalise=True)
        scale, tau_readout, loss = float(T), 30.0, spiking.squared_error
    else:
        weights, batches = _spiking_tasks.evidence(size, units, seed)
        T, kind = _spiking_tasks.STEPS, cells.alif
        cell = partial(
            kind, tau=20.0, threshold=0.6, refractory=5, tau_adaptation=2000.0,
            beta=_betas(units),
        )  # fmt: skip
        scale, tau_readout = T / _spiking_tasks.RECALL, 20.0
        loss = spiking.cross_entropy
    cell_params = {"inputs": weights.inputs, "recurrent": weights.recurrent}
    params = {"cell": cell_params, "readout": weights.readout}
    params = jax.tree.map(jnp.asarray, params)
    feedback = jnp.asarray(weights.feedback) if random else None
    step = spiking.spiking_step(cell, tau_readout, feedback)
    carry = lambda size: spiking.first_carry(kind.carry(params["cell"], (size,)))
    whole = spiking.spiking_loss(loss, T, REGULARISATION, RATE)
    rule_of = make(step, whole)
    if hasattr(rule_of, "update"):
        rule_of = gradients.over_sequence(rule_of)
    descent = optax.sgd(1e-4) if of_regression else adam(ADAM)
    return Task(params, batches, step, carry, rule_of, scale, descent)


def learn(task: Task, descent: optax.GradientTransformation) -> Callable:
    """Return a compiled function (params, opt_state, xs, targets) -> results.

    The results are the task's loss before the update, the gradient, params, opt_state.
    """

    @jax.jit
    def run(params, opt_state, xs, targets):
        carry = task.carry(xs.shape[1])
        (value, last), grads = task.rule(params, carry, xs, targets)
        penalties = spiking.penalty(last.counts, len(xs), REGULARISATION, RATE)
        value = task.scale * (value - jnp.mean(penalties) / len(xs))
        grads = jax.tree.map(lambda g: task.scale * g, grads)
        change, opt_state = descent.update(grads, opt_state, params)
        return value, grads, optax.apply_updates(params, change), opt_state

    return run


def inputs_of(batch: Batch) -> tuple[jax.Array, spiking.Target]:
    """Return the inputs and the targets of a batch, with the flags of its losses."""
    T, size = batch.xs.shape[:2]
    flags = np.stack([batch.counts, np.arange(T) == T - 1])
    counts, last = (np.broadcast_to(flag[:, None], (T, size)) for flag in flags)
    parts = map(jnp.asarray, (batch.targets, counts, last))
    return jnp.asarray(batch.xs), spiking.Target(*parts)


def adam(rate: float, mean: float = 0.9, square: float = 0.999) -> Any:
    """Return Adam in its first form, as TensorFlow has it.

        θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) m / (√v + 10⁻⁸)

    η is the rate, m and v are the running means of the gradient and of its square.
    Unlike in `optax.adam`, the correction of v does not apply to 10⁻⁸. The gradients
    of a spiking network are so small that this matters.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros, zeros

    def update(updates, state, params=None):
        del params
        t, m, v = state
        t = t + 1
        run = lambda old, new, share: share * old + (1 - share) * new
        m = jax.tree.map(lambda m, g: run(m, g, mean), m, updates)
        v = jax.tree.map(lambda v, g: run(v, g * g, square), v, updates)
        count = t.astype(jax.tree.leaves(updates)[0].dtype)
        eta = rate * jnp.sqrt(1 - square**count) / (1 - mean**count)
        change = jax.tree.map(lambda m, v: -eta * m / (jnp.sqrt(v) + 1e-8), m, v)
        return change, (t, m, v)

    return optax.GradientTransformation(init, update)


def _betas(units: int) -> np.ndarray:
    """Return the weights of the adaptation: 0 for the first half of the neurons."""
    beta = 1.7 * (1 - np.exp(-1 / 2000)) / (1 - np.exp(-1 / 20))
    return np.where(np.arange(units) < units // 2, 0.0, beta)
