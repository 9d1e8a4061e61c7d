"""How an online rule runs along a sequence, with fixed params or learning on the way.

Notation: g_t is its gradient, of the mean over the batch, at step t, and w_t the
weights of that step's losses; W_t = Σ_batch w_t. Then

    dL/dθ = Σ_t W_t g_t / Σ_t W_t.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._dtypes import is_floating, widen
from bpvariants.gradients._learning import cut, updated
from bpvariants.types import OnlineRule, PyTree

# (params, state, steps, weights [time, *batch] or None, time) -> (state, wide grads,
# value): along some steps, of the weighted mean of their losses
Run = Callable[
    [PyTree, PyTree, PyTree, jax.Array | None, int], tuple[PyTree, PyTree, jax.Array]
]


def runner(online: OnlineRule) -> Run:
    """Return how to run an online rule along some steps with fixed params."""

    def run(params, state, steps, weights, length):
        def body(state_and_total, inputs):
            state, total = state_and_total
            share, (x, target, options) = inputs
            share, options = _share_of_signal(share, options)
            value, grads, state = online.update(params, state, x, target, **options)
            add = lambda total, g: total + share.astype(total.dtype) * g
            total = jax.tree.map(add, total, widen(grads))
            return (state, total), share.astype(value.dtype) * value

        start = state, jax.tree.map(jnp.zeros_like, widen(params))
        shares = _shares(weights, length)
        (state, total), values = jax.lax.scan(body, start, (shares, steps))
        return state, total, jnp.sum(values)

    return run


def _share_of_signal(share: jax.Array, options: dict) -> tuple[jax.Array, dict]:
    """Undo for a signal the share of its step, which is 1 where no loss counts.

    There the value and the rest of the gradient are 0.
    """
    if "signal" not in options:
        return share, options
    share = jnp.where(share == 0, 1, share)
    undo = lambda leaf: leaf / share.astype(leaf.dtype) if is_floating(leaf) else leaf
    signal = jax.tree.map(undo, widen(options["signal"]))
    return share, options | {"signal": signal}


def learn_on_the_way(
    update: Any,
    run: Run,
    pair: PyTree,
    state: PyTree,
    steps: PyTree,
    weights: jax.Array | None,
    size: int,
) -> tuple[tuple[PyTree, PyTree], jax.Array]:
    """Update after windows of so many steps; return ((pair, state), mean loss)."""
    length = jax.tree.leaves(steps)[0].shape[0]
    whole, rest = divmod(length, size)
    # A batch of none has no number anywhere.
    examples = any(map(jnp.size, jax.tree.leaves((state.carry, steps[:2]))))

    def window(reached, begin, size):
        pair, state = reached
        inputs, counts = cut((steps, weights), begin, size)
        state, grads, value = run(pair[0], state, inputs, counts, size)
        total = examples * size if counts is None else jnp.sum(counts, dtype=float)
        total = jnp.asarray(total, value.dtype)
        count = total != 0
        if "signal" in inputs[2]:
            count |= jnp.any(inputs[2].get("mask", examples))
        pair = updated(update, pair, value, grads, count)
        return (pair, state), (total * value, total)

    def body(reached_and_begin, _):  # counts by itself: an arange would grow with T
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
    """Return W_t / Σ_t W_t, [T]: the part of each step in the mean over all losses."""
    if weights is None:
        return jnp.full(length, 1 / length)
    by_step = jnp.sum(weights, axis=tuple(range(1, weights.ndim)), dtype=float)
    total = jnp.sum(by_step)
    shares = jnp.where(total == 0, 0, by_step / jnp.where(total == 0, 1, total))
    # The mean of a step whose weights cancel is 0 / 0, and what it was is lost.
    count = jnp.any(weights.astype(bool), axis=tuple(range(1, weights.ndim)))
    return jnp.where((by_step == 0) & count, jnp.nan, shares)
