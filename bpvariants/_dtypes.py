"""Casts and dtype tests of pytree leaves.

Callers cast long sums and the step sizes of Rprop to float32 or wider, because bfloat16
and float16 would round them too coarsely.
"""

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree

NARROW = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def widen(tree: PyTree) -> PyTree:
    """Cast bfloat16 and float16 leaves to float32; leave other dtypes unchanged."""

    def widen_leaf(leaf):
        narrow = jnp.result_type(leaf) in NARROW
        return jnp.asarray(leaf, jnp.float32 if narrow else None)

    return jax.tree.map(widen_leaf, tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Cast each leaf of a tree to the dtype of its counterpart in `like`."""

    def cast(leaf, like):  # a cast to the leaf's own dtype would lose its weak type
        dtype = jnp.result_type(like)
        return leaf if jnp.result_type(leaf) == dtype else jnp.asarray(leaf, dtype)

    return jax.tree.map(cast, tree, like)


def is_floating(leaf: object) -> bool:
    """Return whether a leaf has a floating or complex dtype, and so has derivatives."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_key(leaf: object) -> bool:
    """Return whether a leaf is an array of typed keys, as `jax.random.key` returns."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
