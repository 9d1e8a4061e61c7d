"""Influence balancing after Tallec & Ollivier: where truncation points the wrong way.

    s ← A s + θ v,   A = ½ I + ½ superdiagonal,   v = +1 on the first 10 of 23, −1 on 13

The first unit is to be 1, by the one parameter θ. Ten units drive it up soon, thirteen
drive it down later and more: ds₁/dθ = −6, but an error that travels back less than 41
steps sees only the first, and takes θ the wrong way. Each iteration runs K steps,
carries s on, and steps along the gradient of ½ (s₁ − 1)² at their end. Online rules
take a gradient at every step, and with it the next step already.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from bpvariants.types import GradientRule, OnlineRule
from experiments import report
from experiments.harness.precision import double_precision
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
    """How an online rule is followed: multiples of the configuration's numbers."""

    make: Callable[..., OnlineRule]  # (step, loss) -> rule
    learning_rate: float = 1.0
    iterations: int = 1
    draws: bool = False  # at random, so that several courses are followed


# θ enters element by element, so that KF-RTRL has no factors. The learning rate of UORO
# is a tenth of the others', as published.
ONLINE = {
    "rtrl": Online(gradients.rtrl),
    "snap_1": Online(partial(gradients.snap, order=1)),
    "rflo": Online(lambda _, loss: gradients.rflo(leaky_step, loss)),
    "forward_gradient": Online(gradients.forward_gradient, draws=True),
    "uoro": Online(gradients.uoro, 0.1, draws=True),
    "uoro, 10 times as long": Online(gradients.uoro, 0.1, 10, draws=True),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Balance early influences with late ones, by errors that travel back K steps."""

    lookbacks: tuple[int, ...] = (1, 10, 30, 40, 41, 50, 100)
    """K, how many steps errors travel back: those of one iteration."""
    truncations: tuple[float, ...] = (0.02, 0.1, 0.2)
    """κ of ARTBP, the probability of a cut at each of the 100 steps of an iteration."""
    seeds: int = 5
    """How many courses of what draws at random, under vmap."""
    iterations: int = 3000
    """How often θ is changed."""
    learning_rate: float = 1e-4
    """Of gradient descent."""
    out: Path | None = None
    """Folder to write to; by default runs/influence_balancing-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("seeds", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if not all(K >= 1 for K in self.lookbacks):
            raise ValueError(f"lookbacks must be at least 1, got {self.lookbacks}.")
        if not self.learning_rate > 0:
            raise ValueError(
                f"learning_rate must be positive, got {self.learning_rate}."
            )


class Method(NamedTuple):
    """How to get a gradient from the stream: (θ, state, key) -> (gradient, state)."""

    start: Callable[[jax.Array], Any]  # θ -> state
    iterate: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any]]
    learning_rate: float
    seeds: int = 1  # of what draws at random
    times: int = 1  # as many iterations as the configuration's


def main(config: Config) -> report.Result:
    """Follow θ by each method, show where it ends, and write it to a folder."""
    folder = report.make_folder("influence_balancing", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    chosen = methods(config)
    try:
        with double_precision(), report.Progress(1 + len(chosen)) as progress:
            progress.begin("sensitivity", 1)
            rows.append(_sensitivity_row())
            report.append_row(folder, rows[-1])
            for name, method in chosen.items():
                iterations = method.times * config.iterations
                progress.begin(name, iterations)
                rows.append(_row(iterations, name, method))
                report.append_row(folder, rows[-1])
                progress.advance(iterations)
    except KeyboardInterrupt:
        interrupted = True
    _influence_balancing_report.show(rows, config)
    if len(rows) > 1:
        picture = _influence_balancing_report.draw(rows)
        report.save_picture(folder, "influence_balancing", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def methods(config: Config) -> dict[str, Method]:
    """Return the methods to compare: windows of K steps, then those one at a time."""
    rate = config.learning_rate
    chosen = {}
    for K in config.lookbacks:
        rule = gradients.truncated_bptt(step, half_square, every=K, lookback=K)
        chosen[f"truncated_bptt, K = {K}"] = by_window(rule, K, rate)
    for kappa in config.truncations:
        rule = gradients.artbp(step, half_square, truncation=kappa)
        method = by_window(rule, FARTHEST, rate, config.seeds)
        chosen[f"artbp, κ = {kappa:g}"] = method
    for name, online in ONLINE.items():
        rule, seeds = (
            online.make(step, half_square),
            config.seeds if online.draws else 1,
        )
        method = by_step(rule, online.learning_rate * rate, seeds)
        chosen[name] = method._replace(times=online.iterations)
    return chosen


def by_window(
    rule: GradientRule, steps: int, learning_rate: float, seeds: int = 0
) -> Method:
    """Take gradients along windows of so many steps; seeds where it draws at random."""

    def iterate(theta, s, key):
        xs, targets, weights = stream(steps)
        keys = {"key": key} if seeds else {}
        (_, s), grad = rule(theta, s, xs, targets, weights=weights, **keys)
        return grad, s

    start = lambda theta: jnp.ones(UNITS, theta.dtype)
    return Method(start, iterate, learning_rate, seeds or 1)


def by_step(rule: OnlineRule, learning_rate: float, seeds: int) -> Method:
    """Take a gradient at every step; the state of the rule is kept as θ changes."""

    def iterate(theta, state, key):
        xs, targets, _ = stream(1)
        _, grad, state = rule.update(theta, state, xs[0], targets[0], key=key)
        return grad, state

    def start(theta):
        xs, targets, _ = stream(1)
        return rule.init(theta, jnp.ones(UNITS, theta.dtype), (xs[0], targets[0]))

    return Method(start, iterate, learning_rate, seeds)


def follow(method: Method, iterations: int, key: jax.Array) -> jax.Array:
    """Return θ after each iteration, which stays where it is once it is lost."""

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
    """Return ds₁/dθ of the last of 100 steps by errors that travel back K steps."""
    xs, targets, weights = stream(FARTHEST)
    found = []
    for K in lookbacks:
        rule = gradients.truncated_bptt(step, lambda y, _: y, every=1, lookback=K)
        args = jnp.asarray(0.5), jnp.ones(UNITS), xs, targets
        found.append(float(jax.jit(rule)(*args, weights=weights)[1]))
    return found


def sensitivity_curve() -> jax.Array:
    """Return ds₁/dθ after 1 … 100 steps [100], all at once: the others are padding."""
    rule = gradients.bptt(step, lambda y, _: y)
    xs, targets, weights = stream(FARTHEST)
    args = jnp.asarray(0.5), jnp.ones(UNITS), xs, targets, weights
    masks = np.tri(FARTHEST, dtype=bool)[:, ::-1]
    return jax.jit(jax.vmap(lambda mask: rule(*args, mask)[1]))(jnp.asarray(masks))


def _sensitivity_row() -> dict[str, Any]:
    table = dict(zip(map(str, MEASURED), sensitivities(tuple(MEASURED)), strict=True))
    curve = np.asarray(sensitivity_curve()).tolist()
    return {"what": "sensitivity", "table": table, "curve": curve}


def _row(iterations: int, name: str, method: Method) -> dict[str, Any]:
    """Return θ at the end, and how many iterations left it below 1e6, by seed."""
    keys = jax.random.split(jax.random.key(0), method.seeds)
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
