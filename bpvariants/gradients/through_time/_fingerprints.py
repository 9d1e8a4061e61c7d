"""Fingerprints of a sequence of carries, to check whether the carries were recovered.

Notation: h_t is one array (leaf) of the carry, n the number of its elements, and s_t
and r_i are random signs. The sequence is divided into 64 windows W, and the array's
fingerprint in a window is

    p_W = Σ_{t∈W} s_t Σ_i r_i h_{t,i}.

If the elements in a window have independent errors of standard deviation e, p_W has
the error √(n |W|) e. Errors are compared with this value, so larger errors in a single
step of a long window may not be noticed. Fingerprints need the memory of 64 numbers for
each array, however long the sequence is.
"""

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
    """Return zeros, [leaves, windows], to which :func:`add_fingerprint` adds."""
    dtypes = [jax.eval_shape(widen, leaf).dtype for leaf in leaves]
    dtype = reduce(np.promote_types, dtypes, np.float32)
    return jnp.zeros((len(leaves), WINDOWS), dtype)


def add_fingerprint(
    prints: jax.Array, leaves: list[jax.Array], t: jax.Array, window: jax.Array
) -> jax.Array:
    """Add the terms of time step t, whose carry has the given leaves."""
    for i, leaf in enumerate(leaves):
        signs = _coin(jnp.arange(leaf.size, dtype=jnp.uint32)) ^ _coin(t)
        flat = widen(leaf).astype(prints.dtype).reshape(-1)
        prints = prints.at[i, window].add(jnp.sum(jnp.where(signs, flat, -flat)))
    return prints


def agree(
    first: jax.Array,
    second: jax.Array,
    leaves: list[jax.Array],
    steps: Steps,
    most: jax.Array,
) -> jax.Array:
    """Return whether two sequences of carries can differ by errors of `most` only.

    `leaves` are those of a carry, and `most` has one number for each leaf.
    """
    count = np.bincount(steps.window, minlength=WINDOWS)
    sizes = np.array([leaf.size for leaf in leaves])
    error = jnp.abs(first - second)
    allowed = np.sqrt(np.outer(sizes, count)).astype(error.dtype)
    return jnp.all(error <= allowed * most.astype(error.dtype)[:, None])


def _coin(number: jax.Array) -> jax.Array:
    """Return a random bit for each number, by an integer hash (lowbias32)."""
    x = number.astype(jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return ((x ^ (x >> 16)) & 1) == 1
