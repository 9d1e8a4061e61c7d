"""Rprop on mini-batches: why it fails, and which updates do not fail.

A small network is trained on handwritten digits. In each epoch, the images are
partitioned into mini-batches in a new random order. If the weights did not change, the
mean of the mini-batch gradients of an epoch would be the full-batch gradient.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import updates
from experiments import data, report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given
from experiments.harness.study import run_study, Study
from experiments.resilient import _rprop_minibatch_report
from experiments.resilient._digits_mlp import digits_mlp, Network

FULL, MINI = "full", "mini"
PROBABILISTIC = "probabilistic_rprop"


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Why does Rprop fail on mini-batches, and which update rules do not fail?

    All update rules train for the same number of epochs. For each update rule, the best
    value of the list `rates` is used: as initial step size Δ₀ for Rprop, as learning
    rate for Adam.
    """

    QUICK = {"seeds": 2, "epochs": 10, "rates": (0.01, 0.1)}
    CHECKS = {"epochs batch": at_least(1), "rates": all_of(given, above(0))}

    seeds: int = 4
    """Number of runs of each method, with different initial weights, trained
    together."""
    epochs: int = 50
    """Number of passes through the training images."""
    batch: int = 64
    """Number of images in a mini-batch. Images that are left over after the last
    full mini-batch are not used by any method."""
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    """Values to choose from: initial step sizes or learning rates. The table shows each
    method at its best value."""

    def check(self) -> None:
        """Check that there are enough training images for one mini-batch."""
        most = len(data.digits().train[1])
        if self.batch > most:
            raise ValueError(f"batch must be at most {most}, got {self.batch}.")


class Method(NamedTuple):
    """An update rule, and the kind of batches that it trains on."""

    name: str
    batches: str  # FULL or MINI
    make: Callable[[jax.Array], optax.GradientTransformation]  # rate -> update
    updates: int  # number of updates of the weights in an epoch
    min_step_size: float | None = 1e-6


class Epochs(NamedTuple):
    """Measurements after each epoch, [..., epochs]; NaN where a method has none."""

    loss: Any  # loss on all training images
    accuracy: Any  # test accuracy in percent
    median_step: Any  # median of the step sizes Δ
    at_min: Any  # fraction of step sizes that are at the lower limit Δ_min
    flips: Any  # fraction of gradient elements that changed sign at the last update


class Setting(NamedTuple):
    """Network, data, initial weights, and orders of images; all methods share them."""

    network: Network
    train: tuple[jax.Array, jax.Array]  # images and labels, in whole mini-batches
    test: tuple[jax.Array, jax.Array]
    starts: jax.Array  # [seeds, weights], initial weights
    orders: jax.Array  # [seeds, epochs, images], a permutation for each epoch


def methods(batches: int) -> list[Method]:
    """Return the methods to compare, for epochs of `batches` mini-batches."""

    def added_up(rate):
        steps = optax.MultiSteps(updates.rprop(rate), every_k_schedule=batches)
        return steps.gradient_transformation()

    expected = partial(updates.probabilistic_rprop, move="expected")
    return [
        Method("rprop", FULL, updates.rprop, 1),
        Method("rprop", MINI, updates.rprop, batches),
        Method("rprop_minus", MINI, updates.rprop_minus, batches),
        Method(f"MultiSteps(rprop, {batches})", MINI, added_up, 1),
        Method(PROBABILISTIC, MINI, updates.probabilistic_rprop, batches, 1e-9),
        Method(f'{PROBABILISTIC}, "expected"', MINI, expected, batches, 1e-9),
        Method("adam", MINI, optax.adam, batches, None),
    ]


