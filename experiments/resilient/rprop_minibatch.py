"""Rprop is for full batches: what mini-batches do to it, and what mends that.

A small network on handwritten digits. Batches tile each epoch, in an order that is
drawn anew, so that gradients added up over an epoch are those of the full batch.
"""

import dataclasses
import time
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
from experiments.resilient import _rprop_minibatch_report
from experiments.resilient._digits_mlp import digits_mlp, Network

FULL, MINI = "full", "mini"
PROBABILISTIC = "probabilistic_rprop"


@dataclasses.dataclass(frozen=True)
class Config:
    """Train by Rprop on full batches and on mini-batches, beside what works on those.

    Every update takes as many epochs, and has the best of the same rates: first step
    sizes Δ₀ of Rprop, learning rates of Adam.
    """

    seeds: int = 4
    """How many trainings of each, from different initial weights, under vmap."""
    epochs: int = 50
    """Passes through the training images."""
    batch: int = 64
    """Images of a mini-batch; what does not fill a last one is left out by all."""
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    """First step sizes, and learning rates, of which the best is shown."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    out: Path | None = None
    """Folder to write to; by default runs/rprop_minibatch-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("seeds", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        most = len(data.digits().train[1])
        if self.batch > most:
            raise ValueError(f"batch must be at most {most}, got {self.batch}.")
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be greater than 0, got {self.rates}.")


class Method(NamedTuple):
    """An update, and what it is given."""

    name: str
    batches: str  # FULL or MINI
    make: Callable[[jax.Array], optax.GradientTransformation]  # from Δ₀ or a rate
    updates: int  # of weights, an epoch
    min_step_size: float | None = 1e-6


class Epochs(NamedTuple):
    """What is seen at the end of each epoch, [..., epochs]; NaN if not known."""

    loss: Any  # of all training images
    accuracy: Any  # percent, test
    median_step: Any  # Δ
    at_min: Any  # share of Δ that are at Δ_min
    flips: Any  # share of gradients that changed their sign at the last update


def methods(batches: int) -> list[Method]:
    """Return what is compared; `batches` make an epoch."""

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
    """Run the comparison, show it, and write it to a folder."""
    folder = report.make_folder("rprop_minibatch", config.out)
    report.write_config(folder, config)
    setting = set_up(config)
    images = len(setting.train[1])
    chosen, rows, interrupted = methods(images // config.batch), [], False
    start = time.perf_counter()
    try:
        with report.Progress(len(chosen)) as progress:
            for method in chosen:
                progress.begin(f"{method.name}, {method.batches} batches", 1)
                seen = run(method, config, setting)
                for row in _rows(method, config, seen):
                    rows.append(row)
                    report.append_row(folder, row)
                progress.advance(1)
    except KeyboardInterrupt:
        interrupted = True
    if rows:
        _rprop_minibatch_report.show(rows, images)
        _rprop_minibatch_report.draw(folder, rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


class Setting(NamedTuple):
    """What all methods have in common."""

    network: Network
    train: tuple[jax.Array, jax.Array]  # images that fill batches, and labels
    test: tuple[jax.Array, jax.Array]
    starts: jax.Array  # [seeds, weights]
    orders: jax.Array  # [seeds, epochs, images], a permutation for each epoch


def set_up(config: Config) -> Setting:
    """Draw weights, and the order of images in every epoch."""
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
    """Train at every rate from every seed, together; arrays are [rates, seeds, …]."""
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
    """Return median Δ, the share at Δ_min, and that of flips, as far as there are."""
    unknown = jnp.array(jnp.nan)
    if method.min_step_size is None:
        return unknown, unknown, unknown
    if method.name.startswith(PROBABILISTIC):  # it has no signs to report
        steps = optax.tree.get(state, "step_sizes")
        return jnp.median(steps), jnp.mean(steps <= method.min_step_size), unknown
    seen = updates.rprop_report(state, min_step_size=method.min_step_size)
    (name,) = seen.sizes  # weights are one vector
    return seen.step_sizes[name][2], seen.at_min[name], seen.flips[name]


def _rows(method: Method, config: Config, seen: Epochs) -> list[dict]:
    """Return a line of results.jsonl for each rate; the best one says so."""
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
    """Return a number as JSON can have it."""
    return x if np.isfinite(x) else None
