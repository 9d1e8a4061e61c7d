"""Copy task: the longest string that each rule learns in a given number of steps.

A network reads a string of L random bits, then outputs the string in L further steps.
The length L grows by one when the loss on these outputs falls below a fraction of ln 2,
which is the loss of guessing. The length L after a given number of training steps
measures how well a rule learns, as in the copy task of Menick et al. 2020. Online rules
update the parameters after each output bit. Truncated BPTT updates the
parameters once in `every` steps, by gradients that are propagated back `lookback`
steps. BPTT updates the parameters once, at the end of the sequence.

The networks of the cell `lru` are stacks of LRUs, so layer-wise RTRL can be compared,
too. They learn to copy 20 bits after few sequences. For such networks, use strings of a
fixed length, and let all rules update once per sequence. Then only the bias of their
gradients differs.

References:
  Menick et al., "A practical sparse approximation for real time recurrent learning",
  2020, arXiv:2006.07232.
  Zucchet et al., "Online learning of long-range dependencies", NeurIPS 2023,
  arXiv:2305.15947.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import PyTree
from experiments import report
from experiments.harness.jobs import Job, Way
from experiments.harness.options import above, at_least, known, within
from experiments.harness.study import run_study, Study
from experiments.networks import online
from experiments.networks.cells import DENSE
from experiments.online import _copy_length_report, _copy_task, _rules
from experiments.online._copy_learners import (
    cosines,
    learners,
    RULES,
    sequence_rules,
)
from experiments.online._copy_task import GUESS

REMEMBERED = 0.9  # weight of the old mean in the running mean over mini-batches


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """What is the longest string that each rule learns to copy in a number of steps?"""

    QUICK = {
        "cells": ("tanh",),
        "rules": ("rtrl", "snap_1"),
        "truncations": ((1, 4),),
        "units": 8,
        "steps": 3000,
        "seeds": 2,
    }
    CHECKS = {
        "units layers batch steps shortest longest chunk": at_least(1),
        "cells": known((*DENSE, "lru")),
        "updates": known(("online", "sequence")),
        "share": within(0, 1, ends="()"),
        "learning_rate": above(0),
    }

    cells: tuple[str, ...] = ("tanh", "gru")
    """Recurrent cells: tanh, gru, lstm, lru. With lru, all networks are stacks."""
    layers: int = 1
    """Number of layers of a stack; only for the cell lru."""
    rules: tuple[str, ...] = tuple(RULES)
    """Online rules: rtrl, snap_1, rflo, kf_rtrl, uoro, forward_gradient; eprop too if
    all cells are lstm. For lru: layerwise_rtrl too, but not kf_rtrl."""
    truncations: tuple[tuple[int, int], ...] = ((1, 4), (1, 16))
    """Pairs (every, lookback) of truncated BPTT: once in `every` steps, gradients are
    propagated back `lookback` steps."""
    units: int = 16
    """Number of hidden units of each cell."""
    batch: int = 4
    """Number of sequences in a mini-batch; all sequences have the same length."""
    steps: int = 40_000
    """Number of time steps of a run, summed over mini-batches; a string of L bits takes
    2 L steps."""
    share: float = 0.15
    """Fraction of ln 2; the string grows by one bit when the loss is below it."""
    shortest: int = 1
    """Length of the first string, in bits."""
    longest: int = 32
    """Largest length of a string, in bits. If it is equal to `shortest`, the length
    does not change, and the loss shows what a rule has learned."""
    updates: Literal["online", "sequence"] = "online"
    """Times of updates: "online", after each recalled bit, or after each window of
    truncated BPTT; "sequence", once at the end of each sequence, for all rules."""
    learning_rate: float = 3e-3
    """Learning rate of Adam, for all rules."""
    seeds: int = 3
    """Number of independent networks, trained together under vmap."""
    chunk: int = 100
    """Number of mini-batches in one compiled call; each call is one point of the
    curves."""

    def check(self) -> None:
        """Check the truncations, and that all online rules work with all cells."""
        for every, lookback in self.truncations:
            if not 1 <= every <= lookback:
                raise ValueError(
                    "truncations must be pairs (every, lookback) with 1 ≤ every ≤ "
                    "lookback; got "
                    f"{(every, lookback)}."
                )
        if self.shortest > self.longest:
            raise ValueError(
                "shortest must be at most longest, got shortest="
                f"{self.shortest} and longest={self.longest}."
            )
        if "lru" in self.cells and set(self.cells) != {"lru"}:
            raise ValueError(
                "cells must be lru alone, or without lru, because networks of lru are "
                f"stacks, for which other rules exist; got {self.cells}."
            )
        if self.layers > 1 and self.cells != ("lru",):
            raise ValueError(
                f"layers must be 1 unless cells are lru alone, got {self.layers} for "
                f"{self.cells}."
            )
        allowed = (
            _rules.of_stacks(RULES)
            if self.cells == ("lru",)
            else _rules.of_cells(self.cells, RULES)
        )
        _rules.check_rules(self.rules, allowed)


class Course(NamedTuple):
    """State of the training runs of all seeds, or of one seed under vmap."""

    pair: PyTree  # (params, opt_state)
    length: jax.Array  # length of the string in bits
    loss: jax.Array  # running mean of the losses at this string length
    steps: jax.Array  # number of time steps trained so far


def main(config: Config) -> report.Result:
    """Train each cell by each rule; write and print the string lengths reached."""
    return run_study("copy_length", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job (training) for each cell and rule.

    For each cell, all rules start from the same parameters.
    """
    adam = optax.adam(config.learning_rate)
    once = config.updates == "sequence"
    whole = sequence_rules(config.rules, config.truncations)
    chosen = learners(config.rules, config.truncations, adam, once)

    @cache
    def begin(cell):
        shape = 3, config.units, 1
        network = (
            online.stacked(cell, config.layers, *shape)
            if cell == "lru"
            else online.network(cell, *shape)
        )
        return network, *jax.jit(partial(_begin, config, network))()

    def train(cell, rule, way):
        network, course, carry = begin(cell)
        row = _train(config, chosen[rule](network), course, carry, way)
        if once:
            key = jax.random.key(2 * config.first_seed + 1)
            sequence = _copy_task.draw_sequence(
                key, config.shortest, config.batch, config.shortest
            )
            row["cosine"] = cosines(
                whole[rule], network, course.pair[0], carry, sequence
            )
        return {"cell": cell, "rule": rule} | row

    return [
        Job(f"{cell} by {rule}", config.steps, partial(train, cell, rule))
        for cell in config.cells
        for rule in chosen
    ]


