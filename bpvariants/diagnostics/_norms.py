"""The norm of arrays whose squares may be too small, or too large, for their dtype."""

import jax
import jax.numpy as jnp

from bpvariants._dtypes import widen
from bpvariants.types import PyTree


def norm(array: jax.Array, axis: int | None = None) -> jax.Array:
    """Return √Σ|a|², over one axis or all, in float32 or wider."""
    sizes = jnp.abs(widen(array))
    scale = unit(jnp.max(sizes, axis=axis, keepdims=True, initial=0))
    root = jnp.sqrt(jnp.sum((sizes / scale) ** 2, axis=axis))
    return root * scale.reshape(root.shape)


def tree_norm(tree: PyTree) -> jax.Array:
    """Return the norm of all leaves together."""
    norms = [norm(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = jnp.result_type(*norms)
    return norm(jnp.stack([each.astype(dtype) for each in norms]))


def unit(largest: jax.Array) -> jax.Array:
    """Return what to divide by, so that the largest is 1; 0 and infinity stay."""
    return jnp.where((largest == 0) | jnp.isinf(largest), 1, largest)
