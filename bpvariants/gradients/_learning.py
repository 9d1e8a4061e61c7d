"""Helpers for rules that update the parameters several times in one sequence."""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_floating
from bpvariants._dtypes import cast_like
from bpvariants._masking import select
from bpvariants._settings import described
from bpvariants.types import PyTree


def updated(
    update: Any, both: PyTree, value: jax.Array, grads: PyTree, count: jax.Array
) -> PyTree:
    """Return the pair (params, opt_state) after an update of the params.

    `both` is the pair before the update. If `count` is False, `both` is returned.
    """
    params, opt_state = both
    extra = {"value": value} if _takes_value(update) else {}
    change, new_state = update.update(
        cast_like(grads, params), opt_state, params, **extra
    )
    new = cast_like(jax.tree.map(jnp.add, params, change), params)
    return select(count, (new, new_state), both)


def check_update(update: object) -> None:
    for name in ("init", "update"):
        if not callable(getattr(update, name, None)):
            raise ValueError(
                "update must be an optax.GradientTransformation, such as optax.sgd(0.1)"
                f"; got {update!r}."
            )


def check_pair(update: Any, pair: PyTree) -> PyTree:
    """Check that `pair` is (params, opt_state); return its params."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(
            "params must be the pair (params, opt_state), with opt_state = update."
            f"init(params), because the rule has an update; got {described(pair)}."
        )
    params, opt_state = pair
    check_floating("params", params)
    want = jax.tree.structure(jax.eval_shape(update.init, params))
    got = jax.tree.structure(opt_state)
    if got != want:
        raise ValueError(
            "params must be the pair (params, opt_state), with opt_state = "
            f"update.init(params), of structure {want}; got one of structure {got}."
        )
    return params


def _takes_value(update: Any) -> bool:
    """Return whether an update is an optax.GradientTransformationExtraArgs.

    Only this class of transformations accepts keyword arguments such as `value=`. The
    class is found by its name, because `gradients` does not import optax.
    """
    kinds = type(update).__mro__
    return any(kind.__name__ == "GradientTransformationExtraArgs" for kind in kinds)


def cut(tree: PyTree, begin: int | jax.Array, steps: int) -> PyTree:
    """Return `steps` time steps of each sequence in a pytree, from step `begin` on."""
    part = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, begin, steps)
    return jax.tree.map(part, tree)
