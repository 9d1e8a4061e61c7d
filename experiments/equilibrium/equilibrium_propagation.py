"""Equilibrium propagation beside backpropagation, on MNIST.

    hidden ← σ(U image + V out + b),  out ← σ(Vᵀ hidden + c),  σ(u) = sigmoid(4 u − 2)

The network has 784 inputs, 512 hidden units and 10 outputs, like P-1h of Ernoult et al.
2019. The free phase has 40 steps and the nudged phase 15 steps, with β = 0.1 in one
direction, or in both. All rules train from the same initial weights on the same
batches, by SGD.

- "bptt": truncated backpropagation of the loss after 40 steps, through the last 15 of
  them. Equilibrium propagation approximates this gradient.
- "rbp": recurrent backpropagation, the exact gradient at the fixed point. It assumes
  that the state settles; the study measures how far it is from settled.
- "ep", "ep one-sided": equilibrium propagation.
- "rbp asymmetric", "ep asymmetric": the weights back from the outputs to the hidden
  units are matrices of their own, so that the Jacobian is not symmetric. Recurrent
  backpropagation is still exact there.

This study applies the nudging inside σ, so that the limit β → 0 is the exact gradient.
To train with as many steps as the paper, run `python -m experiments
equilibrium_propagation --rules bptt ep --train 50000 --valid 10000 --test 10000
--epochs 30 --seeds 3`.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import updates
from bpvariants.types import PyTree
from experiments import data, report
from experiments.equilibrium import _equilibrium_propagation_report as results
from experiments.equilibrium._nudged_network import (
    initial_weights,
    relax,
    rule_of,
    RULES,
    start,
)
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least, known
from experiments.harness.study import run_study, Study

RATES = {"U": 0.04, "b": 0.04, "V": 0.08, "c": 0.08, "B": 0.08}
PARTS = 10  # a training has at least this many parts; errors are measured after each
SETTLED = 1e-3  # a state with a larger residual has not settled
IMAGES = 60_000  # training images of MNIST


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Train by equilibrium propagation and by backpropagation, with equal seeds."""

    QUICK = {"train": 400, "valid": 200, "test": 200, "hidden": 32, "epochs": 1}
    CHECKS = {
        "hidden batch epochs train valid test": at_least(1),
        "rate": above(0),
        "max_norm": above(0),
        "rules": known(RULES),
    }

    rules: tuple[str, ...] = RULES
    """Rules to train with."""
    hidden: int = 512
    """Number of hidden units; 512 in the paper."""
    epochs: int = 2
    """Number of passes through the training images."""
    batch: int = 20
    """Number of images in a mini-batch."""
    rate: float = 1.0
    """Factor of the learning rates, 0.04 for U and 0.08 for V."""
    max_norm: float | None = None
    """Largest spectral norm of V after an update; below 1, every state settles."""
    train: int = 5000
    """Number of training images, the first ones of 60,000."""
    valid: int = 2000
    """Number of validation images, the last ones of 60,000."""
    test: int = 2000
    """Number of test images, the first ones of 10,000."""

    def check(self) -> None:
        """Check that no image is used for both training and validation."""
        if self.train + self.valid > IMAGES:
            raise ValueError(
                f"train + valid must be at most {IMAGES}, the number of training "
                f"images of MNIST, got {self.train} + {self.valid}."
            )


def main(config: Config) -> report.Result:
    """Train by each rule; show test errors, and cosines to the gradient of bptt."""
    check = lambda config: data.mnist()
    return run_study("equilibrium_propagation", config, _jobs, _finish, check=check)


