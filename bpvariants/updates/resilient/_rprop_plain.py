"""Rprop on one array of params, with step sizes and signs in separate arrays.

The signs, with which the next gradient is compared, have the dtype of the step sizes,
or int8. Where the gradient changed its sign at the last step, the array of signs stores
2 in place of 0, and ±2 in place of ±1. From these values, `rprop_report` counts sign
changes.
"""

import jax
import jax.numpy as jnp

from bpvariants.updates.resilient._rprop_layouts import (
    at_flip,
    Kept,
    Numbers,
    RpropLayout,
    Seen,
)


def start(step_size: jax.Array, layout: RpropLayout) -> Kept:
    """Return the state before the first gradient: first step sizes, and signs of 0."""
    dtype = jnp.int8 if layout.state == "int8_sign" else step_size.dtype
    return step_size, jnp.zeros_like(step_size, dtype=dtype)


def rounded(step_size: jax.Array, layout: RpropLayout) -> jax.Array:
    """Return the step size unchanged: this layout stores it without rounding."""
    del layout
    return step_size


def advance(
    g: jax.Array, kept: Kept, numbers: Numbers, layout: RpropLayout, worse: jax.Array
) -> tuple[jax.Array, Kept]:
    """Return the moves of the params, and the new state.

    Where the gradient g is NaN, the move is NaN and the state does not change.
    """
    old, marks = kept
    # Multiply signs instead of gradients, because the product of two small gradients
    # may underflow to 0.
    sign = jnp.sign(g)
    agreement = sign * _last_sign(marks, layout).astype(sign.dtype)
    flipped = agreement < 0
    new = adapted(old, agreement, numbers)
    move = sign * jnp.where(flipped, at_flip(layout.variant, old, new, worse), new)
    at_change = jnp.full_like(sign, 2) if layout.rests else 2 * sign
    mark = jnp.where(flipped, at_change, sign).astype(marks.dtype)
    return move, (new, jnp.where(jnp.isnan(sign), marks, mark))


def adapted(old: jax.Array, agreement: jax.Array, numbers: Numbers) -> jax.Array:
    """Return the new step sizes; `agreement` is the product of the last two signs."""
    down, up, least, greatest = numbers
    longer = jnp.minimum(old * up, greatest)
    shorter = jnp.maximum(old * down, least)
    # `old * where(…, up, down)` would be slower, because XLA would copy `old`.
    return jnp.where(agreement > 0, longer, jnp.where(agreement < 0, shorter, old))


def see(kept: Kept, layout: RpropLayout) -> Seen:
    """Return the step sizes and sign changes of the last step."""
    del layout
    step_sizes, marks = kept
    return Seen(step_sizes, jnp.abs(marks) == 2)


def _last_sign(marks, layout):
    return jnp.where(marks == 2, 0, marks) if layout.rests else jnp.clip(marks, -1, 1)
