"""Truncated BPTT along a text of 100,000 characters, in constant memory.

    (value, stream), (θ, state) = learn((θ, state), stream, characters, targets)

A GRU with parameters θ reads a text once. Once in `every` characters, Adam updates θ
by a gradient that is propagated back `lookback` steps. The targets are the next
characters. Each character is predicted before the GRU learns from it. The study
measures three things:

- memory and time of one call of `learn` with T characters, and of BPTT, which stores
  the values of all T steps;
- differences between many calls of `learn` along a stream and one long call: in the
  gradients or the learned parameters, and in the last carry;
- losses in bits per character, of the GRU and of adaptive n-gram models.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import data, report
from experiments.baselines.adaptive_ngrams import adaptive_ngrams
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least, given
from experiments.harness.study import run_study, Study
from experiments.through_time import _long_report

EMBEDDING = 16
RULES = ("bptt", "truncated_bptt", "truncated_bptt, learning")
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Does truncated BPTT train along a long text in constant memory, and how well?"""

    QUICK: ClassVar = {"lengths": (1_000, 5_000), "settings": ((20, 20), (20, 40))}
    CHECKS: ClassVar = {
        "units call": at_least(1),
        "lengths": given,
        "learning_rate": above(0),
    }

    text: Literal["python_reference", "tinyshakespeare"] = "python_reference"
    """Text to train on: the help topics of the running Python, or Tiny Shakespeare,
    which is downloaded once."""
    lengths: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Lengths T of calls, in characters, to measure memory and time of. The GRU is
    trained on a text of the greatest length."""
    units: int = 48
    """Number of units of the GRU."""
    every: int = 20
    """Number of characters between updates, in the measurements of memory and time."""
    lookback: int = 40
    """Lookback, in the measurements of memory and time."""
    settings: tuple[tuple[int, int], ...] = ((5, 5), (20, 20), (20, 40), (100, 100))
    """Pairs (every, lookback) of truncated BPTT to train with."""
    learning_rate: float = 3e-3
    """Learning rate of Adam, for all pairs."""
    call: int = 1_000
    """Number of characters in one call along a stream."""

    def check(self):
        """Check that all of `lengths` are at least `call`, the length of one call."""
        if min(self.lengths) < self.call:
            raise ValueError(
                f"lengths must be at least call={self.call}, got {self.lengths}."
            )


class Network(nn.Module):
    """A GRU that predicts the next character of a text."""

    units: int
    symbols: int

    @nn.compact
    def __call__(self, carry, x):
        """Read a character x; return the new carry and logits of the next character."""
        x = nn.Embed(self.symbols, EMBEDDING)(x)
        carry, h = nn.GRUCell(self.units)(carry, x)
        return carry, nn.Dense(self.symbols)(h)


def main(config: Config) -> report.Result:
    """Measure memory and time of calls, and train; print tables; write the results."""
    return run_study("long", config, _jobs, _finish, check=_check)


def _check(config: Config) -> None:
    """Raise a DataError if the text is shorter than the longest length."""
    text, longest = getattr(data, config.text)(), max(config.lengths)
    if longest >= len(text.train):
        raise DataError(
            f"lengths must be less than the {len(text.train)} characters of the text, "
            f"got {longest}."
        )


def _jobs(config: Config) -> list[Job]:
    """Return the jobs: memory and time of calls, differences, trainings, n-grams."""
    text, longest = getattr(data, config.text)(), max(config.lengths)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    problems = {seed: _problem(config, text, seed) for seed in seeds}
    first = problems[config.first_seed]
    jobs = [
        Job(f"memory and time of {rule}", longest, partial(_costs, config, first, rule))
        for rule in RULES
    ]
    difference = partial(_difference, config, first)
    jobs.append(Job("calls are one long call", longest, difference))
    for every, lookback in config.settings:
        for seed, problem in problems.items():
            name = f"learning, {report.window(lookback, every)}, seed {seed}"
            learn = partial(_learn, config, problem, every, lookback, seed)
            jobs.append(Job(name, longest, learn))
    return [*jobs, Job("n-grams", longest, partial(_ngrams, config, text))]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _long_report.show(rows, config, getattr(data, config.text)())
    report.save_picture(folder, "long", _long_report.draw(rows, config))


def _problem(config: Config, text: data.Text, seed: int) -> tuple:
    """Return the step, the initial parameters and carry, and the characters."""
    network = Network(config.units, len(text.alphabet))
    carry = jnp.zeros(config.units)
    characters = jnp.asarray(text.train[: max(config.lengths) + 1])
    params = jax.jit(network.init)(jax.random.key(seed), carry, characters[0])
    return network.apply, params, carry, characters


def _rule(config, step, name, every, lookback):
    if name == "bptt":
        return gradients.bptt(step, cross_entropy)
    learning = name == RULES[2]
    return gradients.truncated_bptt(
        step,
        cross_entropy,
        every=every,
        lookback=lookback,
        update=optax.adam(config.learning_rate) if learning else None,
    )


def _costs(config, problem, name, way: Way) -> list[Row]:
    """Return the memory of a call of a rule, for each number of characters.

    Also return the time of the call if the rule updates the parameters. Memory is taken
    from XLA's analysis of the compiled program.
    """
    step, params, carry, characters = problem
    rule = _rule(config, step, name, config.every, config.lookback)
    learning = name == RULES[2]
    if learning:
        params = params, optax.adam(config.learning_rate).init(params)
    rows = []
    for length in config.lengths:
        arguments = params, carry, characters[:length], characters[1 : length + 1]
        compiled = jax.jit(rule).lower(*arguments).compile()
        memory: Any = compiled.memory_analysis()
        row = {"row": "costs", "rule": name, "length": length}
        row["temp_bytes"] = memory.temp_size_in_bytes
        row["argument_bytes"] = memory.argument_size_in_bytes
        row["output_bytes"] = memory.output_size_in_bytes
        row["seconds"] = _seconds(compiled, arguments) if learning else None
        rows.append(row)
        way.advance(length)
    return rows


def _seconds(program, arguments) -> float:
    """Return the shortest time of 3 to 20 calls: fewer calls for slow programs."""
    times = []
    while len(times) < 3 or (len(times) < 20 and sum(times) < 3):
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def _difference(config, problem, way: Way) -> list[Row]:
    """Return the differences of results between one long call and many short calls.

    The short calls read the same characters as the long call, one after another.
    """
    rows = []
    step, params, carry, characters = problem
    length = sorted(config.lengths)[len(config.lengths) // 2]
    length -= length % config.call
    optimizer = optax.adam(config.learning_rate)
    for name in RULES[1:]:
        rule = jax.jit(_rule(config, step, name, config.every, config.lookback))
        learning = name == RULES[2]
        state = (params, optimizer.init(params)) if learning else params
        given = characters[:length], characters[1 : length + 1]
        (_, last), whole = rule(state, carry, *given)
        stream, calls = gradients.stream(carry), length // config.call
        total = jax.tree.map(jnp.zeros_like, params)
        for xs, targets in zip(*(jnp.split(a, calls) for a in given), strict=True):
            (_, stream), state_or_grads = rule(state, stream, xs, targets)
            if learning:
                state, total = state_or_grads, state_or_grads[0]
            else:
                mean = jax.tree.map(lambda g, n=calls: g / n, state_or_grads)
                total = jax.tree.map(jnp.add, total, mean)
        way.advance(length)
        whole = whole[0] if learning else whole
        row = {"row": "difference", "rule": name, "length": length, "calls": calls}
        row["largest"] = _largest(whole, jax.tree.map(jnp.zeros_like, whole))
        row["difference"] = _largest(whole, total)
        row["carry_difference"] = _largest(last, stream.carry)
        rows.append(row)
    return rows


def _largest(a, b) -> float:
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), a, b)
    return max(jax.tree.leaves(gaps))


def _learn(config, problem, every, lookback, seed, way: Way) -> Row:
    """Train a GRU along the text; return each call's loss in bits per character."""
    step, params, carry, characters = problem
    learn = jax.jit(_rule(config, step, RULES[2], every, lookback))
    pair = params, optax.adam(config.learning_rate).init(params)
    stream, bits = gradients.stream(carry), []
    start = time.perf_counter()
    for begin in _calls(config):
        xs = characters[begin : begin + config.call]
        targets = characters[begin + 1 : begin + config.call + 1]
        (value, stream), pair = learn(pair, stream, xs, targets)
        bits.append(float(value) / np.log(2))
        way.advance(begin + config.call)
    name = f"GRU {config.units}, {report.window(lookback, every)}"
    row = {"row": "bits", "model": name, "every": every, "lookback": lookback}
    row |= {"seed": seed, "bits": bits, "seconds": time.perf_counter() - start}
    return row


def _calls(config: Config) -> range:
    longest = max(config.lengths)
    return range(0, longest - longest % config.call, config.call)


def _ngrams(config, text, way: Way) -> list[Row]:
    """Return losses in bits per character of n-gram models that learn on the text."""
    calls = _calls(config)
    bits = adaptive_ngrams(text.train[: calls.stop + 1], len(text.alphabet))
    way.advance(calls.stop)
    means = {
        name: losses.reshape(len(calls), config.call).mean(axis=1)
        for name, losses in bits.items()
    }
    return [
        {"row": "bits", "model": name, "bits": mean.tolist(), "seconds": None}
        for name, mean in means.items()
    ]
