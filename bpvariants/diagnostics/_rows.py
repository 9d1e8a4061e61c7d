"""A carry as one vector of real numbers for each example."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import floating_parts, widen
from bpvariants.types import PyTree


def as_rows(
    carry: PyTree, batch: tuple[int, ...]
) -> tuple[jax.Array, Callable[[PyTree, jax.Array], PyTree]]:
    """Return the carry as real rows [*batch, n], and how to put rows into a carry."""
    leaves, _ = floating_parts(carry)
    is_complex = [jnp.iscomplexobj(leaf) for leaf in leaves]
    parts = [
        widen(part)
        for leaf, yes in zip(leaves, is_complex, strict=True)
        for part in ((leaf.real, leaf.imag) if yes else (leaf,))
    ]
    dtype = np.result_type(*[part.dtype for part in parts] or [np.float32])
    sizes = [math.prod(part.shape[len(batch) :]) for part in parts]
    rows = [
        part.reshape(*batch, size).astype(dtype)
        for part, size in zip(parts, sizes, strict=True)
    ]

    def rebuild(carry, rows):
        leaves, put = floating_parts(carry)
        pieces = iter(jnp.split(rows, np.cumsum(sizes)[:-1], axis=-1))
        new = []
        for leaf, yes in zip(leaves, is_complex, strict=True):
            part = next(pieces)
            part = jax.lax.complex(part, next(pieces)) if yes else part
            new.append(part.reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf)))
        return put(new)

    empty = jnp.zeros((*batch, 0), dtype)
    return jnp.concatenate([empty, *rows], axis=-1), rebuild
