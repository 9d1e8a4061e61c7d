"""Network s ← A s + θ v of `influence_balancing`, and its stream of inputs."""

import jax
import jax.numpy as jnp

UNITS, POSITIVE = 23, 10


def step(theta: jax.Array, s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute one step: each unit becomes the mean of itself and the next unit, ± θ.

    The parameter θ is added to the first ten units, and subtracted from all others.
    """
    del x
    signs = jnp.where(jnp.arange(UNITS) < POSITIVE, 1, -1).astype(s.dtype)
    next_ones = jnp.concatenate([s[1:], jnp.zeros_like(s[:1])])
    s = (s + next_ones) / 2 + theta * signs
    return s, s[0]


def leaky_step(
    theta: jax.Array, s: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the same result as `step`, written as a leaky RNN, which RFLO needs."""
    del x
    weights = jnp.eye(UNITS, k=-1, dtype=s.dtype)
    signs = jnp.where(jnp.arange(UNITS) < POSITIVE, 1, -1).astype(s.dtype)
    s = (s + s @ weights) / 2 + theta * signs
    return s, s[0]


def half_square(y: jax.Array, target: jax.Array) -> jax.Array:
    """Return the loss ½ (y − target)²."""
    return (y - target) ** 2 / 2


def stream(steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return empty inputs [K, 0], targets [K] and loss weights [K] for K = `steps`.

    The targets are 1. The loss weights are 0, except that of the last step, which is 1.
    """
    return jnp.zeros((steps, 0)), jnp.ones(steps), jnp.zeros(steps).at[-1].set(1)
