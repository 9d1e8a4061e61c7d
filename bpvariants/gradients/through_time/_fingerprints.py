"""Fingerprints of a sequence of carries, to check whether the carries were recovered.

Notation: h_t is the carry, n the number of its elements, and s_t and r_i are random
signs. The sequence is divided into 64 windows, and the fingerprint of a window W is

    p_W = Σ_{t∈W} s_t Σ_i r_i h_{t,i}.

If the carries of a window have independent errors of standard deviation e, p_W has the
error √(n |W|) e. Fingerprints need the memory of 64 numbers, however long the sequence.
"""

import math
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import widen

WINDOWS = 64


class Steps(NamedTuple):
    """Time steps of a sequence, as inputs of a scan; both are [length]."""

    t: np.ndarray  # 0, 1, 2, …
    window: np.ndarray  # a window consists of successive steps


def steps_of(length: int) -> Steps:
    """Return the time steps of a sequence of the given length."""
    t = np.arange(length)
    window = t * WINDOWS // max(length, 1)
    return Steps(t.astype(np.uint32), window.astype(np.int32))


def no_fingerprints(leaves: list[jax.Array]) -> jax.Array:
    """Return zeros, to which :func:`add_fingerprint` adds; `leaves` are of a carry."""
    dtypes = [jax.eval_shape(widen, leaf).dtype for leaf in leaves]
    return jnp.zeros(WINDOWS, reduce(np.promote_types, dtypes, np.float32))


def add_fingerprint(
    prints: jax.Array, leaves: list[jax.Array], t: jax.Array, window: jax.Array
) -> jax.Array:
    """Add the term of time step t, whose carry has the given leaves."""
    begin, total = 0, jnp.zeros([], prints.dtype)
    for leaf in leaves:
        numbers = jnp.arange(begin, begin + leaf.size, dtype=jnp.uint32)
        flat = widen(leaf).astype(prints.dtype).reshape(-1)
        total += jnp.sum(jnp.where(_coin(numbers), flat, -flat))
        begin += leaf.size
    return prints.at[window].add(jnp.where(_coin(t), total, -total))


def agree(
    first: jax.Array,
    second: jax.Array,
    leaves: list[jax.Array],
    steps: Steps,
    most: jax.Array,
) -> jax.Array:
    """Return whether two sequences of carries can differ by errors of `most` at most.

    `leaves` are those of a carry.
    """
    count = np.bincount(steps.window, minlength=WINDOWS)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    error = jnp.abs(first - second)
    allowed = np.sqrt(size * count).astype(error.dtype) * most.astype(error.dtype)
    return jnp.all(error <= allowed)


def _coin(number: jax.Array) -> jax.Array:
    """Return a random bit for each number, by an integer hash (lowbias32)."""
    x = number.astype(jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return ((x ^ (x >> 16)) & 1) == 1