def _finish(folder: Path, config: Config, rows: list[dict[str, Any]]) -> None:
    _copy_length_report.show(rows, config)
    fixed = config.shortest == config.longest
    picture = _copy_length_report.draw(rows, losses=fixed)
    report.save_picture(folder, "copy_length", picture)


def follow(
    config: Config, learn: Callable, carry: PyTree, size: int, course: Course, key
) -> tuple[Course, tuple[jax.Array, ...]]:
    """Train on one mini-batch, unless the run has already trained on enough time steps.

    Strings have at most `size` bits.
    """
    of_task, of_rule = jax.random.split(key)
    sequence = _copy_task.draw_sequence(of_task, course.length, config.batch, size)
    value, pair = learn(course.pair, carry, *sequence, of_rule)
    mean = REMEMBERED * course.loss + (1 - REMEMBERED) * value
    grows = (mean < config.share * GUESS) & (course.length < size)
    new = Course(
        pair,
        course.length + grows,
        jnp.where(grows, GUESS, mean),
        course.steps + 2 * course.length,
    )
    goes = course.steps < config.steps
    new = jax.tree.map(lambda a, b: jnp.where(goes, a, b), new, course)
    return new, (new.steps, new.length, new.loss)


def _train(
    config: Config, learn: Callable, course: Course, carry: PyTree, way: Way
) -> dict[str, Any]:
    """Train one cell by one rule; return a row of results.

    After Ctrl-C, the row has the results of the finished chunks of mini-batches.
    """

    @partial(jax.jit, static_argnums=2)
    def run(course, i, size):
        def of_seed(course, key):
            body = partial(follow, config, learn, carry, size)
            course, taken = jax.lax.scan(
                body, course, jax.random.split(key, config.chunk)
            )
            return course, [part[-1] for part in taken]

        key = jax.random.fold_in(jax.random.key(2 * config.first_seed + 1), i)
        return jax.vmap(of_seed)(course, jax.random.split(key, config.seeds))

    reached, cut_short, start = [], False, time.perf_counter()
    try:
        for i in itertools.count():
            size = _size(int(course.length.max()), config.longest)
            course, taken = run(course, i, size)
            reached.append(np.asarray(taken, float))
            done = int(course.steps.min())
            way.advance(done)
            if done >= config.steps:
                break
    except KeyboardInterrupt:
        if not reached:
            raise
        cut_short = True
    steps, lengths, losses = np.moveaxis(np.array(reached), 0, -1)
    row = {
        "length": lengths[:, -1].astype(int).tolist(),
        "steps": steps.astype(int).tolist(),
        "lengths": lengths.astype(int).tolist(),
        "losses": losses.tolist(),
        "seconds": time.perf_counter() - start,
    }
    return row | ({"cut_short": True} if cut_short else {})


def _begin(config: Config, network: online.Network) -> tuple[Course, PyTree]:
    """Return the initial states of all seeds' runs, and the carry before a sequence."""
    adam = optax.adam(config.learning_rate)

    def of_seed(key):
        params = network.init(key)
        pair = params, adam.init(params)
        course = Course(
            pair, jnp.array(config.shortest), jnp.array(GUESS), jnp.array(0)
        )
        return course, network.carry(params, (config.batch,))

    keys = jax.random.split(jax.random.key(2 * config.first_seed), config.seeds)
    course, carries = jax.vmap(of_seed)(keys)
    return course, jax.tree.map(lambda leaf: leaf[0], carries)


def _size(length: int, longest: int) -> int:
    """Return the largest string length that the compiled program must support.

    It is above `length`, so that the program need not be compiled again whenever the
    length grows; but it is at most `longest`.
    """
    size = 8
    while size < length + 2:
        size *= 2
    return min(size, longest)
