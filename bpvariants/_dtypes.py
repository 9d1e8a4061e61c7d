"""Casts. Long sums and Rprop's step sizes are kept in float32 or wider."""

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree

NARROW = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def widen(tree: PyTree) -> PyTree:
    """Cast what is narrower than float32 to it, and leave the rest as it is."""

    def widen_leaf(leaf):
        narrow = jnp.result_type(leaf) in NARROW
        return jnp.asarray(leaf, jnp.float32 if narrow else None)

    return jax.tree.map(widen_leaf, tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Cast each leaf to the dtype of its counterpart."""

    def cast(leaf, like):  # what has it already may be weakly typed, and stays so
        dtype = jnp.result_type(like)
        return leaf if jnp.result_type(leaf) == dtype else jnp.asarray(leaf, dtype)

    return jax.tree.map(cast, tree, like)


def is_floating(leaf: object) -> bool:
    """Whether a leaf is real or complex, that is, whether it has derivatives."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_key(leaf: object) -> bool:
    """Whether a leaf is an array of keys, as `jax.random.key` makes them."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
