"""MNIST by feedback alignment: errors beside published ones, and angles on the way.

A network of LeNet's shape: convolutions 5 × 5 to 6 and 16 channels, each with relu and
2 × 2 maximum pooling, then 120, 84 and 10 units. It is trained by backpropagation and
by the rules that put other weights into its way back. Angles are between a rule's
∂E/∂w of a layer and the exact one, of the same images and weights.

The published errors are those of 100 epochs of SGD with momentum, and of the best epoch
on the test images (Sanfiz & Akrout 2021; these settings of theirs are second-hand). For
as long, on a GPU, which was not tried yet:
`python -m experiments alignment --epochs 100 --seeds 3`.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import training
from bpvariants.types import PyTree
from experiments import data, report
from experiments.harness.options import at_quick_size, check_at_least_one, check_known
from experiments.static import _alignment_report
from experiments.static._feedback_rules import (
    alignment_weights,
    make_angles,
    make_rule,
    RULES,
)
from experiments.static._lenet import init, logits

# Of SGD with momentum 0.9: the best or the second best of 0.0005 … 0.05, by the errors
# of one seed on 4000 of the test images after 400 or 1200 steps; less where twice as
# much learns nothing, as for FA, DFA and brSF.
RATES = {"bp": 0.02, "fa": 0.003, "dfa": 0.001, "usf": 0.02, "brsf": 0.005}
RATES |= {"frsf": 0.02}
DECAY = 1e-3
LOOKS = 8  # at test errors and angles on the way, besides that before the training
SHOWN, PART = 256, 500  # images for angles, and test images at once
QUICK = {"images": 4000, "epochs": 2.5, "seeds": 1, "test": 2000}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train LeNet on MNIST by backpropagation and by five rules beside it."""

    rules: tuple[str, ...] = RULES
    """Which of bp, fa, dfa, usf, brsf and frsf."""
    epochs: float = 1.0
    """How often the images are gone through; the learning rate falls to a tenth at a
    half and again at three quarters of it."""
    images: int = 60_000
    """How many of the images to train on."""
    batch: int = 64
    """Images of a step, drawn at random."""
    test: int = 10_000
    """How many of the test images to look at."""
    rate: float = 1.0
    """A factor on the learning rates of all rules."""
    seeds: int = 2
    """Independent trainings, together."""
    quick: bool = False
    """Less than a minute: 4000 images, 2.5 epochs, one seed, 2000 test images."""
    out: Path | None = None
    """Folder to write to; by default runs/alignment-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "images", "batch", "test", "seeds")
        for name in ("epochs", "rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        check_known("rules", self.rules, RULES)
        if not self.rules:
            raise ValueError(f"rules must be some of {', '.join(RULES)}; got none.")


def main(config: Config) -> report.Result:
    """Train by each rule, show errors and angles, and write them to a folder."""
    config = at_quick_size(config, **QUICK)
    folder = report.make_folder("alignment", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    digits = _standardised(data.mnist(), config)
    look = jax.jit(jax.vmap(_wrong, in_axes=(0, None, None)))
    try:
        with report.Progress(len(config.rules)) as progress:
            for rule in config.rules:
                progress.begin(rule, _steps(config))
                row, stopped = _row(config, rule, digits, look, progress.advance)
                if row is not None:
                    rows.append(row)
                    report.append_row(folder, row)
                if stopped:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    _alignment_report.show(rows, config)
    if rows:
        report.save_picture(folder, "errors", _alignment_report.draw_errors(rows))
        report.save_picture(folder, "angles", _alignment_report.draw_angles(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _standardised(digits: data.MNIST, config: Config) -> data.MNIST:
    """Return images [N, 28, 28, 1] of mean 0 and deviation 1, over those to train."""
    train, test = digits
    chosen = train[0][: config.images]
    mean, deviation = chosen.mean(), chosen.std()
    move = lambda images: ((images - mean) / deviation)[..., None]
    return data.MNIST(
        (move(chosen), train[1][: config.images]),
        (move(test[0][: config.test]), test[1][: config.test]),
    )


def _steps(config: Config) -> int:
    """Return how many steps, a multiple of how often to look."""
    return LOOKS * max(1, round(config.epochs * config.images / config.batch / LOOKS))


def _row(
    config: Config, rule: str, digits: data.MNIST, look: Callable, advance: Callable
) -> tuple[dict[str, Any] | None, bool]:
    """Train by one rule; return its row, and whether Ctrl-C ended it."""
    steps = _steps(config)
    examples = tuple(map(jnp.asarray, digits.train))
    of_params, of_rule = jax.random.split(jax.random.key(0))
    params = jax.vmap(init)(jax.random.split(of_params, config.seeds))
    keys = jax.random.split(of_rule, config.seeds)
    feedback = jax.vmap(partial(alignment_weights, rule))(keys, params)
    images, labels = (part[:SHOWN] for part in examples)
    angles = jax.jit(jax.vmap(make_angles(rule, images, labels)))
    errors, found = [], []

    def watch(step, metrics):
        errors.append(_test_errors(look, metrics["params"], digits.test))
        found.append(angles(metrics["params"], feedback, keys))
        advance(step)

    watch(0, {"params": params})
    result = training.fit(
        _with_carry(make_rule(rule)),
        _optimizer(config.rate * RATES[rule], steps),
        params,
        examples,
        steps=steps,
        chunk=steps // LOOKS,
        sample=partial(_sample, config.batch),
        key=jax.random.key(1),
        carry={"feedback": feedback},
        runs=config.seeds,
        log=watch,
    )
    if not result.steps:
        return None, result.interrupted
    a_look = config.batch * (steps // LOOKS) / len(examples[0])
    row = {"rule": rule, "error": errors[-1].tolist()}
    row |= {"best": np.min(errors, axis=0).tolist()}
    row |= {"epochs": [a_look * i for i in range(len(errors))]}
    row |= {"errors": np.stack(errors, axis=1).tolist()}  # [seeds, looks]
    for name in ("deltas", "grads"):  # [seeds, looks, layers], None where one is 0
        values = np.stack([getattr(each, name) for each in found], axis=1)
        row[name] = np.where(np.isnan(values), np.array(None), values).tolist()
    row |= {"steps": result.steps, "ms_per_step": 1000 * result.seconds / result.steps}
    row |= {"compile_seconds": result.compile_seconds, "temp_bytes": result.temp_bytes}
    return row, result.interrupted


def _with_carry(rule: Callable) -> Callable:
    """Return the rule as `training.fit` takes it: its feedback is the carry."""

    def call(params, carry, images, labels, key):
        (value, _), grads = rule(params, carry["feedback"], images, labels, key)
        return (value, carry), grads

    return call


def _sample(batch: int, key: jax.Array, examples: PyTree) -> tuple:
    """Draw images, labels, and a key for the rule."""
    of_batch, of_rule = jax.random.split(key)
    at = jax.random.randint(of_batch, (batch,), 0, len(examples[0]))
    return *(leaf[at] for leaf in examples), of_rule


def _optimizer(rate: float, steps: int) -> optax.GradientTransformation:
    falls = {steps // 2: 0.1, 3 * steps // 4: 0.1}
    schedule = optax.piecewise_constant_schedule(rate, falls)
    sgd = optax.sgd(schedule, momentum=0.9)
    return optax.chain(optax.add_decayed_weights(DECAY), sgd)


def _wrong(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return how many images are taken for another digit."""
    return jnp.sum(jnp.argmax(logits(params, images), axis=-1) != labels)


def _test_errors(look: Callable, params: PyTree, test: PyTree) -> np.ndarray:
    """Return the error of each seed, %."""
    count = len(test[1])
    parts = [slice(i, i + PART) for i in range(0, count, PART)]
    wrong = sum(look(params, *(leaf[part] for leaf in test)) for part in parts)
    return 100 * np.asarray(wrong) / count
