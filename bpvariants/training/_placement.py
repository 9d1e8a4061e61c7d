"""Placement of a training's arrays on the devices over which params are sharded."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from bpvariants.types import PyTree


def is_spread(leaf: Any) -> bool:
    """Return whether an array is on more than one device."""
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def mesh_of(*trees: PyTree) -> Any:
    """Return the mesh of the first array that is on several devices, or None."""
    for leaf in jax.tree.leaves(trees):
        if is_spread(leaf) and isinstance(leaf.sharding, NamedSharding):
            return leaf.sharding.mesh
    return None


def placed(tree: PyTree, params: PyTree, mesh: Any) -> PyTree:
    """Return the tree, with its arrays placed on the devices of the mesh.

    Subtrees with the structure and shapes of params get the shardings of params; all
    other arrays of the tree are replicated. Arrays that are already on several devices
    keep their shardings. If the mesh is None, the tree is returned unchanged.
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
    """Return `out_shardings` for the jitted function of a chunk of training steps.

    `reached` is the training state, an argument of the jitted function. The function's
    first result, the new state, keeps the shardings of `reached`. All other results are
    replicated. If no array of `reached` is on several devices, None is returned.
    """
    mesh = mesh_of(reached)
    if mesh is None:
        return None
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: leaf.sharding, reached), everywhere


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
