"""Arithmetic on states of leaves [*batch, ...], example by example."""

import math
from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import floating_parts, widen
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


def scaled_norm(array: jax.Array, axis: int | None = None) -> jax.Array:
    """Return √Σ|a|², over one axis or all, in float32 or wider.

    Right also where the squares would overflow or vanish, at the cost of a maximum.
    """
    sizes = jnp.abs(widen(array))
    scale = unit(jnp.max(sizes, axis=axis, keepdims=True, initial=0))
    root = jnp.sqrt(jnp.sum((sizes / scale) ** 2, axis=axis))
    return root * scale.reshape(root.shape)


def tree_norm(tree: PyTree) -> jax.Array:
    """Return the norm of all leaves together."""
    norms = [scaled_norm(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = jnp.result_type(*norms) if norms else jnp.float32
    return scaled_norm(jnp.stack([each.astype(dtype) for each in norms]))


def unit(largest: jax.Array) -> jax.Array:
    """Return what to divide by, so that the largest is 1; 0 and infinity stay."""
    return jnp.where((largest == 0) | jnp.isinf(largest), 1, largest)
