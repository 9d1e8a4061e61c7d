"""Sum the gradients of windows, or update params by the gradient of each window.

A window is the part of a sequence that one backward pass of truncated BPTT covers.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import normalised
from bpvariants.gradients._learning import updated
from bpvariants.gradients.through_time._truncated_windows import GradientAt, Held
from bpvariants.types import PyTree


class Consumer(NamedTuple):
    """Functions that process the gradients of a call's windows, one after another.

    Attributes:
      state: the consumer's state before the first window.
      weights: weights of the losses, [T, *batch], or None if all losses have equal
        weights. The caller passes to `take` the weights of one window's new losses.
      take: function (state, gradient_at, weights of the new losses, number of new time
        steps) -> (state, (carry at the end of the window, Held)).
      result: function state -> (value, grads), or with an update state -> (value,
        (params, opt_state)).
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
    """Return a consumer that adds up the gradients of all windows.

    A loss with weight w counts with w / Σ w, where the sum is over the whole call.
    """
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
    """Return a consumer that updates params after each window."""

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