def _jobs(config: Config) -> list[Job]:
    digits = data.mnist()
    cut = lambda part, which: (part[0][which].reshape(-1, 784), part[1][which])
    sets = (
        cut(digits.train, slice(config.train)),
        cut(digits.train, slice(-config.valid, None)),
        cut(digits.test, slice(config.test)),
    )
    parts = max(PARTS, config.epochs)
    return [
        Job(f"{rule}-{seed}", parts, partial(_train, config, rule, seed, sets))
        for rule in config.rules
        for seed in range(config.first_seed, config.first_seed + config.seeds)
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    results.show(rows)
    report.save_picture(folder, "equilibrium_propagation", results.draw(rows))


def _train(config: Config, name: str, seed: int, sets: tuple, way: Way) -> Row:
    """Train by one rule; return errors, losses, cosines to bptt, and residuals."""
    (images, labels), valid, test = jax.tree.map(jnp.asarray, sets)
    params = initial_weights(jax.random.key(seed), config.hidden, "asymmetric" in name)
    labels, rule, look = jax.nn.one_hot(labels, 10), rule_of(name), _look(name)

    optimizer = _optimizer(config, params)

    @jax.jit
    def fit(trained, batches, images, labels):
        return jax.lax.scan(partial(update, images, labels), trained, batches)

    def update(images, labels, trained, batch):
        (params, state), x, target = trained, images[batch], labels[batch]
        (value, _), grads = rule(params, start(params, x), x, target)
        change, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, change), state), value

    few, state = (images[:100], labels[:100]), optimizer.init(params)
    looks = [look(params, few, valid, test)]
    curve, batches = [], _batches(config, seed, len(images))
    for done, part in enumerate(_parts(config, batches), 1):
        (params, state), values = fit(
            (params, state), jnp.asarray(part), images, labels
        )
        curve.append(float(jnp.mean(values)))
        looks.append(look(params, few, valid, test))
        way.advance(done)
    cosines, valid_errors, errors, residuals, unsettled = np.array(looks).T.tolist()
    return {
        "rule": name, "seed": seed, "updates": len(batches), "values": curve,
        "errors": errors[1:], "error": errors[-1], "valid_errors": valid_errors[1:],
        "cosines": cosines, "residuals": residuals, "unsettled": unsettled,
    }  # fmt: skip


def _optimizer(config: Config, params: PyTree) -> optax.GradientTransformation:
    """Return SGD with a learning rate for each array, and a limit for V if asked."""
    sgd = {leaf: optax.sgd(config.rate * RATES[leaf]) for leaf in params}
    steps = [optax.partition(sgd, {leaf: leaf for leaf in params})]
    if config.max_norm is not None:
        limit = updates.project_spectral_norm(config.max_norm, steps=2)
        steps.append(optax.masked(limit, {leaf: leaf == "V" for leaf in params}))
    return optax.chain(*steps)


def _look(name: str):
    """Return a function to measure the cosine, both errors, and how states settle."""
    rule, bptt = rule_of(name), rule_of("bptt")

    def cosine(params, few):
        x, target = few
        a, b = (f(params, start(params, x), x, target)[1] for f in (rule, bptt))
        return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))

    def wrong(params, images, truth):
        h, residual = relax(params, images)
        missed = jnp.argmax(h["out"], -1) != truth
        return 100 * jnp.mean(missed), residual

    @jax.jit
    def measure(params, few, valid, test):
        error, residual = wrong(params, *test)
        unsettled = 100 * jnp.mean(residual > SETTLED)
        chosen_by = wrong(params, *valid)[0]
        return cosine(params, few), chosen_by, error, jnp.mean(residual), unsettled

    return lambda *arguments: tuple(map(float, measure(*arguments)))


def _batches(config: Config, seed: int, images: int) -> np.ndarray:
    order = np.random.default_rng(seed)
    each = images // config.batch * config.batch
    epochs = [order.permutation(images)[:each] for _ in range(config.epochs)]
    return np.concatenate(epochs).reshape(-1, config.batch)


def _parts(config: Config, batches: np.ndarray) -> list[np.ndarray]:
    return np.array_split(batches, min(max(PARTS, config.epochs), len(batches)))
