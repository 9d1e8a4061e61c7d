"""What becomes of the gradients of windows: added up, or learned from at once."""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_floating
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import normalised
from bpvariants._masking import select
from bpvariants.gradients._truncated_windows import GradientAt, Held
from bpvariants.types import PyTree


class Consumer(NamedTuple):
    """How the windows of a call are consumed, one after the other.

    Attributes:
      state: that before the first window.
      weights: [T, *batch], what `take` wants to be given; None if all losses are alike.
      take: (state, gradient_at, weights of the block, its length) -> (state, (the carry
        at its end, Held)).
      result: state -> (value, grads, or what takes their place).
    """

    state: PyTree
    weights: jax.Array | None
    take: Callable[
        [PyTree, GradientAt, jax.Array | None, int], tuple[PyTree, tuple[PyTree, Held]]
    ]
    result: Callable[[PyTree], tuple[jax.Array, PyTree]]


def add_up(
    params: PyTree,
    weights: jax.Array | None,
    length: int,
    losses: jax.ShapeDtypeStruct,
) -> Consumer:
    """Sum up the gradients of losses that weigh w / Σ w, of all of the call."""
    shares = normalised(weights, (length, *losses.shape), losses.dtype)

    def take(state, gradient_at, weights, length):
        del length
        (value, moved), grads = gradient_at(
            params, shares if weights is None else weights
        )
        return jax.tree.map(jnp.add, state, (value, grads)), moved

    zeros = jax.tree.map(jnp.zeros_like, widen(params))
    return Consumer(
        state=(jnp.zeros((), losses.dtype), zeros),
        weights=None if weights is None else shares,
        take=take,
        result=lambda state: (state[0], cast_like(state[1], params)),
    )


def learn(
    update: Any,
    params_and_state: PyTree,
    weights: jax.Array | None,
    losses: jax.ShapeDtypeStruct,
) -> Consumer:
    """Update params with the gradient of each window's own mean loss Σ w·ℓ / Σ w."""

    def take(state, gradient_at, weights, length):
        both, total, total_weight = state
        shape = length, *losses.shape
        shares = normalised(weights, shape, losses.dtype)
        (value, moved), grads = gradient_at(both[0], shares)
        if weights is None:
            weight = jnp.asarray(math.prod(shape), losses.dtype)
        else:
            weight = jnp.sum(weights.astype(losses.dtype))
        new = updated(update, both, value, grads, weight != 0)
        return (new, total + weight * value, total_weight + weight), moved

    def result(state):
        both, total, weight = state
        none = weight == 0
        return jnp.where(none, 0, total / jnp.where(none, 1, weight)), both

    zero = jnp.zeros((), losses.dtype)
    both = jax.tree.map(jnp.asarray, params_and_state)
    return Consumer((both, zero, zero), weights, take, result)


def updated(
    update: Any, both: PyTree, value: jax.Array, grads: PyTree, count: jax.Array
) -> PyTree:
    """Return (params, opt_state) after an update, or unchanged where nothing counts."""
    params, opt_state = both
    extra = {"value": value} if _takes_value(update.update) else {}
    change, new_state = update.update(
        cast_like(grads, params), opt_state, params, **extra
    )
    new = cast_like(jax.tree.map(jnp.add, params, change), params)
    return select(count, (new, new_state), both)


def check_update(update: object) -> None:
    """Check that this is what optax calls a gradient transformation."""
    for name in ("init", "update"):
        if not callable(getattr(update, name, None)):
            raise ValueError(
                "update must be an optax.GradientTransformation, such as optax.sgd(0.1)"
                f"; got {update!r}."
            )


def check_pair(update: Any, pair: PyTree) -> PyTree:
    """Return the params of (params, opt_state), having checked that it is one."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(
            "params must be the pair (params, opt_state), with opt_state = "
            f"update.init(params), as the rule has an update; got {type(pair).__name__}"
            f" of structure {jax.tree.structure(pair)}."
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


def _takes_value(function: Callable) -> bool:
    """Whether an update can be given `value=`, as optax's extended ones can."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # what is not written in Python does not say
        return False
    kinds = {parameter.kind for parameter in parameters.values()}
    return "value" in parameters or inspect.Parameter.VAR_KEYWORD in kinds
