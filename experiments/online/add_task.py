"""The add task of Marschall, Cho & Savin 2020: two memories, learned at every step.

    x_t ~ Bernoulli(½),    y_t ~ Bernoulli(½ + ½ x_{t−t₁} − ¼ x_{t−t₂})

A network sees one endless stream of x and says how likely y = 1 is. What it remembers
can be read off its loss, as there is a floor for each memory: nothing, x_{t−t₂} only,
x_{t−t₁} only, both. Online rules update after every step; truncated BPTT(h; h′) after
every h′, and its errors reach x_{t−t₁} if h > t₁.

References:
  Marschall, Cho & Savin, "A unified framework of online learning algorithms for
  training recurrent neural networks", JMLR 21, 2020, arXiv:1907.02649.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import report
from experiments.harness.options import check_at_least_one
from experiments.networks import online
from experiments.online import _add_task_report, _rules

BIAS, FIRST, SECOND = 0.5, 0.5, -0.25  # of the probability of y = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn to remember two inputs of a stream, by online rules and truncated BPTT."""

    delays: tuple[tuple[int, int], ...] = ((3, 5), (6, 10))
    """Pairs (t₁, t₂): how long ago the two inputs were."""
    rules: tuple[str, ...] = tuple(_rules.RULES)
    """Online rules, of those in experiments/online/_rules.py."""
    truncations: tuple[tuple[int, int], ...] = ((1, 1), (1, 5), (1, 8), (1, 12))
    """Pairs (h′, h) of truncated BPTT: errors travel back h steps, every h′."""
    units: int = 32
    """Of the tanh network."""
    leak: float = 1.0
    """α of h ← (1 − α) h + α tanh(…); 1 is the plain network."""
    steps: int = 40_000
    """Of the stream."""
    learning_rate: float = 1e-3
    """Of Adam, for all."""
    seeds: int = 4
    """Independent networks and streams, together."""
    chunk: int = 200
    """Steps of one call, and of a point of the curves."""
    out: Path | None = None
    """Folder to write to; by default runs/add_task-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "units", "steps", "seeds", "chunk")
        if self.steps < self.chunk:
            raise ValueError(
                f"steps must be at least chunk={self.chunk}, got {self.steps}."
            )
        for pair in self.delays:
            if min(pair) < 0 or pair[0] == pair[1]:
                raise ValueError(
                    f"delays must be pairs of two different numbers ≥ 0, got {pair}."
                )
        for every, lookback in self.truncations:
            if not 1 <= every <= lookback or self.chunk % every:
                raise ValueError(
                    "truncations must be pairs (h′, h) with 1 ≤ h′ ≤ h, and h′ must "
                    f"divide chunk={self.chunk}; got {(every, lookback)}."
                )
        if not 0 < self.leak <= 1:
            raise ValueError(f"leak must be in 0 < leak <= 1, got {self.leak}.")
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}."
            )
        _rules.check_rules(self.rules)


def main(config: Config) -> report.Result:
    """Learn by each rule, show the losses beside the floors, and write them."""
    folder = report.make_folder("add_task", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    chosen = learners(config)
    jobs = list(itertools.product(chosen, config.delays))
    try:
        with report.Progress(len(jobs)) as progress:
            for name, delays in jobs:
                progress.begin(f"{name}, t₁, t₂ = {delays}", config.steps)
                for row in _rows(config, chosen[name], delays, progress.advance):
                    rows.append({"rule": name} | row)
                    report.append_row(folder, rows[-1])
    except KeyboardInterrupt:
        interrupted = True
    _add_task_report.show(rows, config)
    if rows:
        picture = _add_task_report.draw(rows)
        report.save_picture(folder, "add_task", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def floors() -> dict[str, float]:
    """Return the least expected loss in nats by what is remembered, exactly.

    The mean, over what is known, of the entropy of y given that.
    """
    values = list(itertools.product((0, 1), (0, 1)))
    probability = {(a, b): BIAS + FIRST * a + SECOND * b for a, b in values}
    known = {
        "nothing": lambda a, b: (),
        "x_{t−t₂}": lambda a, b: (b,),
        "x_{t−t₁}": lambda a, b: (a,),
        "both": lambda a, b: (a, b),
    }
    found = {}
    for name, look in known.items():
        groups: dict[tuple, list[float]] = {}
        for pair in values:
            groups.setdefault(look(*pair), []).append(probability[pair])
        entropies = [_entropy(float(np.mean(of_y))) for of_y in groups.values()]
        found[name] = float(np.mean(entropies))
    return found


def _entropy(p: float) -> float:
    return -sum(q * float(np.log(q)) for q in (p, 1 - p) if q > 0)


def stream(
    key: jax.Array, steps: int, delays: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Return inputs [T, 1] and targets [T] of a stream that has been going on."""
    of_x, of_y = jax.random.split(key)
    before = max(delays)
    x = jax.random.bernoulli(of_x, 0.5, (before + steps,)).astype(float)
    ago = lambda delay: x[before - delay : before - delay + steps]
    probability = BIAS + FIRST * ago(delays[0]) + SECOND * ago(delays[1])
    return x[before:, None], jax.random.bernoulli(of_y, probability).astype(float)


