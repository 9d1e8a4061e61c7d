"""Replay: the discounted sum of the errors on past batches at the current weights.

Let E_k(w) be the error on batch k at weights w, η the learning rate and 0 ≤ λ < 1 the
forgetting factor. A step of gradient descent at step n reduces one of two sums of
errors,

    scaled   Φ_n(w) = Σ_{k≥0} λ^k E_{n−k}(w),
    printed  Φ_n(w) = η E_n(w) + Σ_{k≥1} λ^k E_{n−k}(w),

starting at w = w_n. The tutorial "4 Types of Backpropagation" prints an equation for
the step (see :func:`~bpvariants.updates.forgetting`). In the printed form, the step
−∇Φ_n follows this equation, with every gradient taken at the current weights w_n. Only
the last W batches are stored; W is the horizon. Let g_k be the gradient of the error on
batch k, with a norm of at most G. The gradients of all older batches are left out. The
norm of the sum of these gradients is at most

    ‖Σ_{k≥W} λ^k g_{n−k}‖ ≤ G λ^W / (1−λ).

For W = ⌈log(tol (1−λ)) / log λ⌉, this bound is at most tol·G, where `tol` is the
tolerance. Let the error be ½ h (w − w*)², with curvature h and minimum w*. With
learning rate η, steps −η ∇Φ in the scaled form are stable for h < 2(1−λ)/η. Steps −∇Φ
in the printed form are stable for h < 2 / (η + λ/(1−λ)).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    are_numbers,
    check_count,
    check_function,
    check_like,
    check_real,
)
from bpvariants._dtypes import is_floating, widen
from bpvariants.types import PyTree
from bpvariants.updates._params import check_number


class ReplayState(NamedTuple):
    """State of :func:`replay`: the last W batches."""

    slots: PyTree  # last W batches, leaves [W, ...]
    newest: jax.Array  # []: index of the slot that was written last
    filled: jax.Array  # []: number of slots that have been written, at most W


class Replay(NamedTuple):
    """Result of :func:`replay`: three functions, and the number W of stored batches."""

    init: Callable[[PyTree], ReplayState]
    push: Callable[[ReplayState, PyTree], ReplayState]
    discounted_loss: Callable[..., jax.Array]
    horizon: int


def replay(
    loss: Callable[..., jax.Array],
    decay: float | jax.Array,
    *,
    tol: float = 1e-3,
    horizon: int | None = None,
) -> Replay:
    """Store the last W batches; compute their discounted loss at the current params.

        state = rule.init(batch)  # makes W empty slots of the batch's shapes
        state = rule.push(state, batch)
        value = rule.discounted_loss(params, state, learning_rate=None)

    The scalar `value` is Φ_n = Σ_k λ^k E_{n−k}, where λ is the forgetting factor.
    E_{n−k} is the loss at `params` on the batch that was pushed k batches before the
    newest. Differentiate `value` with respect to params, and give the gradient to any
    optimizer, such as `optax.sgd`. If `learning_rate` is given, it replaces the factor
    1 of the loss on the newest batch; in this case, use `optax.sgd(1.0)`.

    In `value`, the losses of empty slots have weight 0, and are computed on the newest
    batch. Before the first `push`, the newest batch is the batch given to `init`, so
    the loss must have a finite gradient on that batch. While a batch with NaN or
    infinity is stored, `value` is not finite; the batch is dropped after W more pushes,
    where W is the number of slots.

    `value` leaves out the losses on batches older than the horizon W, the number of
    stored batches, and is otherwise exact. For decay = 0, W is 1, and a step is plain
    gradient descent on the newest batch. The losses on all W batches are computed
    together. The gradient of `value` therefore takes W forward and backward passes, and
    W times the memory of the gradient on one batch. For linear least squares,
    :func:`discounted_least_squares` takes less memory and time, and stores no batches.

    Args:
      loss: (params, *batch) -> [], the error E on a batch; a batch is a tuple.
      decay: forgetting factor 0 ≤ λ < 1.
      tol: bound on the norm of the sum of the gradients of the batches left out,
        divided by the largest norm of a batch's gradient. tol=1e-3 gives the horizons
        11, 88, 1146 for the forgetting factors 0.5, 0.9, 0.99.
      horizon: number of batches to store. Default: the smallest number that satisfies
        `tol`. If `decay` is an array, `horizon` must be given.

    Returns:
      A :class:`Replay`.

    Raises:
      ValueError: if decay, tol or horizon is out of its range, or if decay is an array
        and horizon is not given; in `init` and `push`, if batch is not a tuple, or
        differs from the first batch in structure, shapes or dtypes; in
        `discounted_loss`, if the loss is not a real floating scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.replay(lambda w, a: (w - a) ** 2 / 2, decay=0.5)
      >>> state = rule.init((jnp.array(0.0),))
      >>> for a in (1.0, 3.0):
      ...     state = rule.push(state, (jnp.array(a),))
      >>> rule.horizon, rule.discounted_loss(5.0, state).item()  # (2² + ½ 4²) / 2
      (11, 6.0)
      >>> jax.grad(rule.discounted_loss)(5.0, state).item()  # 2 + ½ 4
      4.0

    References:
      "4 Types of Backpropagation", OpenGenus (the printed form).
    """
    check_function("loss", loss, "(params, *batch) -> loss")
    length = _horizon(decay, tol, horizon)

    def init(batch):
        _check_tuple(batch)
        repeat = lambda leaf: jnp.broadcast_to(
            jnp.asarray(leaf, jnp.result_type(leaf)), (length, *jnp.shape(leaf))
        )
        slots = jax.tree.map(repeat, batch)
        return ReplayState(slots, jnp.int32(length - 1), jnp.int32(0))

    def push(state, batch):
        _check_tuple(batch)
        slot = jax.tree.map(lambda leaf: leaf[0], state.slots)
        check_like("batch", batch, "the batch that init was given", slot)
        newest = (state.newest + 1) % length
        write = lambda slots, leaf: slots.at[newest].set(leaf)
        slots = jax.tree.map(write, state.slots, batch)
        return ReplayState(slots, newest, jnp.minimum(state.filled + 1, length))

    def discounted_loss(params, state, *, learning_rate=None):
        ages = (state.newest - jnp.arange(length, dtype=jnp.int32)) % length
        full = ages < state.filled
        # Replace empty slots, because their loss might be NaN, and 0 · NaN is NaN.
        given = lambda leaf: jnp.where(
            full.reshape(length, *[1] * (leaf.ndim - 1)), leaf, leaf[state.newest][None]
        )
        batches = jax.tree.map(given, state.slots)
        losses = jax.vmap(lambda batch: _scalar(loss(params, *batch)))(batches)
        factors = jnp.full(length, jnp.asarray(decay, losses.dtype)).at[0].set(1)
        weights = jnp.cumprod(factors)[ages]  # differentiable at λ = 0, unlike λ**k
        if learning_rate is not None:
            rate = jnp.asarray(learning_rate, losses.dtype)
            weights = jnp.where(ages == 0, rate, weights)
        return jnp.sum(jnp.where(full, weights * losses, 0))

    return Replay(init, push, discounted_loss, length)


def _horizon(decay: Any, tol: float, horizon: int | None) -> int:
    """Return the horizon W, the number of batches to store."""
    check_number("decay", decay)
    if are_numbers(decay) and not 0 <= decay < 1:
        raise ValueError(
            f"replay needs 0 <= decay < 1, got {decay}; the loss of k batches ago is "
            "weighted by decay**k, and 0.9 remembers about ten batches."
        )
    if horizon is not None:
        remedy = "it is the number of batches that are kept, including the newest"
        check_count("horizon", horizon, remedy=remedy)
        return int(horizon)
    if not are_numbers(decay):
        raise ValueError(
            "decay is an array, so the number of batches to keep cannot be computed "
            "from it; pass it as horizon."
        )
    if not are_numbers(tol) or not 0 < tol < 1:
        raise ValueError(
            f"tol must be within 0 < tol < 1, got {tol!r}; it bounds the sum of the "
            "terms left out, in units of the largest gradient."
        )
    if decay == 0:
        return 1
    return max(1, math.ceil(math.log(tol * (1 - decay)) / math.log(decay)))


def _check_tuple(batch):
    if not isinstance(batch, tuple):
        raise ValueError(
            "batch must be a tuple, the arguments of loss after params, got "
            f"{type(batch).__name__}; give (batch,) if there is only one."
        )


def _scalar(loss):
    if jnp.shape(loss) != ():
        raise ValueError(
            f"loss must return one number for a batch, got shape {jnp.shape(loss)}; "
            "take the mean or the sum over its examples."
        )
    check_real("loss", loss, "take the real part, or jnp.abs.")
    if not is_floating(loss):
        raise ValueError(
            f"loss must return a floating number, got {jnp.result_type(loss)}, which "
            "has no derivative. Cast what it computes with, .astype(jnp.float32)."
        )
    return widen(loss)
