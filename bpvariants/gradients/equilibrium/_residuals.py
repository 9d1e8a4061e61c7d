"""Measures of the progress of an iteration, computed from its last residuals."""

import jax
import jax.numpy as jnp

from bpvariants._examples import relative

WINDOW = 20  # number of last residuals that are averaged, because residuals oscillate
PATIENCE = 20  # number of steps without progress before the iteration is examined


def is_due(since: jax.Array) -> jax.Array:
    """Return whether the lowest residual is exactly 20, 40, 80, … steps old."""
    waits = since // PATIENCE
    return (waits > 0) & (since == PATIENCE * waits) & ((waits & (waits - 1)) == 0)


def contraction(recent: jax.Array, steps: jax.Array) -> jax.Array:
    """Return the geometric mean of the ratios of consecutive residuals in `recent`."""
    ratios = jnp.clip(steps - 1, 0, WINDOW - 1)
    first = jnp.take_along_axis(recent, WINDOW - 1 - ratios[None], axis=0)[0]
    ratio = relative(recent[-1], first)
    power = 1 / jnp.maximum(ratios, 1).astype(ratio.dtype)
    return jnp.where(ratios > 0, ratio**power, 0)


def will_fail(
    recent: jax.Array,
    residual: jax.Array,
    steps: jax.Array,
    tol: jax.Array,
    limit: jax.Array,
) -> jax.Array:
    """Predict from the last 20 residuals whether `limit` steps are too few to converge.

    `residual` is the relative residual after `steps` steps. The result is a mask
    [*batch]. It is False before step 20.
    """
    ratio = relative(recent[-1], recent[0])
    power = (limit - steps).astype(ratio.dtype) / (WINDOW - 1)
    return (steps >= WINDOW) & (residual * ratio**power > tol)
