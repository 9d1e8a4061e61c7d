"""Checks and casts of params, and of settings that may differ by leaf."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._checks import check_floating, check_real
from bpvariants._dtypes import widen
from bpvariants.types import PyTree

PerLeaf: TypeAlias = float | jax.Array | PyTree  # one value, or a pytree like params


def check_params(params: optax.Params) -> None:
    """Check that params are floating arrays; a mask may have removed all of them."""
    if jax.tree.leaves(params):
        check_floating("params", params)


def check_signed(params: optax.Params) -> None:
    """Check that params are floating and real; complex gradients have no sign."""
    check_params(params)
    check_real(
        "params",
        params,
        "wrap the optimizer in optax.contrib.split_real_and_imaginary.",
    )


def wide(params: optax.Params) -> optax.Params:
    """Cast params for use in a state: to float32 or wider, and never weakly typed.

    The first update would turn a weakly typed state into a strongly typed one, so the
    update would be compiled twice.
    """
    strong = lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf))
    return jax.tree.map(strong, widen(params))


def all_of(flags: PyTree) -> jax.Array:
    """Return whether all flags [] in a tree are true; True if there are none."""
    return jnp.all(jnp.array([True, *jax.tree.leaves(flags)]))


def per_leaf(name: str, setting: PerLeaf, params: optax.Params) -> list:
    """Return the setting of each array of params: a number, or an array of its shape.

    A setting for a layer applies to all arrays in it. Settings for arrays that
    `optax.masked` removed are ignored.
    """
    paths = jax.tree.leaves_with_path(params)
    entries = dict(jax.tree.leaves_with_path(setting))
    if list(entries) == [()] and jnp.ndim(setting) == 0:
        return [setting] * len(paths)
    chosen, used = [], set()
    for path, param in paths:
        prefixes = [path[:length] for length in range(len(path) + 1)]
        found = [prefix for prefix in prefixes if prefix in entries]
        shape = jnp.shape(param)
        if not found:
            raise ValueError(
                f"{name} must be a number or a pytree like params, but has nothing for "
                f"params{jax.tree_util.keystr(path)}."
            )
        value = entries[found[0]]
        used.add(found[0])
        if jnp.ndim(value) and _broadcast(jnp.shape(value), shape) != shape:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(found[0])} must be a number or of the "
                f"shape {shape} of params{jax.tree_util.keystr(path)}, got shape "
                f"{jnp.shape(value)}."
            )
        chosen.append(jnp.broadcast_to(value, shape) if jnp.ndim(value) else value)
    is_masked = lambda leaf: isinstance(leaf, optax.MaskedNode)
    masked = any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked)))
    for path in entries:
        if path not in used and not masked and paths:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has no counterpart in params; "
                f"{name} must be a number or a pytree like params."
            )
    return chosen


def _broadcast(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple | None:
    try:
        return np.broadcast_shapes(shape, other)
    except ValueError:
        return None
