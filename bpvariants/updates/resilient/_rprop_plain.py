"""Rprop on one array, with step sizes and signs in separate arrays.

The signs, with which the next gradient is compared, have the dtype of the step sizes,
or int8. The array of signs also records what the last gradient did to the step size:

    0          s = 0, and the step size stayed
    ±1         s = ±1, and the step size stayed
    ±3         s = ±1, and the step size grew
    ±2         the gradient changed its sign, and the step size shrank; s = 0, or s = ±1
               in Rprop⁻
    HELD + s   the gradient was NaN, and the step size stayed; s as above, or ±2

Here s is the sign with which the next gradient is compared. `rprop_report` counts the
sign changes. On a CPU, XLA computes each output in a loop of its own, and every loop
reads its inputs again. With these records, the loop of the step sizes reads only the
old step sizes and the new records, and the loop of the params only the new step sizes
and the new records. So each array is overwritten in place, without a temporary copy.
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

GREW, FLIPPED = 3, 2
HELD = 32  # added to a record where the gradient was NaN
USE_OLD = ("rprop_plus", "irprop_plus")  # their moves may need the old step sizes


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

    Where the gradient g is NaN, the move is NaN. The step size, and the sign with which
    the next gradient is compared, do not change.
    """
    old, marks = kept
    marks = jax.lax.optimization_barrier(_record(g, marks, layout))
    new = _adapted(old, jnp.abs(marks), numbers)
    sign = jnp.clip(marks, -1, 1).astype(old.dtype)
    flipped = jnp.abs(marks) == FLIPPED
    if layout.variant in USE_OLD:
        size = at_flip(layout.variant, old, new, worse)
    else:
        new = jax.lax.optimization_barrier(new)
        size = at_flip(layout.variant, new, new, worse)
    move = sign * jnp.where(flipped, size, new)
    return jnp.where(marks >= HELD - GREW, jnp.nan, move), (new, marks)


def adapted(old: jax.Array, agreement: jax.Array, numbers: Numbers) -> jax.Array:
    """Return the new step sizes; `agreement` is the product of the last two signs."""
    mark = jnp.where(agreement > 0, GREW, jnp.where(agreement < 0, FLIPPED, 0))
    return _adapted(old, mark, numbers)


def see(kept: Kept, layout: RpropLayout) -> Seen:
    """Return the step sizes and sign changes of the last step."""
    del layout
    step_sizes, marks = kept
    return Seen(step_sizes, jnp.abs(_without_hold(marks)) == FLIPPED)


def _record(g: jax.Array, marks: jax.Array, layout: RpropLayout) -> jax.Array:
    """Return the new array of signs and records."""
    # Multiply signs instead of gradients, because the product of two small gradients
    # may underflow to 0.
    sign = jnp.sign(g)
    before = _without_hold(marks)
    flipped = jnp.abs(before) == FLIPPED
    last = jnp.clip(before, -1, 1)
    compared = jnp.where(flipped, 0, last) if layout.rests else last
    # If this were computed by integers, XLA on CPUs would not store the records first,
    # but compute them again in the loops of the step sizes and of the params.
    agreement = sign * compared.astype(sign.dtype)
    factor = jnp.where(agreement > 0, GREW, jnp.where(agreement < 0, FLIPPED, 1))
    new = (sign * factor.astype(sign.dtype)).astype(marks.dtype)
    hold = jnp.where(flipped, before, last) + jnp.asarray(HELD, marks.dtype)
    return jnp.where(jnp.isnan(g), hold, new)


def _without_hold(marks: jax.Array) -> jax.Array:
    held = marks >= HELD - GREW
    return jnp.where(held, marks - jnp.asarray(HELD, marks.dtype), marks)


def _adapted(old: jax.Array, mark: jax.Array, numbers: Numbers) -> jax.Array:
    down, up, least, greatest = numbers
    longer = jnp.minimum(old * up, greatest)
    shorter = jnp.maximum(old * down, least)
    # `old * where(…, up, down)` would be slower, because XLA would copy `old`.
    kept = jnp.where(mark == FLIPPED, shorter, old)
    return jnp.where(mark == GREW, longer, kept)
