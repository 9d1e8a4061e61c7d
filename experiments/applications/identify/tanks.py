"""Plant of `identify`: two tanks, one above the other, with parameters that change.

    x₁' = x₁ + k₃ u − k₁ √x₁ + w₁          level of the upper tank, filled by a pump
    x₂' = x₂ + k₁ √x₁ − k₂ √x₂ + w₂        level of the lower tank
    y   = x₂ + e                           measurement of the lower level

x₁ and x₂ are levels, and x₁' and x₂' are the levels one time step later. k₁, k₂ and k₃
are parameters; w₁, w₂ and e are noise. Outflow obeys Torricelli's law. Each time step
has one measurement, and no tank overflows. The input u of the pump is random, and stays
constant for ten steps on average. The model of the plant is an observer, which
estimates the levels as x̂. The observer corrects x̂ by the measurement y, then applies
f, the plant's step without noise. The gain G of the correction is learned together with
the parameters k:

    x̂ ← x̂ + G (y − x̂₂),    x̂ ← f(x̂, u; k),    prediction of the next y: x̂₂

Learning an observer online with exact gradients is the recursive prediction error
method of Ljung and Söderström.

References:
  Schoukens, Noël, "Three benchmarks addressing open challenges in nonlinear system
  identification", IFAC-PapersOnLine 50, 2017, doi:10.1016/j.ifacol.2017.08.071.
  Ljung, Söderström, "Theory and practice of recursive identification", MIT Press 1983.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree

BEFORE = (0.30, 0.30, 0.30)  # parameters k₁, k₂, k₃ of the plant
AFTER = (0.30, 0.21, 0.36)  # the lower valve is partly clogged, and the pump stronger
GUESS = (0.2, 0.2, 0.2)
GAIN = (0.1, 0.3)
LEVELS, HOLD = (0.8, 2.2), 10  # range of the input u, mean steps between its changes
PROCESS, MEASUREMENT = 0.01, 0.05  # standard deviations of the noise w and e
LOWEST = 1e-2  # lowest level, so that √x has a bounded derivative


class Record(NamedTuple):
    """Inputs, outputs and parameters of a plant over time."""

    xs: jax.Array  # [T, 2]: input u_t and output y_t
    targets: jax.Array  # [T]: output y_{t+1}
    levels: jax.Array  # [T]: true level x₂ of the lower tank at t + 1
    k: jax.Array  # [T, 3]: parameters k₁, k₂, k₃ of the plant


def flow(k: jax.Array, levels: jax.Array, u: jax.Array) -> jax.Array:
    """Return the levels [2] after one time step; each is at least :data:`LOWEST`."""
    upper, lower = jnp.sqrt(jnp.maximum(levels, LOWEST))
    change = jnp.stack([k[2] * u - k[0] * upper, k[0] * upper - k[1] * lower])
    return jnp.maximum(levels + change, LOWEST)


def simulate(key: jax.Array, steps: int, jump: int) -> Record:
    """Simulate a plant whose parameters change from :data:`BEFORE` to :data:`AFTER`.

    Args:
      key: key for inputs and noise.
      steps: number of steps.
      jump: time step at which the parameters change.
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
    """Return the observer's params: the log of k and the logit of the gain G.

    For all values of these params, the parameters k are positive, and 0 < G < 1.
    """
    logit = jax.scipy.special.logit(jnp.array(gain))
    return {"log_k": jnp.log(jnp.array(k)), "gain": logit}


def zeros() -> jax.Array:
    """Return the initial levels of the observer."""
    return jnp.ones(2)


def observe(params: PyTree, levels: jax.Array, x: jax.Array):
    """Run one step of the observer; x = (u, y) is the plant's input u and output y.

    Return the estimated levels, and the prediction of the next output.
    """
    u, y = x
    corrected = levels + jax.nn.sigmoid(params["gain"]) * (y - levels[1])
    new = flow(jnp.exp(params["log_k"]), jnp.maximum(corrected, LOWEST), u)
    return new, new[1]
