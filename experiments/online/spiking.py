"""Spiking networks by e-prop: published losses, and other rules beside it.

The first part trains the two networks of Bellec et al. 2020, on regression and on
evidence accumulation, with random feedback and with a penalty on firing rates. The
losses of the first five updates are compared with those that the NEST simulator and the
original program in TensorFlow give. The second part trains smaller networks with the
same surrogate derivative by several rules, so that RTRL is affordable.

References:
  Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking
  neurons", Nature Communications 11, 2020, doi:10.1038/s41467-020-17236-y.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpvariants import gradients
from experiments import report
from experiments.harness.jobs import Job, Way
from experiments.harness.options import at_least, known
from experiments.harness.precision import double_precision
from experiments.harness.study import run_study, Study
from experiments.online import _spiking_report
from experiments.online._spiking_networks import (
    ADAM,
    adam,
    inputs_of,
    learn,
    make_task,
    RULES,
    Task,
)
from experiments.online._spiking_report import REFERENCES


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Does e-prop give the published losses, and how good are its gradients?"""

    QUICK = {
        "references": ("regression",),
        "rules": ("bptt", "eprop"),
        "units": 6,
        "updates": 2,
        "seeds": 1,
    }
    CHECKS = {
        "units": at_least(2),
        "updates batch": at_least(1),
        "references": known(tuple(REFERENCES)),
        "rules": known(tuple(RULES)),
    }

    references: tuple[str, ...] = tuple(REFERENCES)
    """Published trainings to repeat, of 100 neurons: regression, and evidence_1 and
    evidence_2 with one and with two sequences in a mini-batch."""
    rules: tuple[str, ...] = tuple(RULES)
    """Rules of the second part: bptt, rtrl, eprop, "eprop, random feedback", rflo. The
    first rule is the one with which the gradients of all others are compared."""
    units: int = 8
    """Number of neurons in the second part."""
    updates: int = 100
    """Number of updates in the second part, by Adam."""
    batch: int = 2
    """Number of sequences in a mini-batch of evidence accumulation, second part."""
    seeds: int = 3
    """Number of networks for each rule in the second part."""


def main(config: Config) -> report.Result:
    """Train the networks; print the losses and the agreement of gradients."""
    return run_study("spiking", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    jobs = [
        Job(f"published, {name}", 5, partial(_published, name))
        for name in config.references
    ]
    for task in ("regression", "evidence"):
        jobs += [
            Job(
                f"{task} by {rule}",
                config.seeds * config.updates,
                partial(_by_rule, config, task, rule),
            )
            for rule in config.rules
        ]
    return jobs


def _finish(folder: Path, config: Config, rows: list[dict[str, Any]]) -> None:
    _spiking_report.show(rows, config)
    if any("spikes" in row for row in rows):
        report.save_picture(folder, "spiking", _spiking_report.draw(rows))


def published_losses(name: str, updates: int = 5) -> tuple[list[float], Task, Any]:
    """Train a network of the reference programs; return losses, task and params."""
    task_name, _, size = name.partition("_")
    with double_precision():
        task = make_task(task_name, "eprop, random feedback", size=int(size or 1))
        losses, _, params = train(task, updates, task.descent)
    return losses, task, params


def train(
    task: Task, updates: int, descent: Any, way: Way | None = None, done: int = 0
) -> tuple[list[float], Any, Any]:
    """Return the losses, the gradient of the first update, and the last params."""
    run, params, losses, first = learn(task, descent), task.params, [], None
    opt_state = descent.init(params)
    for i in range(updates):
        xs, targets = inputs_of(next(task.batches))
        value, grads, params, opt_state = run(params, opt_state, xs, targets)
        losses.append(float(value))
        first = grads if first is None else first
        if way is not None:
            way.advance(done + i + 1)
    return losses, first, params


def _published(name: str, way: Way) -> dict[str, Any]:
    losses, task, params = published_losses(name)
    way.advance(5)
    with double_precision():
        batch = next(task.batches)
        xs, targets = inputs_of(batch)
        unroll = jax.jit(partial(gradients.unroll, task.step))
        _, (y, counts) = unroll(params, task.carry(xs.shape[1]), xs)
    spikes = np.diff(np.asarray(counts)[:, 0], axis=0, prepend=0)
    return {
        "published": name,
        "losses": losses,
        "spikes": np.argwhere(spikes > 0).tolist(),
        "inputs": np.argwhere(np.asarray(xs)[:, 0] > 0).tolist(),
        "output": np.asarray(y)[:, 0].tolist(),
        "target": np.asarray(targets.wanted)[:, 0].tolist(),
    }


def _by_rule(config: Config, name: str, rule: str, way: Way) -> dict[str, Any]:
    """Train networks of all seeds by one rule; return a row of results."""
    losses, cosines, seconds = [], [], []
    for i in range(config.seeds):
        seed = 1 + config.first_seed + i
        with double_precision():
            make = partial(make_task, name, units=config.units, seed=seed)
            size = {"size": config.batch} if name == "evidence" else {}
            start = time.perf_counter()
            found, first, _ = train(
                make(rule, **size), config.updates, adam(ADAM), way, i * config.updates
            )
            seconds.append(time.perf_counter() - start)
            other = make(config.rules[0], **size)
            _, exact, _ = train(other, 1, adam(ADAM))
            cosines.append(_cosine(first["cell"], exact["cell"]))
        losses.append(found)
    return {
        "task": name,
        "rule": rule,
        "units": config.units,
        "losses": losses,
        "cosine": cosines,
        "seconds": float(np.mean(seconds)) / config.updates,
    }


def _cosine(a: Any, b: Any) -> float:
    flat = lambda tree: np.concatenate(
        [np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)]
    )
    a, b = flat(a), flat(b)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
