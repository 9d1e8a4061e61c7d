"""Training of many runs together under vmap, each with Prechelt's early stopping.

Epoch t changes the weights from w_{t−1} to w_t. The training error E_tr(t) is measured
at w_{t−1}, during the epoch. After each strip (5 epochs), the validation error E_va(t)
and the test error E_te(t) are measured at w_t. From these errors, two quantities are
computed, which decide whether to stop (α is a threshold):

    GL(t) = 100 (E_va(t) / min_{t′≤t} E_va(t′) − 1)                 generalisation loss
    P_5(t) = 1000 (mean E_tr / min E_tr − 1)  of the strip          progress
    stop if GL(t) > α, P_5(t) < 0.1, or t ≥ 3000.

The runs are the lanes of a vmap, which means that they are computed side by side. A run
that stops is frozen. When at most a quarter of the lanes are still active, the active
ones are gathered into a quarter of the lanes. The program is then compiled again for
this lower number of lanes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import updates
from bpvariants.types import PyTree
from experiments.data import Part, Proben1
from experiments.resilient._networks import Network

STRIP, MAX_EPOCHS, LEAST_PROGRESS = 5, 3000, 0.1
CHUNK = 20  # number of strips (5 epochs each) per call of the compiled program
FEWER = 4  # gather the active lanes (runs) when at most 1 in 4 is still active


class Settings(NamedTuple):
    """Settings of a training: initial weights, step sizes, threshold for stopping.

    The settings are a static argument of jit.
    """

    variant: str
    weights: float  # initial weights are drawn uniformly from −weights … weights
    step_sizes: tuple[float, float]  # initial step sizes are uniform in this range
    alpha: float  # training stops if the generalisation loss is above alpha
    eta_plus: float = 1.2
    max_epochs: int = MAX_EPOCHS


class Outcome(NamedTuple):
    """Quantities in Prechelt's tables, one value for each run."""

    train: Any  # lowest training error
    validation: Any  # lowest validation error
    test: Any  # test error at the epoch of the lowest validation error
    classification: Any  # % of test examples misclassified, at the same epoch as test
    gl: Any  # generalisation loss at the end of training
    total: Any  # total number of epochs
    relevant: Any  # number of epochs to the lowest validation error


class _Run(NamedTuple):
    params: PyTree
    opt_state: PyTree
    epoch: jax.Array
    active: jax.Array
    outcome: Outcome


def train(
    problem: Proben1,
    network: Network,
    settings: Settings,
    keys: jax.Array,
    advance: Callable[[int], None] = lambda epoch: None,
) -> Outcome:
    """Train one run for each key; call `advance` with the number of epochs so far."""
    parts = problem.train, problem.validation, problem.test
    parts = jax.tree.map(lambda examples: jnp.asarray(examples.T), parts)
    runs, lanes = _start_all(network, settings, keys), np.arange(len(keys))
    results = [np.zeros(len(keys)) for _ in Outcome._fields]
    epochs = 0
    while True:
        runs = _advance_all(network, settings, parts, runs)
        active = np.asarray(runs.active)
        for result, values in zip(results, runs.outcome, strict=True):
            result[lanes] = np.asarray(values)
        epochs += CHUNK * STRIP
        advance(epochs)
        if not active.any():
            return Outcome(*results)
        if active.sum() <= len(lanes) // FEWER:
            runs, lanes = _gather(runs, lanes, active)


def error(network: Network, params: PyTree, part: Part) -> jax.Array:
    """Return Prechelt's error: 100 times the mean squared error of outputs in 0..1."""
    outputs = network.apply(params, jnp.asarray(part.x))
    return 100 * jnp.mean((outputs - part.target) ** 2)


def _misclassified(network, params, part):
    outputs = network.apply(params, part.x)
    wrong = jnp.argmax(outputs, axis=0) != jnp.argmax(part.target, axis=0)
    return 100 * jnp.mean(wrong, dtype=jnp.float32)


def _optimizer(settings, step_sizes):
    make = getattr(updates, settings.variant)
    optimizer = make(step_sizes, eta_plus=settings.eta_plus, min_step_size=0.0)
    return optax.with_extra_args_support(optimizer)


@partial(jax.jit, static_argnums=(0, 1))
def _start_all(network, settings, keys):
    return jax.vmap(partial(_start, network, settings))(keys)


def _start(network, settings, key):
    weights_key, steps_key = jax.random.split(key)
    params = network.draw(weights_key, -settings.weights, settings.weights)
    step_sizes = network.draw(steps_key, *settings.step_sizes)
    worst = jnp.full((), jnp.inf, jnp.float32)
    nothing = jnp.zeros((), jnp.float32)
    outcome = Outcome(worst, worst, worst, nothing, nothing, *[jnp.int32(0)] * 2)
    opt_state = _optimizer(settings, step_sizes).init(params)
    return _Run(params, opt_state, jnp.int32(0), jnp.array(True), outcome)


@partial(jax.jit, static_argnums=(0, 1))
def _advance_all(network, settings, parts, runs):
    def advance(run):
        limit = run.epoch + CHUNK * STRIP
        go_on = lambda run: run.active & (run.epoch < limit)
        strip = partial(_strip, network, settings, parts)
        return jax.lax.while_loop(go_on, strip, run)

    return jax.vmap(advance)(runs)


def _strip(network, settings, parts, run):
    """Train one run for 5 epochs (a strip), then decide whether this run stops."""
    train, validation, test = parts
    optimizer = _optimizer(settings, 1.0)  # the step sizes are in the optimizer's state

    def epoch(params_and_state, _):
        params, state = params_and_state
        value, grads = jax.value_and_grad(partial(error, network))(params, train)
        change, state = optimizer.update(grads, state, params, value=value)
        return (optax.apply_updates(params, change), state), value

    start = run.params, run.opt_state
    (params, opt_state), errors = jax.lax.scan(epoch, start, length=STRIP)
    now, before, count = error(network, params, validation), run.outcome, run.epoch
    count = count + STRIP
    better = now < before.validation
    best = jnp.minimum(now, before.validation)
    gl = 100 * (now / best - 1)
    progress = 1000 * (jnp.mean(errors) / jnp.min(errors) - 1)
    stop = (gl > settings.alpha) | (progress < LEAST_PROGRESS)
    keep = lambda new, old: jnp.where(better, new, old)
    outcome = Outcome(
        train=jnp.minimum(before.train, jnp.min(errors)),
        validation=best,
        test=keep(error(network, params, test), before.test),
        classification=keep(
            _misclassified(network, params, test), before.classification
        ),
        gl=gl,
        total=count,
        relevant=keep(count, before.relevant),
    )
    active = ~stop & (count < settings.max_epochs)
    return _Run(params, opt_state, count, active, outcome)


def _gather(runs, lanes, active):
    """Keep a quarter of the lanes (runs): all active lanes, and some stopped lanes."""
    order = np.argsort(~active, kind="stable")[: len(lanes) // FEWER]
    return _take(runs, order), lanes[order]


@jax.jit
def _take(runs, order):
    return jax.tree.map(lambda leaf: leaf[order], runs)
