"""Checks and casts of params, gradients, optimizer states and per-leaf settings."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._checks import check_arrays, check_floating, check_real
from bpvariants._dtypes import cast_like, is_floating, widen
from bpvariants._settings import check_number as check_number
from bpvariants.types import PyTree

# A setting: one number for all params, or a pytree like params
PerLeaf: TypeAlias = float | jax.Array | PyTree


def check_params(params: optax.Params, name: str = "params") -> None:
    """Check that params are floating arrays; accept params without any array.

    Params may have no array, because `optax.masked` may have removed all of them.
    """
    if jax.tree.leaves(params):
        check_floating(name, params)


def check_signed(params: optax.Params, name: str = "params") -> None:
    """Check that params are floating and real; complex gradients have no sign."""
    check_params(params, name)
    check_real(
        name,
        params,
        "wrap the optimizer in optax.contrib.split_real_and_imaginary.",
    )


def as_grads(grads: optax.Updates, like: PyTree, name: str = "grads") -> optax.Updates:
    """Return gradients as JAX arrays, after checking their shapes against `like`.

    The paths of the leaves in `grads` and `like` must be equal, but the containers
    (tuples, lists) may be of different types.
    """
    check_arrays(name, grads)
    leaves, others = map(jax.tree.leaves_with_path, (grads, like))
    paths, known = ([path for path, _ in each] for each in (leaves, others))
    if paths != known:
        missing = [path for path in known if path not in paths]
        path = [*missing, *(path for path in paths if path not in known), ()][0]
        what = "an" if missing else "no"
        raise ValueError(
            f"{name} must have the leaves of the params that init was given: these "
            f"have {what} array {jax.tree_util.keystr(path)}. For other params, call "
            "optimizer.init(params)."
        )
    for (path, leaf), (_, other) in zip(leaves, others, strict=True):
        where = name + jax.tree_util.keystr(path)
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{where} must be of shape {jnp.shape(other)}, as in the params that "
                f"init was given, got {jnp.shape(leaf)}. For other params, call "
                "optimizer.init(params)."
            )
        if not is_floating(leaf):
            raise ValueError(
                f"{where} must be a floating array, got {jnp.result_type(leaf)}."
            )
        if jnp.iscomplexobj(leaf) and not jnp.iscomplexobj(other):
            raise ValueError(
                f"{where} must be real, as params are, got {jnp.result_type(leaf)}."
            )
    return jax.tree.map(jnp.asarray, grads)


def check_state(name: str, state: Any, kind: type) -> None:
    """Check that a state has the type `kind` of the states that `init` returns."""
    if not isinstance(state, kind):
        raise ValueError(
            f"state must be the state of {name}, a {kind.__name__}, got "
            f"{_type_of(state)}. Use the optimizer that made it, or call "
            "optimizer.init(params)."
        )


def chain(
    name: str, *rules: Any, widened: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Return optax.chain of rules; its `update` raises an error for a wrong state.

    A state is wrong if it is not a tuple with one entry for each rule. With `widened`,
    the rules get bfloat16 and float16 gradients in float32, and only the result of the
    last rule is cast back. Without `widened`, a sum in 16 bits could overflow before a
    later rule scales the sum down.
    """
    chained = optax.chain(*rules)

    def update(updates, state, params=None, **extra_args):
        if type(state) is not tuple or len(state) != len(rules):
            raise ValueError(
                f"state must be the state of {name}, a tuple of {len(rules)} parts, "
                f"got {_type_of(state)}. Use the optimizer that made it, or call "
                "optimizer.init(params)."
            )
        if not widened:
            return chained.update(updates, state, params, **extra_args)
        check_arrays("grads", updates)
        steps, state = chained.update(widen(updates), state, params, **extra_args)
        return cast_like(steps, updates), state

    return optax.GradientTransformationExtraArgs(chained.init, update)


def _type_of(state: Any) -> str:
    if type(state) is tuple:
        return f"({', '.join(map(_type_of, state))})"
    return "None" if state is None else type(state).__name__


def wide(params: optax.Params) -> optax.Params:
    """Cast params to float32 or wider, without weak types, for use in a state.

    If the first state had weak types, the first update would return a state with strong
    types, and `update` would be compiled again for that state.
    """
    strong = lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf))
    return jax.tree.map(strong, widen(params))


def all_of(flags: PyTree) -> jax.Array:
    """Return whether all flags in a tree, each of shape [], are true.

    The result is True for a tree without flags.
    """
    return jnp.all(jnp.array([True, *jax.tree.leaves(flags)]))


def per_leaf(name: str, setting: PerLeaf, params: optax.Params) -> list:
    """Return the setting of each array of params: a number, or an array of equal shape.

    A setting for a subtree of params, such as a layer, applies to all arrays in the
    subtree. Settings for arrays that `optax.masked` removed are ignored.
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
