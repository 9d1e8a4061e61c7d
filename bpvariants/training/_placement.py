"""Placement of a training's state: on the devices of its sharded arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from bpvariants.types import PyTree


def is_spread(leaf: Any) -> bool:
    """Return whether an array lies on several devices."""
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def mesh_of(*trees: PyTree) -> Any:
    """Return the mesh of the first array that lies on several devices, or None."""
    for leaf in jax.tree.leaves(trees):
        if is_spread(leaf) and isinstance(leaf.sharding, NamedSharding):
            return leaf.sharding.mesh
    return None


def placed(tree: PyTree, params: PyTree, mesh: Any) -> PyTree:
    """Return the tree on the mesh: parts like params as params are, others replicated.

    What lies on several devices already stays as it is. Without a mesh, all does.
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    structure, shapes = jax.tree.structure(params), _shapes(params)
    like_params = lambda part: (
        jax.tree.structure(part) == structure and _shapes(part) == shapes
    )

    def put(leaf, like: Any = None):
        if is_spread(leaf):
            return leaf
        return jax.device_put(leaf, like.sharding if is_spread(like) else everywhere)

    def put_part(part):
        return jax.tree.map(put, part, params) if like_params(part) else put(part)

    return jax.tree.map(put_part, tree, is_leaf=like_params)


def shardings_of(reached: PyTree) -> Any:
    """Return `out_shardings` for a chunk that leaves all of it where it was."""
    mesh = mesh_of(reached)
    if mesh is None:
        return None
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: leaf.sharding, reached), everywhere


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
