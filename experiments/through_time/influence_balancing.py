"""Influence balancing after Tallec & Ollivier: truncated gradients with the wrong sign.

    s ← A s + θ v,   A = ½ I + ½ superdiagonal,   v = +1 for ten units, −1 for thirteen

The state s has 23 units, and θ is the only parameter. The target of the first unit s₁
is 1. The parameter affects s₁ positively through the first ten units, after few steps,
and negatively through the other thirteen units, after more steps. The negative effect
is larger, so ds₁/dθ = −6. A gradient that is truncated to fewer than 41 steps has the
wrong sign, because it contains mostly the early, positive effect. In truncated BPTT, an
iteration runs the network for K steps, starting from the state at which the previous
iteration ended. After these K steps, the iteration takes a gradient step on the loss ½
(s₁ − 1)². Online rules take a gradient step after every step of the network.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants.types import GradientRule, OnlineRule
from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least
from experiments.harness.precision import double_precision
from experiments.harness.study import run_study, Study
from experiments.through_time import _influence_balancing_report
from experiments.through_time._influence_balancing_network import (
    half_square,
    leaky_step,
    step,
    stream,
    UNITS,
)
from experiments.through_time._influence_balancing_report import (
    FARTHEST,
    LOST,
    MEASURED,
)


class Online(NamedTuple):
    """An online rule, with factors for the learning rate and number of iterations."""

    make: Callable[..., OnlineRule]  # (step, loss) -> rule
    learning_rate: float = 1.0
    iterations: int = 1
    draws: bool = False  # whether the rule draws random numbers


# KF-RTRL is not in this table, because the parameter is not used in a matrix product,
# so there are no Kronecker factors. UORO has a tenth of the learning rate of the other
# rules, as published.
ONLINE = {
    "rtrl": Online(gradients.rtrl),
    "snap_1": Online(partial(gradients.snap, order=1)),
    "rflo": Online(lambda _, loss: gradients.rflo(leaky_step, loss)),
    "forward_gradient": Online(gradients.forward_gradient, draws=True),
    "uoro": Online(gradients.uoro, 0.1, draws=True),
    "uoro, 10 times as long": Online(gradients.uoro, 0.1, 10, draws=True),
}


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which rules move θ the wrong way if its late effects outweigh its early ones?"""

    QUICK: ClassVar = {
        "lookbacks": (1, 40, 41, 100),
        "truncations": (0.02,),
        "seeds": 2,
        "iterations": 1000,
    }
    CHECKS: ClassVar = {
        "lookbacks iterations": at_least(1),
        "learning_rate": above(0),
    }

    lookbacks: tuple[int, ...] = (1, 10, 30, 40, 41, 50, 100)
    """Lookbacks K of truncated BPTT. An iteration runs K steps, and its gradient goes
    back K steps."""
    truncations: tuple[float, ...] = (0.02, 0.1, 0.2)
    """For ARTBP: probabilities κ that the gradient is truncated at a step. An iteration
    has 100 steps."""
    seeds: int = 5
    """Number of runs of each rule that draws random numbers, under vmap."""
    iterations: int = 3000
    """Number of updates of θ."""
    learning_rate: float = 1e-4
    """Learning rate of gradient descent."""


class Method(NamedTuple):
    """A method to compute gradients in the parameter θ; `iterate` computes one."""

    start: Callable[[jax.Array], Any]  # θ -> initial state
    # (θ, state, key) -> (gradient, state)
    iterate: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any]]
    learning_rate: float
    seeds: int = 1  # larger than 1 only if the method draws random numbers
    times: int = 1  # factor that multiplies the study's number of iterations