def main(config: Config) -> report.Result:
    """Run all methods; print each method's results at its best rate."""
    return run_study("rprop_minibatch", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    setting = set_up(config)
    return [
        Job(
            f"{method.name}, {method.batches} batches",
            1,
            partial(_train, method, config, setting),
        )
        for method in methods(len(setting.train[1]) // config.batch)
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    images = len(data.digits().train[1]) // config.batch * config.batch
    _rprop_minibatch_report.show(rows, images)
    _rprop_minibatch_report.draw(folder, rows)


def _train(method: Method, config: Config, setting: Setting, way: Way) -> list[Row]:
    """Train by one method; return a row of results for each rate."""
    return _rows(method, config, run(method, config, setting))


def set_up(config: Config) -> Setting:
    """Load the digits; draw initial weights, and an order of images for each epoch."""
    network, (train, test) = digits_mlp(), jax.tree.map(jnp.asarray, data.digits())
    images = len(train[1]) // config.batch * config.batch
    train = jax.tree.map(lambda part: part[:images], train)

    @jax.jit
    @jax.vmap
    def draw(key):
        init_key, order_key = jax.random.split(key)
        keys = jax.random.split(order_key, config.epochs)
        order = lambda key: jax.random.permutation(key, images)
        return network.init(init_key), jax.lax.map(order, keys)

    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    return Setting(network, train, test, *draw(keys))


def run(method: Method, config: Config, setting: Setting) -> Epochs:
    """Train networks of all rates and seeds together; return measurements.

    The measurements have the shape [rates, seeds, epochs].
    """
    network, (images, labels) = setting.network, setting.train
    size = config.batch if method.batches == MINI else len(labels)

    def training(rate, weights, orders):
        optimizer = method.make(rate)

        def step(carry, chosen):
            weights, state = carry
            grads = jax.grad(network.loss)(weights, images[chosen], labels[chosen])
            change, state = optimizer.update(grads, state, weights)
            return (optax.apply_updates(weights, change), state), None

        def epoch(carry, order):
            weights, state = jax.lax.scan(step, carry, order.reshape(-1, size))[0]
            loss = network.loss(weights, images, labels)
            accuracy = network.accuracy(weights, *setting.test)
            return (weights, state), Epochs(loss, accuracy, *_look(method, state))

        return jax.lax.scan(epoch, (weights, optimizer.init(weights)), orders)[1]

    of_rate = jax.vmap(training, in_axes=(None, 0, 0))
    of_all = jax.jit(jax.vmap(of_rate, in_axes=(0, None, None)))
    seen = of_all(jnp.array(config.rates), setting.starts, setting.orders)
    return jax.tree.map(np.asarray, seen)


def _look(method: Method, state: Any) -> tuple[Any, Any, Any]:
    """Return the median step size, and two fractions; NaN where they are not known.

    The fractions are of step sizes that are at their lower limit, and of gradient
    elements that changed sign at the last update.
    """
    unknown = jnp.array(jnp.nan)
    if method.min_step_size is None:
        return unknown, unknown, unknown
    if method.name.startswith(PROBABILISTIC):  # the state has no signs of gradients
        steps = optax.tree.get(state, "step_sizes")
        return jnp.median(steps), jnp.mean(steps <= method.min_step_size), unknown
    seen = updates.rprop_report(state, min_step_size=method.min_step_size)
    (name,) = seen.sizes  # all weights are in one vector
    return seen.step_sizes[name][2], seen.at_min[name], seen.flips[name]


def _rows(method: Method, config: Config, seen: Epochs) -> list[Row]:
    """Return a row of results for each rate; the best rate's row has "best": True."""
    final = seen.loss[..., -1].mean(axis=1)
    best = int(np.argmin(np.where(np.isfinite(final), final, np.inf)))
    return [
        {
            "method": method.name,
            "batches": method.batches,
            "batch": config.batch if method.batches == MINI else None,
            "rate": rate,
            "best": i == best,
            "updates": method.updates * config.epochs,
            **{
                name: [[_known(x) for x in run] for run in each[i].tolist()]
                for name, each in seen._asdict().items()
            },
        }
        for i, rate in enumerate(config.rates)
    ]


def _known(x: float) -> float | None:
    """Return a value, or None for NaN and inf, because JSON has no NaN and inf."""
    return x if np.isfinite(x) else None
