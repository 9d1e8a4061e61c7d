"""A text of 100,000 characters, learned from on the way, at the memory of a window.

    (value, stream), (θ, state) = learn((θ, state), stream, characters, next ones)

One GRU reads one text, once, and after every h′ characters Adam updates its parameters
with errors that travelled back h. First what a call of T characters needs, beside plain
BPTT, which keeps all T steps; then that many calls along a stream are one long call;
then bits per character, each predicted before it was learned from, as adaptive n-grams
do too.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import data, report
from experiments.baselines.adaptive_ngrams import adaptive_ngrams
from experiments.harness.errors import DataError
from experiments.through_time import _long_report

EMBEDDING = 16
RULES = ("bptt", "truncated_bptt", "truncated_bptt, learning")
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


@dataclasses.dataclass(frozen=True)
class Config:
    """Stream a long text through truncated BPTT, and measure memory, time and bits."""

    text: Literal["python_reference", "tinyshakespeare"] = "python_reference"
    """What to read: the help of the running Python, or Tiny Shakespeare, which is
    fetched once if it is not there."""
    lengths: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Lengths T of one call, for memory and time; the last one is learned from."""
    units: int = 48
    """Units of the GRU."""
    every: int = 20
    """h′ of the calls whose memory and time are measured."""
    lookback: int = 40
    """h of the calls whose memory and time are measured."""
    settings: tuple[tuple[int, int], ...] = ((5, 5), (20, 20), (20, 40), (100, 100))
    """Pairs (h′, h) to learn with."""
    learning_rate: float = 3e-3
    """Of Adam, for all settings."""
    call: int = 1_000
    """How many characters a call of a stream takes."""
    out: Path | None = None
    """Folder to write to; by default runs/long-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("units", "call"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if not self.lengths or min(self.lengths) < self.call:
            raise ValueError(
                f"lengths must be at least call={self.call}, got {self.lengths}."
            )
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}."
            )


class Network(nn.Module):
    """Predict the next character from those before."""

    units: int
    symbols: int

    @nn.compact
    def __call__(self, carry, x):
        """Take one step."""
        x = nn.Embed(self.symbols, EMBEDDING)(x)
        carry, h = nn.GRUCell(self.units)(carry, x)
        return carry, nn.Dense(self.symbols)(h)


def main(config: Config) -> report.Result:
    """Measure, learn, show tables, and write them to a folder with a picture."""
    folder = report.make_folder("long", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    text = getattr(data, config.text)()
    longest = max(config.lengths)
    if longest >= len(text.train):
        raise DataError(
            f"lengths must be less than the {len(text.train)} characters of the text, "
            f"got {longest}."
        )
    problem = _problem(config, text)
    jobs: dict[str, Callable] = {
        f"memory and time of {rule}": partial(_costs, config, problem, rule)
        for rule in RULES
    }
    jobs["calls are one long call"] = partial(_difference, config, problem)
    for every, lookback in config.settings:
        what = f"learning, h′ = {every}, h = {lookback}"
        jobs[what] = partial(_learn, config, problem, every, lookback)
    jobs["n-grams"] = partial(_ngrams, config, text)
    try:
        with report.Progress(len(jobs)) as progress:
            for what, job in jobs.items():
                progress.begin(what, longest)
                for row in job(progress.advance):
                    rows.append(row)
                    report.append_row(folder, row)
    except KeyboardInterrupt:
        interrupted = True
    _long_report.show(rows, config, text)
    if rows:
        report.save_picture(folder, "long", _long_report.draw(rows, config))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _problem(config: Config, text: data.Text):
    """Return the step, parameters, the carry at first, and the characters."""
    network = Network(config.units, len(text.alphabet))
    carry = jnp.zeros(config.units)
    characters = jnp.asarray(text.train[: max(config.lengths) + 1])
    params = jax.jit(network.init)(jax.random.key(0), carry, characters[0])
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


def _costs(config, problem, name, advance):
    """Yield memory by XLA's analysis, and the time of a call where it is constant."""
    step, params, carry, characters = problem
    rule = _rule(config, step, name, config.every, config.lookback)
    learning = name == RULES[2]
    if learning:
        params = params, optax.adam(config.learning_rate).init(params)
    for length in config.lengths:
        arguments = params, carry, characters[:length], characters[1 : length + 1]
        compiled = jax.jit(rule).lower(*arguments).compile()
        memory: Any = compiled.memory_analysis()
        row = {"row": "costs", "rule": name, "length": length}
        row["temp_bytes"] = memory.temp_size_in_bytes
        row["argument_bytes"] = memory.argument_size_in_bytes
        row["output_bytes"] = memory.output_size_in_bytes
        row["seconds"] = _seconds(compiled, arguments) if learning else None
        yield row
        advance(length)


def _seconds(program, arguments) -> float:
    """Return the time of a call: the best of three, and of more if it is short."""
    times = []
    while len(times) < 3 or (len(times) < 20 and sum(times) < 3):
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def _difference(config, problem, advance):
    """Yield how much one long call and calls along a stream differ, in float32."""
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
        advance(length)
        whole = whole[0] if learning else whole
        yield {
            "row": "difference",
            "rule": name,
            "length": length,
            "calls": calls,
            "largest": _largest(whole, jax.tree.map(jnp.zeros_like, whole)),
            "difference": _largest(whole, total),
            "carry_difference": _largest(last, stream.carry),
        }


def _largest(a, b) -> float:
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), a, b)
    return max(jax.tree.leaves(gaps))


def _learn(config, problem, every, lookback, advance):
    """Yield bits per character, of each call along the stream."""
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
        advance(begin + config.call)
    name = f"GRU {config.units}, h′ = {every}, h = {lookback}"
    row = {"row": "bits", "model": name, "every": every, "lookback": lookback}
    yield row | {"bits": bits, "seconds": time.perf_counter() - start}


def _calls(config: Config) -> range:
    longest = max(config.lengths)
    return range(0, longest - longest % config.call, config.call)


def _ngrams(config, text, advance):
    """Yield bits per character of n-grams that count as they go."""
    calls = _calls(config)
    bits = adaptive_ngrams(text.train[: calls.stop + 1], len(text.alphabet))
    advance(calls.stop)
    for name, losses in bits.items():
        means = losses.reshape(len(calls), config.call).mean(axis=1)
        yield {"row": "bits", "model": name, "bits": means.tolist(), "seconds": None}
