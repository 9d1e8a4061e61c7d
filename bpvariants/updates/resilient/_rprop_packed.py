"""Rprop on one array, with the step size and sign of each element in one float.

    sign bit | exponent | mantissa … flag        flag 0: s is 1, or −1 if the sign bit
                                                 is set; flag 1: s is 0, and g changed
                                                 its sign if the sign bit is set

Here g is the gradient, and s is the sign with which the next gradient is compared. The
exponent and the mantissa are those of the step size. The flag replaces the last bit of
the mantissa. In Rprop⁻, the sign s does not become 0 when g changes its sign, so the
state of Rprop⁻ does not record sign changes. Params move by the rounded step sizes that
the state stores, because a step and its reversal must have equal lengths. All bits are
processed as integers, which takes half as many operations as arithmetic on floats.
"""

from typing import Any

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
    bits = _bits(step_size)
    return _floats(bits | _flag(layout, bits), layout), None


def rounded(step_size: jax.Array, layout: RpropLayout) -> jax.Array:
    """Round a step size to the nearest value that can be stored, with ties to even."""
    lost = 17 if layout.state == "bfloat16" else 1  # mantissa bits that are not stored
    bits = _bits(step_size)
    number = bits.dtype.type
    odd = (bits >> number(lost)) & number(1)
    bits = bits + number((1 << (lost - 1)) - 1) + odd
    return _as_float(bits & number(-(1 << lost)))


def advance(
    g: jax.Array, kept: Kept, numbers: Numbers, layout: RpropLayout, worse: jax.Array
) -> tuple[jax.Array, Kept]:
    """Return the moves of the params, and the new state.

    Where the gradient g is NaN, the move is NaN and the state does not change.
    """
    packed, _ = kept
    bits, g_bits = _bits(packed), _bits(g)
    top, flag = _top(bits), _flag(layout, bits)
    zero = jnp.zeros((), bits.dtype)
    # Subnormal gradients count as 0, as they do in jnp.sign on a CPU.
    moving = (g_bits & ~top) >= _bits(jnp.finfo(g.dtype).tiny)
    compared = moving & ((bits & flag) == 0)
    differ = (bits ^ g_bits) < 0
    old = _as_float(bits & ~(top | flag))
    new = jnp.where(compared, _adapted(old, differ, numbers, layout), old)

    new_bits = _bits(new) | jnp.where(moving, g_bits & top, flag)
    if layout.rests:
        new_bits = new_bits | jnp.where(compared & differ, top | flag, zero)
    new_packed = jnp.where(jnp.isnan(g), packed, _floats(new_bits, layout))

    # Compute the move from the new state, so that XLA can overwrite the old state.
    new_bits = _bits(jax.lax.optimization_barrier(new_packed))
    resting = (new_bits & flag) != 0
    move = jnp.where(resting, 0, _as_float(new_bits & ~flag))
    if layout.rests and layout.variant != "irprop_minus":
        size = _as_float(new_bits & ~(top | flag))
        size = at_flip(layout.variant, old, size, worse)
        move = jnp.where(resting & (new_bits < 0), jnp.copysign(size, g), move)
    return jnp.where(jnp.isnan(g), jnp.nan, move), (new_packed, None)


def see(kept: Kept, layout: RpropLayout) -> Seen:
    """Return the step sizes and sign changes of the last step."""
    bits = _bits(kept[0])
    top, flag = _top(bits), _flag(layout, bits)
    flipped = (bits < 0) & ((bits & flag) != 0)
    step_sizes = _as_float(bits & ~(top | flag))
    return Seen(step_sizes, flipped if layout.rests else None)


def _adapted(old, differ, numbers, layout):
    down, up, least, greatest = numbers
    new = rounded(old * jnp.where(differ, down, up), layout)
    return jnp.where(differ, jnp.maximum(new, least), jnp.minimum(new, greatest))


def _bits(values: Any) -> jax.Array:
    """Return the bits of floats as integers; bfloat16 is cast to float32 first."""
    values, bitcast = jnp.asarray(values), jax.lax.bitcast_convert_type
    if values.dtype == jnp.bfloat16:
        return bitcast(values, jnp.int16).astype(jnp.int32) << jnp.int32(16)
    return bitcast(values, jnp.int64 if values.dtype == jnp.float64 else jnp.int32)


def _as_float(bits: jax.Array) -> jax.Array:
    dtype = jnp.float64 if bits.dtype == jnp.int64 else jnp.float32
    return jax.lax.bitcast_convert_type(bits, dtype)


def _floats(bits: jax.Array, layout: RpropLayout) -> jax.Array:
    """Return the floats with the given bit patterns, in the dtype of the state."""
    if layout.state != "bfloat16":
        return _as_float(bits)
    upper = (bits >> jnp.int32(16)).astype(jnp.int16)
    return jax.lax.bitcast_convert_type(upper, jnp.bfloat16)


def _top(bits: jax.Array) -> jax.Array:
    return jnp.asarray(jnp.iinfo(bits.dtype).min, bits.dtype)


def _flag(layout: RpropLayout, bits: jax.Array) -> jax.Array:
    """Return a bit mask that selects the flag, the last stored bit of the mantissa."""
    return jnp.asarray(1 << 16 if layout.state == "bfloat16" else 1, bits.dtype)
