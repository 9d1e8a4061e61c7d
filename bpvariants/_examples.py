"""Norms, maxima and products of each example in pytrees of batched arrays."""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import widen
from bpvariants.types import PyTree


def select(flags: jax.Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """Return the examples of `if_true` where `flags` [*batch] is True, else `if_false`.

    The leaves of both pytrees are [*batch, ...].
    """

    def choose(a, b):
        if a is b:
            return a
        trailing = (1,) * (jnp.ndim(a) - flags.ndim)
        return jnp.where(flags.reshape(flags.shape + trailing), a, b)

    return jax.tree.map(choose, if_true, if_false)


def squared_norm(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return each example's squared Euclidean norm over all leaves.

    The result has the shape [*batch], and is float32 or wider.
    """
    sizes = [jnp.abs(leaf) for leaf in jax.tree.leaves(widen(tree))]
    dtype = np.result_type(*(size.dtype for size in sizes))
    axes = lambda leaf: tuple(range(batch_ndim, leaf.ndim))
    return reduce(
        jnp.add, [jnp.sum(size.astype(dtype) ** 2, axis=axes(size)) for size in sizes]
    )


def norm(tree: PyTree, batch_ndim: int = 0) -> jax.Array:
    """Return each example's Euclidean norm over all leaves.

    The result has the shape [*batch], and is float32 or wider. Leaves are divided by
    their maxima before they are squared, so that squares neither overflow nor
    underflow.
    """
    norms = [_scaled_norm(leaf, batch_ndim) for leaf in jax.tree.leaves(tree)]
    if len(norms) == 1:
        return norms[0]
    dtype = np.result_type(*(each.dtype for each in norms) if norms else [np.float32])
    norms = [each.astype(dtype) for each in norms] or [jnp.zeros((), dtype)]
    return _scaled_norm(jnp.stack(norms, axis=-1), batch_ndim)


def quick_norm(tree: PyTree, batch_ndim: int = 0) -> jax.Array:
    """Return the norms of :func:`norm`, where possible in one pass over the leaves."""
    if not jax.tree.leaves(tree):
        return norm(tree, batch_ndim)
    return quick_norms([tree], batch_ndim)[0]


def quick_norms(trees: Sequence[PyTree], batch_ndim: int) -> list[jax.Array]:
    """Return the norms of each tree's examples; no tree may be without leaves.

    :func:`norm` divides by the largest absolute value first, so that no square
    overflows or underflows, and therefore reads each leaf twice. Here, the squares are
    added as they are. Only if a sum of squares is so small or so large that squares may
    have underflowed or overflowed, or is 0 or NaN, :func:`norm` computes the results.
    """
    squares = [squared_norm(tree, batch_ndim) for tree in trees]

    def are_safe(total):
        limits = jnp.finfo(total.dtype)
        low = float(limits.tiny) / float(limits.eps) ** 2
        high = float(limits.max) * float(limits.eps)
        return jnp.all((total > low) & (total < high))

    def slow():
        norms = [norm(tree, batch_ndim) for tree in trees]
        return [a.astype(b.dtype) for a, b in zip(norms, squares, strict=True)]

    safe = jnp.all(jnp.stack(list(map(are_safe, squares))))
    return jax.lax.cond(safe, lambda: list(map(jnp.sqrt, squares)), slow)


def _scaled_norm(leaf: jax.Array, batch_ndim: int) -> jax.Array:
    sizes = jnp.abs(widen(leaf))
    axes = tuple(range(batch_ndim, sizes.ndim))
    scale = unit(jnp.max(sizes, axis=axes, keepdims=True, initial=0))
    root = jnp.sqrt(jnp.sum((sizes / scale) ** 2, axis=axes))
    return root * scale.reshape(root.shape)


def unit(largest: jax.Array) -> jax.Array:
    """Return a divisor: `largest`, or 1 if `largest` is 0 or infinite."""
    return jnp.where((largest == 0) | jnp.isinf(largest), 1, largest)


def largest(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return each example's largest absolute value over all leaves, [*batch].

    The value is 0 if the leaves have no elements.
    """
    of_leaf = lambda leaf: jnp.max(
        jnp.abs(widen(leaf)), axis=tuple(range(batch_ndim, leaf.ndim)), initial=0
    )
    return reduce(jnp.maximum, jax.tree.leaves(jax.tree.map(of_leaf, tree)))


def times(factor: jax.Array, tree: PyTree) -> PyTree:
    """Multiply each example of a pytree by its entry of `factor`, [*batch]."""

    def multiply(leaf):
        shape = factor.shape + (1,) * (leaf.ndim - factor.ndim)
        return leaf * factor.reshape(shape).astype(leaf.dtype)

    return jax.tree.map(multiply, tree)


def relative(size: jax.Array, scale: jax.Array) -> jax.Array:
    """Return size / scale, or 0 where `size` is 0."""
    return jnp.where(size == 0, 0, size / jnp.where(size == 0, 1, scale))


def normalised(b: PyTree, batch_ndim: int) -> tuple[jax.Array, PyTree]:
    """Return (s, b / s), where s is the scale of each example: max |b|, or 1 if b = 0.

    The squares of b / s do not overflow, because no element of b / s exceeds 1.
    """
    size = largest(b, batch_ndim)
    size = jnp.where(size == 0, 1, size)
    return size, times(1 / size, b)
