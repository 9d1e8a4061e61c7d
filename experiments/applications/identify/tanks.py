"""Two tanks, one above the other, whose valves change: a plant to identify.

    x₁' = x₁ + k₃ u − k₁ √x₁ + w₁          the upper one, which a pump fills
    x₂' = x₂ + k₁ √x₁ − k₂ √x₂ + w₂        the lower one, whose level is measured
    y   = x₂ + e

Torricelli's law, one sample a step, nothing overflows. u, the pump, holds a random
level for some steps. The model of it is an observer, which puts its levels right by
what it is told, by a gain that is learned as k is:

    x̂ ← x̂ + G (y − x̂₂),    x̂ ← f(x̂, u; k),    its prediction of the next y is x̂₂

By exact gradients this is the recursive prediction error method (Ljung, Söderström).

References:
  Schoukens, Noël, "Three benchmarks addressing open challenges in nonlinear system
  identification", IFAC-PapersOnLine 50, 2017, doi:10.1016/j.ifacol.2017.08.071.
  Ljung, Söderström, "Theory and practice of recursive identification", MIT Press 1983.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree

BEFORE = (0.30, 0.30, 0.30)  # k₁, k₂, k₃
AFTER = (0.30, 0.21, 0.36)  # the lower valve clogs, the pump is renewed
GUESS = (0.2, 0.2, 0.2)
GAIN = (0.1, 0.3)
LEVELS, HOLD = (0.8, 2.2), 10  # of u, and how long a level lasts, in the mean
PROCESS, MEASUREMENT = 0.01, 0.05  # deviations of w and e
LOWEST = 1e-2  # a level, where the root is still smooth


class Record(NamedTuple):
    """What was given to a plant, and what it did."""

    xs: jax.Array  # [T, 2]: u_t and y_t
    targets: jax.Array  # [T]: y_{t+1}
    levels: jax.Array  # [T]: x₂ at t + 1, which nobody measures
    k: jax.Array  # [T, 3]


def flow(k: jax.Array, levels: jax.Array, u: jax.Array) -> jax.Array:
    """Return levels [2] one step later, of which none is below :data:`LOWEST`."""
    upper, lower = jnp.sqrt(jnp.maximum(levels, LOWEST))
    change = jnp.stack([k[2] * u - k[0] * upper, k[0] * upper - k[1] * lower])
    return jnp.maximum(levels + change, LOWEST)


def simulate(key: jax.Array, steps: int, jump: int) -> Record:
    """Run a plant whose k is that of AFTER from a step on.

    Args:
      key: of its inputs and noise.
      steps: how many.
      jump: the step at which k changes.
    """
    of_u, of_hold, of_w, of_e = jax.random.split(key, 4)
    lowest, highest = LEVELS
    drawn = jax.random.uniform(of_u, (steps,), minval=lowest, maxval=highest)
    changes = jax.random.bernoulli(of_hold, 1 / HOLD, (steps,)).at[0].set(True)
    last = jax.lax.cummax(jnp.where(changes, jnp.arange(steps), 0))
    u = drawn[last]
    after = jnp.arange(steps)[:, None] >= jump
    k = jnp.where(after, jnp.array(AFTER), jnp.array(BEFORE))

    def step(levels, inputs):
        k, u, w = inputs
        new = jnp.maximum(flow(k, levels, u) + w, LOWEST)
        return new, (levels[1], new[1])

    w = PROCESS * jax.random.normal(of_w, (steps, 2))
    at_first = jnp.array([1.5, 1.5]) ** 2
    _, (now, later) = jax.lax.scan(step, at_first, (k, u, w))
    e = MEASUREMENT * jax.random.normal(of_e, (steps + 1,))
    xs = jnp.stack([u, now + e[:-1]], axis=1)
    return Record(xs, later + e[1:], later, k)


def init(k: tuple[float, ...] = GUESS, gain: tuple[float, ...] = GAIN) -> PyTree:
    """Return parameters of the observer, such that k > 0 and 0 < G < 1 whatever."""
    logit = jax.scipy.special.logit(jnp.array(gain))
    return {"log_k": jnp.log(jnp.array(k)), "gain": logit}


def zeros() -> jax.Array:
    """Return the levels that the observer begins with."""
    return jnp.ones(2)


def observe(params: PyTree, levels: jax.Array, x: jax.Array):
    """Take a step of the observer, x being (u, y); it predicts the next y."""
    u, y = x
    corrected = levels + jax.nn.sigmoid(params["gain"]) * (y - levels[1])
    new = flow(jnp.exp(params["log_k"]), jnp.maximum(corrected, LOWEST), u)
    return new, new[1]
