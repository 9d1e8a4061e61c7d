"""Run an online rule along a sequence, with constant params or with params updates.

Notation: g_t is the gradient that the online rule returns at step t, for the mean loss
of the batch. w_t are the weights of the losses of step t, and W_t = Σ_batch w_t. Then
the gradient of the sequence's mean loss L is

    dL/dθ = Σ_t W_t g_t / Σ_t W_t.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._dtypes import widen
from bpvariants.gradients._learning import cut, updated
from bpvariants.types import OnlineRule, PyTree


def run(
    online: OnlineRule,
    params: PyTree,
    state: PyTree,
    steps: PyTree,
    weights: jax.Array | None,
    length: int,
) -> tuple[PyTree, PyTree, jax.Array]:
    """Run an online rule along a sequence; return (state, grads, mean loss).

    `steps` are (xs, targets, options of `online.update`), with leaves [length, ...].
    `weights` are the weights of the losses, [length, *batch] or None. The gradients are
    float32 or wider.
    """

    def body(state_and_total, inputs):
        state, total = state_and_total
        share, (x, target, options) = inputs
        value, grads, state = online.update(params, state, x, target, **options)
        add = lambda total, g: total + share.astype(total.dtype) * g
        total = jax.tree.map(add, total, widen(grads))
        return (state, total), share.astype(value.dtype) * value

    start = state, jax.tree.map(jnp.zeros_like, widen(params))
    shares = _shares(weights, length)
    (state, total), values = jax.lax.scan(body, start, (shares, steps))
    return state, total, jnp.sum(values)


def learn_on_the_way(
    online: OnlineRule,
    update: Any,
    pair: PyTree,
    state: PyTree,
    steps: PyTree,
    weights: jax.Array | None,
    size: int,
) -> tuple[tuple[PyTree, PyTree], jax.Array]:
    """Update params after each window of `size` steps.

    Return ((pair, state), mean loss). The pair is (params, opt_state), and `state` is
    the state of the online rule. For the other arguments see :func:`run`.
    """
    length = jax.tree.leaves(steps)[0].shape[0]
    whole, rest = divmod(length, size)
    # `examples` is False for an empty batch: no array of carry, xs or targets has
    # elements.
    examples = any(map(jnp.size, jax.tree.leaves((state.carry, steps[:2]))))

    def window(reached, begin, size):
        pair, state = reached
        inputs, counts = cut((steps, weights), begin, size)
        state, grads, value = run(online, pair[0], state, inputs, counts, size)
        total = examples * size if counts is None else jnp.sum(counts, dtype=float)
        total = jnp.asarray(total, value.dtype)
        pair = updated(update, pair, value, grads, total != 0)
        return (pair, state), (total * value, total)

    # The scan's carry counts in `begin`, because an array of the first step of each
    # window would grow with T.
    def body(reached_and_begin, _):
        reached, begin = reached_and_begin
        reached, sums = window(reached, begin, size)
        return (reached, begin + size), sums

    start = (pair, state), jnp.array(0)
    (reached, _), sums = jax.lax.scan(body, start, length=whole)
    sums = [jnp.sum(part) for part in sums]
    if rest:
        reached, last = window(reached, length - rest, rest)
        sums = [a + b for a, b in zip(sums, last, strict=True)]
    total, weight = sums
    return reached, jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))


def _shares(weights: jax.Array | None, length: int) -> jax.Array:
    """Return the weight of each step's mean loss in the sequence's mean loss, [T].

    This weight is W_t / Σ_t W_t, where W_t sums the weights of the losses of step t.
    """
    if weights is None:
        return jnp.full(length, 1 / length)
    by_step = jnp.sum(weights, axis=tuple(range(1, weights.ndim)), dtype=float)
    total = jnp.sum(by_step)
    shares = jnp.where(total == 0, 0, by_step / jnp.where(total == 0, 1, total))
    # Return NaN for a step whose nonzero weights add up to 0: its mean loss is 0 / 0.
    count = jnp.any(weights.astype(bool), axis=tuple(range(1, weights.ndim)))
    return jnp.where((by_step == 0) & count, jnp.nan, shares)
