"""Rprop on one array, with Δ and s in arrays of their own.

s is in float32 or int8, where a gradient that changed its sign leaves a 2 for those who
look at it: +2 if s is 0 from there, ±2 if it is ±1.
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
    """Return what is kept before the first gradient: Δ_0 and s = 0."""
    dtype = jnp.int8 if layout.state == "int8_sign" else step_size.dtype
    return step_size, jnp.zeros_like(step_size, dtype=dtype)


def rounded(step_size: jax.Array, layout: RpropLayout) -> jax.Array:
    """Return what can be kept of a step size, which is all of it."""
    del layout
    return step_size


def advance(
    g: jax.Array, kept: Kept, numbers: Numbers, layout: RpropLayout, worse: jax.Array
) -> tuple[jax.Array, Kept]:
    """Return D sign(g), and what is kept then; NaN moves by NaN and changes nothing."""
    old, marks = kept
    # The product of two small gradients may underflow to 0, that of signs cannot.
    sign = jnp.sign(g)
    agreement = sign * _last_sign(marks, layout).astype(sign.dtype)
    flipped = agreement < 0
    new = adapted(old, agreement, numbers)
    move = sign * jnp.where(flipped, at_flip(layout.variant, old, new, worse), new)
    at_change = jnp.full_like(sign, 2) if layout.rests else 2 * sign
    mark = jnp.where(flipped, at_change, sign).astype(marks.dtype)
    return move, (new, jnp.where(jnp.isnan(sign), marks, mark))


def adapted(old: jax.Array, agreement: jax.Array, numbers: Numbers) -> jax.Array:
    """Return Δ_t; a gradient of NaN agrees with nothing."""
    down, up, least, greatest = numbers
    longer = jnp.minimum(old * up, greatest)
    shorter = jnp.maximum(old * down, least)
    # XLA copies step sizes first, and is slower, if the factor is chosen instead.
    return jnp.where(agreement > 0, longer, jnp.where(agreement < 0, shorter, old))


def see(kept: Kept, layout: RpropLayout) -> Seen:
    """Return what the state tells of the last step."""
    del layout
    step_sizes, marks = kept
    return Seen(step_sizes, jnp.abs(marks) == 2)


def _last_sign(marks, layout):
    return jnp.where(marks == 2, 0, marks) if layout.rests else jnp.clip(marks, -1, 1)
