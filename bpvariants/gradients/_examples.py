"""Arithmetic on states of leaves [*batch, ...], example by example."""

import math
from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp

from bpvariants._dtypes import widen
from bpvariants.types import PyTree


def squared_norm(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return the sum of |a|² over all leaves, [*batch], in float32 or wider."""
    square = lambda leaf: jnp.sum(
        jnp.abs(widen(leaf)) ** 2, axis=tuple(range(batch_ndim, leaf.ndim))
    )
    return reduce(jnp.add, jax.tree.leaves(jax.tree.map(square, tree)))


def norm(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return the Euclidean norm over all leaves, [*batch], in float32 or wider."""
    return jnp.sqrt(squared_norm(tree, batch_ndim))


def largest(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return the largest absolute value in all leaves, [*batch], 0 if there is none."""
    of_leaf = lambda leaf: jnp.max(
        jnp.abs(widen(leaf)), axis=tuple(range(batch_ndim, leaf.ndim)), initial=0
    )
    return reduce(jnp.maximum, jax.tree.leaves(jax.tree.map(of_leaf, tree)))


def times(factor: jax.Array, tree: PyTree) -> PyTree:
    """Multiply each example by its factor, [*batch]."""

    def multiply(leaf):
        shape = factor.shape + (1,) * (leaf.ndim - factor.ndim)
        return leaf * factor.reshape(shape).astype(leaf.dtype)

    return jax.tree.map(multiply, tree)


def relative(size: jax.Array, scale: jax.Array) -> jax.Array:
    """Return size / scale, 0 where both are 0."""
    return jnp.where(size == 0, 0, size / jnp.where(size == 0, 1, scale))


def normalised(b: PyTree, batch_ndim: int) -> tuple[jax.Array, PyTree]:
    """Return a scale and b / scale, as the squares of tiny numbers would count as 0."""
    size = largest(b, batch_ndim)
    size = jnp.where(size == 0, 1, size)
    return size, times(1 / size, b)


def as_vectors(
    tree: PyTree, batch_ndim: int
) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Return the examples as real vectors [*batch, n], and how to turn them back.

    They are float32 or wider; a complex number takes two places.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_complex = [jnp.iscomplexobj(leaf) for leaf in leaves]
    parts = [
        jnp.stack([leaf.real, leaf.imag], axis=-1) if two else leaf
        for leaf, two in zip(map(widen, leaves), is_complex, strict=True)
    ]
    dtype = reduce(jnp.promote_types, [part.dtype for part in parts])
    sizes = [math.prod(part.shape[batch_ndim:]) for part in parts]
    batch = parts[0].shape[:batch_ndim]

    def as_tree(vectors):
        start, new = 0, []
        for leaf, part, size, two in zip(leaves, parts, sizes, is_complex, strict=True):
            piece = vectors[..., start : start + size].reshape(part.shape)
            piece = jax.lax.complex(piece[..., 0], piece[..., 1]) if two else piece
            new.append(piece.astype(leaf.dtype))
            start += size
        return jax.tree.unflatten(structure, new)

    rows = [
        part.reshape(*batch, size).astype(dtype)
        for part, size in zip(parts, sizes, strict=True)
    ]
    return jnp.concatenate(rows, axis=-1), as_tree
