"""Training and measurements of one combination of the study `atlas`.

All networks of a combination are lanes of one compiled program, which computes the
rule's gradients: first one lane for each learning rate and tuning seed, then one for
each seed with the chosen rate, then one for each random draw at constant params.
`training.sweep` would compile each of these uses again, and returns no params.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import PyTree
from experiments.harness.timing import Foreign, race
from experiments.online._atlas_rules import Problem, problem, shared

AT = (0.0, 0.25, 1.0)  # when gradients are compared, as parts of the training
COMPARED = 2  # seeds for which bias and spread of a random rule are measured
ROUNDS = 9  # timed calls
TUNING = 1_000_000  # seeds of the networks with which rates are chosen begin here


class Sizes(NamedTuple):
    """Sizes of a study; equal sizes share compiled programs."""

    units: int
    batch: int
    updates: int
    rates: tuple[float, ...]
    trials: int  # tuning seeds of each rate
    seeds: int
    draws: int  # random draws for bias and spread

    @property
    def lanes(self) -> int:
        """Number of networks in the program."""
        return max(len(self.rates) * self.trials, self.seeds)


class Tools(NamedTuple):
    """Programs that all rules of a task and a cell share; the first axis is lanes."""

    start: Callable  # (seeds, rates) -> (params, constant, opt_state)
    draw: Callable  # (seeds, t) -> mini-batches, keys of the rule
    move: Callable  # (params, opt_state, gradients, rates) -> (params, opt_state)
    exact: Callable  # (params, mini-batches) -> gradients
    validation: Callable  # params -> losses
    test: Callable


def run(
    task: str, cell: str, rule: str, sizes: Sizes, first_seed: int,
    advance: Callable[[int], None] = lambda updates: None,
) -> dict[str, Any]:  # fmt: skip
    """Choose the learning rate, train all seeds, and measure gradients, time, memory.

    Args:
      task: name of the task.
      cell: name of the cell.
      rule: name of the rule.
      sizes: sizes of the study.
      first_seed: the first seed of the networks whose test losses are reported.
      advance: is told the number of updates so far, at most 2 · `updates`.
    """
    found = problem(task, cell, rule, sizes.units, sizes.batch)
    of_rule = rule if task == "yin_yang" else "shared"
    tools = _tools(task, cell, of_rule, sizes.units, sizes.batch)
    seeds, rates = _tuning(sizes)
    state = tools.start(seeds, rates)
    program = jax.jit(jax.vmap(found.estimate)).lower(
        *state[:2], *tools.draw(seeds, 0)
    ).compile()  # fmt: skip
    learn = partial(_train, program, tools, sizes)
    params, _ = learn(seeds, rates, advance)
    count = len(sizes.rates) * sizes.trials
    scores = np.asarray(tools.validation(params), float)[:count]
    scores = scores.reshape(len(sizes.rates), sizes.trials).mean(axis=1)
    best = int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))
    seeds = first_seed + np.arange(sizes.lanes) % sizes.seeds
    rates = np.full(sizes.lanes, sizes.rates[best], np.float32)
    later = lambda updates: advance(sizes.updates + updates)
    params, stages = learn(seeds, rates, later)
    row = {
        "task": task,
        "cell": cell,
        "rule": rule,
        "rate": sizes.rates[best],
        "validation": _numbers(scores),
        "test": _numbers(np.asarray(tools.test(params))[: sizes.seeds]),
        "trivial": found.trivial,
        "microseconds": _microseconds(program, tools, sizes, stages[0], found.steps),
        "temp_bytes": _bytes(program) / sizes.lanes,
    }
    return row | _compare(program, tools, found, sizes, stages)


@cache
def _tools(task: str, cell: str, rule: str, units: int, batch: int) -> Tools:
    """Compile what does not depend on the rule, except the feedback weights."""
    base = (
        shared(task, cell, units, batch)
        if rule == "shared"
        else problem(task, cell, rule, units, batch)
    )

    def start(seed, rate):
        params, constant = base.init(jax.random.fold_in(jax.random.key(0), seed))
        return params, constant, optax.adam(rate).init(params)

    def draw(seed, t):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), seed), t)
        of_task, of_rule = jax.random.split(key)
        return base.draw(of_task), of_rule

    def move(params, opt_state, grads, rate):
        change, opt_state = optax.adam(rate).update(grads, opt_state, params)
        return optax.apply_updates(params, change), opt_state

    over_part = lambda part: jax.jit(jax.vmap(lambda params: base.loss(params, part)))
    return Tools(
        jax.jit(jax.vmap(start)), jax.jit(jax.vmap(draw, in_axes=(0, None))),
        jax.jit(jax.vmap(move)), jax.jit(jax.vmap(base.exact)),
        over_part(base.validation), over_part(base.test),
    )  # fmt: skip


def _tuning(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Return the seed and the learning rate of each lane that chooses the rate."""
    count = len(sizes.rates) * sizes.trials
    lanes = np.arange(sizes.lanes) % count
    rates = np.array(sizes.rates, np.float32)[lanes // sizes.trials]
    return TUNING + lanes % sizes.trials, rates


def _train(
    program: Callable, tools: Tools, sizes: Sizes, seeds: np.ndarray, rates: np.ndarray,
    advance: Callable[[int], None],
) -> tuple[PyTree, list[tuple]]:  # fmt: skip
    """Train all lanes; return params, and the stages (params, constant, mini-batch)."""
    params, constant, opt_state = tools.start(seeds, rates)
    wanted, stages = {round(at * sizes.updates) for at in AT}, []
    for t in range(sizes.updates + 1):
        part, keys = tools.draw(seeds, t)
        if t in wanted:
            stages.append((params, constant, part))
        if t < sizes.updates:
            _, grads = program(params, constant, part, keys)
            params, opt_state = tools.move(params, opt_state, grads, rates)
        if t % 100 == 0:
            jax.block_until_ready(params)
            advance(t)
    return params, stages


def _compare(
    program: Callable, tools: Tools, found: Problem, sizes: Sizes, stages: list[tuple]
) -> dict[str, Any]:
    """Compare gradients with exact ones: cosine at all stages, bias and spread at one.

    Bias and spread are relative to the norm of the exact gradient. The bias of a random
    rule is that of the mean over draws; an unbiased rule has a bias of about its
    standard error.
    """
    cosines = []
    for stage, (params, constant, part) in enumerate(stages):
        keys = jax.random.split(jax.random.key(2 + stage), sizes.lanes)
        ours = _flat(program(params, constant, part, keys)[1])
        exact = _flat(tools.exact(params, part))
        cosines.append(_numbers(cosine(ours, exact)[: sizes.seeds]))
    params, constant, part = stages[1]
    if not found.draws:
        keys = jax.random.split(jax.random.key(0), sizes.lanes)
        ours = _flat(program(params, constant, part, keys)[1])
        exact = _flat(tools.exact(params, part))
        off = np.linalg.norm(ours - exact, axis=1) / np.linalg.norm(exact, axis=1)
        bias, error, spread = off[: sizes.seeds], [0.0], [0.0]
    else:
        measured = [
            _draws(program, tools, sizes, stages[1], i)
            for i in range(min(COMPARED, sizes.seeds))
        ]
        bias, error, spread = zip(*measured, strict=True)
    names = ("bias", "bias_error", "spread")
    means = {n: _numbers(v) for n, v in zip(names, (bias, error, spread), strict=True)}
    return {"cosine": cosines} | means


def _draws(
    program: Callable, tools: Tools, sizes: Sizes, stage: tuple, lane: int
) -> tuple[float, float, float]:
    """Return the bias of a seed's gradient, its standard error, and its spread."""
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[lane], leaf.shape), stage)
    exact = _flat(tools.exact(same[0], same[2]))[0]
    calls = math.ceil(sizes.draws / sizes.lanes)
    keys = jax.random.split(jax.random.key(3 + lane), (calls, sizes.lanes))
    ours = np.concatenate([_flat(program(*same, each)[1]) for each in keys])
    variance = ((ours - ours.mean(axis=0)) ** 2).sum() / (len(ours) - 1)
    norm = np.linalg.norm(exact)
    bias = np.linalg.norm(ours.mean(axis=0) - exact) / norm
    error = np.sqrt(variance / len(ours)) / norm
    return float(bias), float(error), float(np.sqrt(variance) / norm)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of a [K, p] to that of b; NaN if one is 0."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(norms == 0, np.nan, norms)


def _flat(tree: PyTree) -> np.ndarray:
    """Return gradients of all lanes as rows of a float64 matrix."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _microseconds(
    program: Callable, tools: Tools, sizes: Sizes, stage: tuple, steps: int
) -> float:
    """Return the time of a gradient in µs, for one step of one network's mini-batch."""
    keys = jax.random.split(jax.random.key(0), sizes.lanes)
    call = lambda: jax.block_until_ready(program(*stage, keys))
    (timed,) = race("gradient", {"rule": Foreign(call)}, repeats=ROUNDS)
    return 1000 * timed.ms / (steps * sizes.lanes)


def _bytes(program: Any) -> int:
    """Return the temporary memory of a compiled program, in bytes."""
    return program.memory_analysis().temp_size_in_bytes


def _numbers(values: Any) -> list[float | None]:
    """Return numbers for JSON, with None for those that are not finite."""
    return [float(v) if math.isfinite(v) else None for v in values]
