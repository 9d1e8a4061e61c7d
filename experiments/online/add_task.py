"""The add task of Marschall, Cho & Savin 2020: two past inputs to remember.

    x_t ~ Bernoulli(½),    y_t ~ Bernoulli(½ + ½ x_{t−t₁} − ¼ x_{t−t₂})

A network reads one long stream of inputs x, and predicts at each step t the probability
that the target y_t is 1. The target y_t depends on two past inputs, x_{t−t₁} and
x_{t−t₂}. The network can remember neither input, only x_{t−t₂}, only x_{t−t₁}, or both.
For each of these four cases, there is a lowest possible loss, called the floor, so the
loss shows what the network remembers. Online rules update the parameters after every
step. Truncated BPTT updates the parameters once in `every` steps, by gradients that are
propagated back `lookback` steps. These gradients include the effect of x_{t−t₁} if
the lookback is above t₁.

References:
  Marschall, Cho & Savin, "A unified framework of online learning algorithms for
  training recurrent neural networks", JMLR 21, 2020, arXiv:1907.02649.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import gradients
from experiments import report
from experiments.harness.jobs import Job, Way
from experiments.harness.options import above, at_least, known, within
from experiments.harness.study import run_study, Study
from experiments.networks import online
from experiments.online import _add_task_report, _rules

BIAS, FIRST, SECOND = 0.5, 0.5, -0.25  # coefficients of the probability of y = 1


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which online rules learn to remember two inputs from earlier in a stream?"""

    QUICK = {
        "delays": ((3, 5),),
        "truncations": ((1, 1), (1, 8)),
        "units": 8,
        "steps": 2000,
        "seeds": 2,
    }
    CHECKS = {
        "units steps chunk": at_least(1),
        "leak": within(0, 1, ends="(]"),
        "learning_rate": above(0),
        "rules": known(tuple(_rules.RULES)),
    }

    delays: tuple[tuple[int, int], ...] = ((3, 5), (6, 10))
    """Pairs of delays (t₁, t₂): numbers of steps after which two inputs must be
    remembered."""
    rules: tuple[str, ...] = tuple(_rules.RULES)
    """Online rules: rtrl, snap_1, rflo, kf_rtrl, uoro."""
    truncations: tuple[tuple[int, int], ...] = ((1, 1), (1, 5), (1, 8), (1, 12))
    """Pairs (every, lookback) of truncated BPTT: once in `every` steps, gradients are
    propagated back `lookback` steps."""
    units: int = 32
    """Number of hidden units of the tanh network."""
    leak: float = 1.0
    """Leak α of the state, h ← (1 − α) h + α tanh(…); 1 is a network without a leak."""
    steps: int = 40_000
    """Number of time steps of the stream."""
    learning_rate: float = 1e-3
    """Learning rate of Adam, for all rules."""
    seeds: int = 4
    """Number of independent networks and streams, trained together under vmap."""
    chunk: int = 200
    """Number of time steps in one compiled call; each call is one point of the
    curves."""

    def check(self) -> None:
        """Check the delays, the truncations, and that `steps` is at least one chunk."""
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
                    "truncations must be pairs (every, lookback) with 1 ≤ every ≤ "
                    "lookback, and every must "
                    f"divide chunk={self.chunk}; got {(every, lookback)}."
                )


def main(config: Config) -> report.Result:
    """Train networks by each rule; write the losses, and print losses and floors."""
    return run_study("add_task", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job (training) for each rule and each pair of delays."""
    return [
        Job(
            f"{rule}, t₁, t₂ = {delays[0]}, {delays[1]}",
            config.steps,
            partial(_train, config, rule, learner, delays),
        )
        for rule, learner in learners(config).items()
        for delays in config.delays
    ]


def _finish(folder: Path, config: Config, rows: list[dict[str, Any]]) -> None:
    _add_task_report.show(rows, config)
    report.save_picture(folder, "add_task", _add_task_report.draw(rows))


def floors() -> dict[str, float]:
    """Return {remembered inputs: lowest possible expected loss in nats}.

    The lowest loss is the conditional entropy of the target y given the remembered
    inputs; it is computed exactly.
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
    """Return inputs [T, 1] and targets [T] of a stream.

    The first targets of the stream depend on earlier inputs, which are not returned.
    """
    of_x, of_y = jax.random.split(key)
    before = max(delays)
    x = jax.random.bernoulli(of_x, 0.5, (before + steps,)).astype(float)
    ago = lambda delay: x[before - delay : before - delay + steps]
    probability = BIAS + FIRST * ago(delays[0]) + SECOND * ago(delays[1])
    return x[before:, None], jax.random.bernoulli(of_y, probability).astype(float)


def loss(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the cross-entropy in nats; y [*batch, 1] is the logit of target 1."""
    return optax.sigmoid_binary_cross_entropy(y[..., 0], target)


def learners(config: Config) -> dict[str, tuple[Callable, Callable]]:
    """Return {name of a rule: functions (start, learn)} for the networks of all seeds.

    The function start(keys) -> state returns initial states. The function learn(state,
    xs, targets, key) -> (state, mean losses) trains on a chunk of the streams.
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
        chosen[f"truncated_bptt, {report.window(lookback, every)}"] = _windows(
            network, rule, adam
        )
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


def _train(
    config: Config,
    rule: str,
    learner: tuple[Callable, Callable],
    delays: tuple[int, int],
    way: Way,
) -> dict[str, Any]:
    """Train by one rule with one pair of delays; return a row of results.

    After Ctrl-C, the row has the results of the finished chunks of steps.
    """
    start, learn = learner
    root = jax.random.key(config.first_seed)
    of_init, of_stream, of_rule = jax.random.split(root, 3)
    split = lambda key: jax.random.split(key, config.seeds)
    draw = lambda key: stream(key, config.steps, delays)
    xs, targets = jax.jit(jax.vmap(draw))(split(of_stream))
    state, values, cut_short = start(split(of_init)), [], False
    timed = seconds = 0.0
    try:
        for begin in range(0, config.steps - config.chunk + 1, config.chunk):
            part = slice(begin, begin + config.chunk)
            keys = split(jax.random.fold_in(of_rule, begin))
            began = time.perf_counter()
            state, value = learn(state, xs[:, part], targets[:, part], keys)
            values.append(np.asarray(value, float))
            if begin >= 2 * config.chunk:  # earlier chunks include compilation
                seconds += time.perf_counter() - began
                timed += config.chunk
            way.advance(begin + config.chunk)
    except KeyboardInterrupt:
        if not values:
            raise
        cut_short = True
    curve = np.stack(values, axis=1)
    last = max(1, curve.shape[1] // 5)
    row = {
        "rule": rule,
        "delays": list(delays),
        "loss": curve[:, -last:].mean(axis=1).tolist(),
        "curve": curve.tolist(),
        "steps": config.chunk * curve.shape[1],
        "microseconds": 1e6 * seconds / timed if timed else None,
    }
    return row | ({"cut_short": True} if cut_short else {})