def loss(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the cross-entropy in nats; y [*batch, 1] is the logit of target = 1."""
    return optax.sigmoid_binary_cross_entropy(y[..., 0], target)


def learners(config: Config) -> dict[str, tuple[Callable, Callable]]:
    """Return (start, learn) of each rule, for all seeds together.

    start(keys) -> state; learn(state, xs, targets, key) -> (state, mean losses).
    """
    network = online.network("tanh", 1, config.units, 1, config.leak)
    adam = optax.adam(config.learning_rate)
    chosen = {}
    for name in config.rules:
        rule = _rules.RULES[name](network.step, loss)
        chosen[name] = _online(network, rule, adam)
    for every, lookback in config.truncations:
        rule = gradients.truncated_bptt(
            network.step, loss, every=every, lookback=lookback, update=adam
        )
        chosen[f"truncated ({lookback}; {every})"] = _windows(network, rule, adam)
    return {
        name: (jax.jit(jax.vmap(start)), jax.jit(jax.vmap(learn)))
        for name, (start, learn) in chosen.items()
    }


def _online(network, rule, adam):
    one_step = jnp.zeros(1), jnp.zeros(())

    def start(key):
        params = network.init(key)
        state = rule.init(params, network.carry(params), one_step)
        return (params, adam.init(params)), state

    learn_online = online.learn_online(rule, adam)

    def learn(state, xs, targets, key):
        state, losses = learn_online(*state, xs, targets, key)
        return state, jnp.mean(losses)

    return start, learn


def _windows(network, rule, adam):
    def start(key):
        params = network.init(key)
        return (params, adam.init(params)), gradients.stream(network.carry(params))

    def learn(state, xs, targets, key):
        del key
        (value, stream), pair = rule(*state, xs, targets)
        return (pair, stream), value

    return start, learn


def _rows(
    config: Config, learner: tuple[Callable, Callable], delays: tuple[int, int], advance
) -> Iterator[dict[str, Any]]:
    """Yield one row, also if Ctrl-C comes before the end but after a first chunk."""
    start, learn = learner
    of_init, of_stream, of_rule = jax.random.split(jax.random.key(0), 3)
    split = lambda key: jax.random.split(key, config.seeds)
    draw = lambda key: stream(key, config.steps, delays)
    xs, targets = jax.jit(jax.vmap(draw))(split(of_stream))
    state, values, interrupted = start(split(of_init)), [], False
    first = seconds = 0.0
    try:
        for begin in range(0, config.steps - config.chunk + 1, config.chunk):
            part = slice(begin, begin + config.chunk)
            keys = split(jax.random.fold_in(of_rule, begin))
            began = time.perf_counter()
            state, value = learn(state, xs[:, part], targets[:, part], keys)
            values.append(np.asarray(value, float))
            if begin >= 2 * config.chunk:  # two programs at most, compiled before
                seconds += time.perf_counter() - began
                first += config.chunk
            advance(begin + config.chunk)
    except KeyboardInterrupt:
        interrupted = True
    if values:
        curve = np.stack(values, axis=1)
        last = max(1, curve.shape[1] // 5)
        yield {
            "delays": list(delays),
            "loss": curve[:, -last:].mean(axis=1).tolist(),
            "curve": curve.tolist(),
            "steps": config.chunk * curve.shape[1],
            "microseconds": 1e6 * seconds / first if first else None,
        }
    if interrupted:
        raise KeyboardInterrupt
