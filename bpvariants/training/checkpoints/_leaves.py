"""Conversion between a pytree and the numbered arrays that a checkpoint stores.

A checkpoint contains only the leaves of the training state, numbered in order. To read
a checkpoint, a new state is initialised, and its leaves are replaced by the stored
leaves. Random keys are written as their raw key data.
"""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_key
from bpvariants._tables import named_leaves
from bpvariants.types import PyTree

Described = list[tuple[str, list[int], str]]  # each leaf's name, shape, dtype


def describe(tree: PyTree) -> Described:
    """Return the name, shape and dtype of each leaf, as JSON values."""
    return [
        [name, list(jnp.shape(leaf)), str(_dtype(leaf))]  # type: ignore[misc]
        for name, leaf in named_leaves(tree)
    ]


def writable(tree: PyTree) -> dict[str, Any]:
    """Return a dict from the index of a leaf to the leaf, without empty arrays.

    The package orbax cannot store empty arrays.
    """
    return {
        str(i): jax.random.key_data(leaf) if is_key(leaf) else leaf
        for i, leaf in enumerate(jax.tree.leaves(tree))
        if leaf.size
    }


def abstract(tree: PyTree) -> dict[str, Any]:
    """Return the shapes, dtypes and shardings of the leaves that `writable` returns."""
    return {
        name: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
        )
        for name, leaf in writable(tree).items()
    }


def put_back(leaves: dict[str, Any], like: PyTree) -> PyTree:
    """Return the tree `like`, with its leaves replaced by leaves of a checkpoint."""
    old, structure = jax.tree.flatten(like)
    new = []
    for i, leaf in enumerate(old):
        read = leaves.get(str(i), leaf)
        if is_key(leaf) and str(i) in leaves:
            read = jax.random.wrap_key_data(read, impl=jax.random.key_impl(leaf))
        new.append(read)
    return structure.unflatten(new)


def checksum(leaf: Any) -> int | None:
    """Return an array's CRC checksum; None if another process has part of the array."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return None
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)


def differences(saved: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Return a phrase for each setting that differs from the saved settings."""
    found = []
    for name, now in given.items():
        then = saved.get(name)
        if name in ("state", "data") and then is not None and now is not None:
            then, now = (
                {f"{name}{path}": f"{dtype}{shape}" for path, shape, dtype in each}
                for each in (then, now)
            )
        if isinstance(then, dict) and isinstance(now, dict):
            for part in [*then, *(part for part in now if part not in then)]:
                if _as_json(then.get(part)) != _as_json(now.get(part)):
                    was, is_ = then.get(part, "not there"), now.get(part, "not there")
                    found.append(f"{part} was {was} and is {is_}")
        elif then != now:
            found.append(f"{name} was {then} and is {now}")
    return found


def _as_json(value: Any) -> str:
    """Return JSON text for comparisons: the texts of two NaNs are equal."""
    return json.dumps(value, sort_keys=True)


def _dtype(leaf: Any) -> Any:
    return (
        leaf.dtype
        if isinstance(leaf, (jax.Array, np.ndarray))
        else np.result_type(leaf)
    )
