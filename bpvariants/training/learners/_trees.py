"""Structures of pytrees as JSON, so that a file can describe inputs and outputs.

The structure of an array is the text "leaf". Dicts with names, lists, tuples and named
tuples are described by the structures of their entries. As in `jax.tree`, the leaves of
a dict are in the order of its sorted names.
"""

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import jax

from bpvariants._settings import described
from bpvariants.types import PyTree

LEAF = "leaf"


def structure_of(name: str, tree: PyTree) -> Any:
    """Return the structure of a pytree as JSON values; `name` is for error messages."""
    if tree is None:
        return None
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        parts = {key: structure_of(f"{name}[{key!r}]", tree[key]) for key in tree}
        return {"dict": dict(sorted(parts.items()))}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields: Any = tree
        parts = fields._asdict().items()
        parts = {key: structure_of(f"{name}.{key}", part) for key, part in parts}
        return {"namedtuple": type(tree).__name__, "fields": parts}
    if type(tree) in (list, tuple):
        parts = [structure_of(f"{name}[{i}]", part) for i, part in enumerate(tree)]
        return {type(tree).__name__: parts}
    if jax.tree_util.all_leaves([tree]):
        return LEAF
    raise ValueError(
        f"{name} must be made of arrays, dicts with names, lists and tuples, because "
        f"the file of a learner describes its structure; got {described(tree)}."
    )


def leaves_of(name: str, tree: PyTree, structure: Any) -> list[Any]:
    """Return the leaves of a pytree; raise a ValueError if its structure differs."""
    if structure == LEAF:
        if tree is None or isinstance(tree, dict | tuple):
            raise ValueError(f"{name} must be an array, got {described(tree)}.")
        return [tree]
    if structure is None:
        if tree is not None:
            raise ValueError(f"{name} must be None, got {described(tree)}.")
        return []
    if "dict" in structure:
        want = structure["dict"]
        if not isinstance(tree, dict) or set(tree) != set(want):
            got = sorted(map(str, tree)) if isinstance(tree, dict) else described(tree)
            raise ValueError(
                f"{name} must be a dict with the names {[*want]}, got {got}."
            )
        parts = [(f"{name}[{key!r}]", tree[key], part) for key, part in want.items()]
    else:
        want = structure.get("fields") or structure.get("tuple", structure.get("list"))
        if not isinstance(tree, list | tuple) or len(tree) != len(want):
            kind = next(iter(structure)).replace("named", "named ")
            raise ValueError(
                f"{name} must be a {kind} of {len(want)}, got {described(tree)}."
            )
        inner = want.values() if isinstance(want, dict) else want
        pairs = enumerate(zip(tree, inner, strict=True))
        parts = [(f"{name}[{i}]", *pair) for i, pair in pairs]
    return [leaf for part in parts for leaf in leaves_of(*part)]


def tree_of(structure: Any, leaves: Iterator[Any]) -> PyTree:
    """Return the pytree of a structure; take its leaves from an iterator, in order."""
    if structure is None:
        return None
    if structure == LEAF:
        return next(leaves)
    if "dict" in structure:
        parts = structure["dict"].items()
        return {key: tree_of(part, leaves) for key, part in parts}
    if "fields" in structure:
        kind: Any = namedtuple(structure["namedtuple"], structure["fields"])
        return kind(*(tree_of(part, leaves) for part in structure["fields"].values()))
    if "list" in structure:
        return [tree_of(part, leaves) for part in structure["list"]]
    return tuple(tree_of(part, leaves) for part in structure["tuple"])