def main(config: Config) -> report.Result:
    """Train the parameter θ by each method; print and write the last value of θ."""
    with double_precision():
        return run_study("influence_balancing", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job for the derivatives ds₁/dθ of the first unit s₁.

    Also return one job for each method of training the parameter θ.
    """
    jobs = [Job("sensitivity", 1, _sensitivity_row)]
    for name, method in methods(config).items():
        iterations = method.times * config.iterations
        train = partial(_row, config, iterations, name, method)
        jobs.append(Job(name, iterations, train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _influence_balancing_report.show(rows, config)
    if len(rows) > 1:
        picture = _influence_balancing_report.draw(rows)
        report.save_picture(folder, "influence_balancing", picture)


def methods(config: Config) -> dict[str, Method]:
    """Return {name: method}: first rules for windows of steps, then online rules."""
    rate = config.learning_rate
    chosen = {}
    for K in config.lookbacks:
        rule = gradients.truncated_bptt(step, half_square, every=K, lookback=K)
        chosen[f"truncated_bptt, {report.window(K, K)}"] = by_window(rule, K, rate)
    for kappa in config.truncations:
        rule = gradients.artbp(step, half_square, truncation=kappa)
        method = by_window(rule, FARTHEST, rate, config.seeds)
        chosen[f"artbp, κ = {kappa:g}"] = method
    for name, online in ONLINE.items():
        rule = online.make(step, half_square)
        seeds = config.seeds if online.draws else 1
        method = by_step(rule, online.learning_rate * rate, seeds)
        chosen[name] = method._replace(times=online.iterations)
    return chosen


def by_window(
    rule: GradientRule, steps: int, learning_rate: float, seeds: int = 0
) -> Method:
    """Return a method that computes one gradient after each window of steps.

    The argument `seeds` is 0 if the rule draws no random numbers.
    """

    def iterate(theta, s, key):
        xs, targets, weights = stream(steps)
        keys = {"key": key} if seeds else {}
        (_, s), grad = rule(theta, s, xs, targets, weights=weights, **keys)
        return grad, s

    start = lambda theta: jnp.ones(UNITS, theta.dtype)
    return Method(start, iterate, learning_rate, seeds or 1)


def by_step(rule: OnlineRule, learning_rate: float, seeds: int) -> Method:
    """Return a method that computes a gradient after every step of the network.

    The state of the online rule is kept when the parameter changes.
    """

    def iterate(theta, state, key):
        xs, targets, _ = stream(1)
        _, grad, state = rule.update(theta, state, xs[0], targets[0], key=key)
        return grad, state

    def start(theta):
        xs, targets, _ = stream(1)
        return rule.init(theta, jnp.ones(UNITS, theta.dtype), (xs[0], targets[0]))

    return Method(start, iterate, learning_rate, seeds)


def follow(method: Method, iterations: int, key: jax.Array) -> jax.Array:
    """Return the parameter θ after each iteration; it stays constant if |θ| > LOST."""

    def body(theta_and_state, key):
        theta, state = theta_and_state
        grad, state = method.iterate(theta, state, key)
        lost = jnp.abs(theta) > LOST
        theta = jnp.where(lost, theta, theta - method.learning_rate * grad)
        return (theta, state), theta

    theta = jnp.asarray(0.5)
    start = theta, method.start(theta)
    return jax.lax.scan(body, start, jax.random.split(key, iterations))[1]


def sensitivities(lookbacks: tuple[int, ...]) -> list[float]:
    """Return ds₁/dθ after 100 steps, truncated to the last K steps, for several K.

    s₁ is the first unit of the network, and θ is the parameter.
    """
    xs, targets, weights = stream(FARTHEST)
    found = []
    for K in lookbacks:
        rule = gradients.truncated_bptt(step, lambda y, _: y, every=1, lookback=K)
        args = jnp.asarray(0.5), jnp.ones(UNITS), xs, targets
        found.append(float(jax.jit(rule)(*args, weights=weights)[1]))
    return found


def sensitivity_curve() -> jax.Array:
    """Return ds₁/dθ truncated to the last K steps, for K = 1 … 100, as an array [100].

    s₁ is the first unit of the network, and θ is the parameter. All derivatives are
    computed in one vmap; a mask leaves out the first 100 − K steps.
    """
    rule = gradients.bptt(step, lambda y, _: y)
    xs, targets, weights = stream(FARTHEST)
    args = jnp.asarray(0.5), jnp.ones(UNITS), xs, targets, weights
    masks = np.tri(FARTHEST, dtype=bool)[:, ::-1]
    return jax.jit(jax.vmap(lambda mask: rule(*args, mask)[1]))(jnp.asarray(masks))


def _sensitivity_row(way: Way) -> Row:
    del way
    table = dict(zip(map(str, MEASURED), sensitivities(tuple(MEASURED)), strict=True))
    curve = np.asarray(sensitivity_curve()).tolist()
    return {"what": "sensitivity", "table": table, "curve": curve}


def _row(config: Config, iterations: int, name: str, method: Method, way: Way) -> Row:
    """Train by one method; return the parameter θ during training, for each seed.

    The row of results also has the last value of θ, and the number of iterations until
    |θ| exceeds LOST.
    """
    del way
    keys = jax.random.split(jax.random.key(config.first_seed), method.seeds)
    run = jax.jit(jax.vmap(partial(follow, method, iterations)))
    paths = np.asarray(run(keys))
    lost = [_lost_after(path) for path in paths]
    shown = _shown(iterations)
    return {
        "what": "course",
        "method": name,
        "learning_rate": method.learning_rate,
        "theta": [
            float(path[-1]) if after is None else None
            for path, after in zip(paths, lost, strict=True)
        ],
        "lost_after": lost,
        "iterations": (1 + shown).tolist(),
        "path": [
            [float(x) if abs(x) <= LOST else None for x in path[shown]]
            for path in paths
        ],
    }


def _shown(iterations: int) -> np.ndarray:
    return np.unique(np.linspace(0, iterations - 1, 300).astype(int))


def _lost_after(path: np.ndarray) -> int | None:
    beyond = ~(np.abs(path) <= LOST)
    return int(np.argmax(beyond)) if beyond.any() else None
