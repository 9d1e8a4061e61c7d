"""Packing of a learner's state into a few vectors, because each array costs time.

A call of a compiled program takes some time for each array that goes in or comes out,
and the state of a small network has dozens of arrays. Small arrays of one dtype are
therefore stored in one vector. Each large array is a vector of its own, so that it is
not copied.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import is_key
from bpvariants._tables import named_leaves
from bpvariants.types import PyTree

LARGE = 4096  # number of elements from which on an array is a vector of its own


class Leaf(NamedTuple):
    """Name, shape and dtype of an array of the state."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    impl: str | None  # kind of random key, if the array holds the data of keys

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Layout(NamedTuple):
    """The arrays of a state, and which of them are stored in which vector."""

    leaves: tuple[Leaf, ...]
    groups: tuple[tuple[int, ...], ...]  # indices of the leaves in each vector


def layout_of(state: PyTree) -> Layout:
    """Return the layout of a state; typed keys are stored as their data."""
    leaves = []
    for name, leaf in named_leaves(state):
        impl = str(jax.random.key_impl(leaf)) if is_key(leaf) else None
        data = _data(leaf)
        leaves.append(Leaf(name.lstrip("."), data.shape, str(data.dtype), impl))
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault(i if leaf.size >= LARGE else leaf.dtype, []).append(i)
    return Layout(tuple(leaves), tuple(map(tuple, groups.values())))


def packed(leaves: Sequence[Any], layout: Layout, xp: Any = jnp) -> list[Any]:
    """Return the vectors that hold the leaves; `xp` is `jnp` or `np`."""
    flat = [xp.reshape(_data(leaf), (-1,)) for leaf in leaves]
    pick = lambda group: [flat[i] for i in group]
    return [
        xp.concatenate(pick(group)) if len(group) > 1 else pick(group)[0]
        for group in layout.groups
    ]


def unpacked(vectors: Sequence[Any], layout: Layout) -> list[Any]:
    """Return the leaves that the vectors hold; keys are returned as their data."""
    leaves: list[Any] = [None] * len(layout.leaves)
    for vector, group in zip(vectors, layout.groups, strict=True):
        begin = 0
        for i in group:
            leaf = layout.leaves[i]
            part = vector[begin : begin + leaf.size]
            leaves[i] = part.reshape(leaf.shape)
            begin += leaf.size
    return leaves


def with_keys(leaves: Sequence[Any], layout: Layout) -> list[Any]:
    """Return the leaves, with typed keys in the place of the data of keys."""
    return [
        data if leaf.impl is None else jax.random.wrap_key_data(data, impl=leaf.impl)
        for data, leaf in zip(leaves, layout.leaves, strict=True)
    ]


def sizes(layout: Layout) -> list[tuple[int, str]]:
    """Return the number of elements and the dtype of each vector."""
    return [
        (sum(layout.leaves[i].size for i in group), layout.leaves[group[0]].dtype)
        for group in layout.groups
    ]


def as_json(layout: Layout) -> dict[str, Any]:
    """Return a layout as JSON values."""
    return {"leaves": [*layout.leaves], "groups": [*layout.groups]}


def from_json(given: dict[str, Any]) -> Layout:
    """Return the layout that `as_json` described."""
    leaves = [Leaf(name, tuple(shape), *rest) for name, shape, *rest in given["leaves"]]
    return Layout(tuple(leaves), tuple(map(tuple, given["groups"])))


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
