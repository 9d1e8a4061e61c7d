"""The forgetting factor, replayed: all past errors again, at the current weights.

With E_k(w) the error on batch k, η the learning rate and 0 ≤ λ < 1, the step n descends

    scaled   Φ_n(w) = Σ_{k≥0} λ^k E_{n−k}(w),
    printed  Φ_n(w) = η E_n(w) + Σ_{k≥1} λ^k E_{n−k}(w),

at w = w_n. So −∇Φ_n is the tutorial's equation (see :func:`~bpvariants.updates
.forgetting`) read to the letter, where every gradient is one in w(n). Terms older than
a horizon of W batches are left out; if no gradient is larger than G, they come to

    ‖Σ_{k≥W} λ^k g_{n−k}‖ ≤ G λ^W / (1−λ),

which is at most tol·G for W = ⌈log(tol (1−λ)) / log λ⌉. On ½ h (w − w*)² a step −η ∇Φ
is stable for h < 2(1−λ)/η, and −∇Φ in the printed form for h < 2 / (η + λ/(1−λ)).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_like
from bpvariants._dtypes import widen
from bpvariants.types import PyTree


class ReplayState(NamedTuple):
    """The last W batches, as :func:`replay` keeps them."""

    slots: PyTree  # like a batch, leaves [W, ...]; overwritten in turn
    newest: jax.Array  # [], which of them was written last
    filled: jax.Array  # [], how many have been written, at most W


class Replay(NamedTuple):
    """What :func:`replay` returns: three pure functions, and the horizon W."""

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
    """Keep the last batches, and take all their losses at the current params.

        state = rule.init(batch)  # no batch yet: this one gives shapes and dtypes
        state = rule.push(state, batch)
        value = rule.discounted_loss(params, state, learning_rate=None)

    `value` [] is Φ_n(params), to be differentiated in params and given to any
    optimizer: `optax.sgd(η)` makes the scaled form of it. With a `learning_rate`, it is
    the printed form, for `optax.sgd(1.0)`. Slots that are still empty do not count and
    no loss is taken of them; but before the first push that of init's batch is, at
    which it must so have a finite gradient. A batch that is not finite makes values
    that are not either, until it is forgotten after W steps.

    Exact but for what lies beyond the horizon, and with it for λ = 0 (W = 1), which is
    gradient descent. Memory is W batches, and while a gradient is taken W times what
    the loss needs, as all batches are looked at together; time is W forward and
    backward passes a step. Linear least squares need neither:
    :func:`discounted_least_squares`.

    Args:
      loss: (params, *batch) -> [], the error E on a batch, which is a tuple.
      decay: forgetting factor 0 ≤ λ < 1.
      tol: how large all that lies beyond the horizon may be, in units of the largest
        gradient; 1e-3 needs W = 11, 88, 1146 for λ = 0.5, 0.9, 0.99.
      horizon: W, in place of the one that tol asks for; needed if decay is traced.

    Returns:
      A :class:`Replay`.

    Raises:
      ValueError: if decay, tol or horizon is out of its range, or decay is traced and
        no horizon given; in `init` and `push`, if batch is no tuple or not like the
        first one; in `discounted_loss`, if loss gives more than one number.

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
        # An empty slot's loss might be NaN, which times 0 is NaN in the derivative.
        given = lambda leaf: jnp.where(
            full.reshape(length, *[1] * (leaf.ndim - 1)), leaf, leaf[state.newest][None]
        )
        batches = jax.tree.map(given, state.slots)
        losses = jax.vmap(lambda batch: _scalar(loss(params, *batch)))(batches)
        factors = jnp.full(length, jnp.asarray(decay, losses.dtype)).at[0].set(1)
        weights = jnp.cumprod(factors)[ages]  # unlike powers, with a slope at λ = 0
        if learning_rate is not None:
            rate = jnp.asarray(learning_rate, losses.dtype)
            weights = jnp.where(ages == 0, rate, weights)
        return jnp.sum(jnp.where(full, weights * losses, 0))

    return Replay(init, push, discounted_loss, length)


def _horizon(decay: Any, tol: float, horizon: int | None) -> int:
    """Return W."""
    if are_numbers(decay) and not 0 <= decay < 1:
        raise ValueError(
            f"replay needs 0 <= decay < 1, got {decay}; the loss of k batches ago is "
            "weighed by its k-th power, and 0.9 remembers about ten."
        )
    if horizon is not None:
        if horizon < 1:
            raise ValueError(
                f"horizon must be at least 1, got {horizon}; it is how many batches "
                "are kept, the newest included."
            )
        return horizon
    if not are_numbers(decay):
        raise ValueError(
            "decay is an array, from which the number of batches to keep cannot be "
            "told; pass it as horizon."
        )
    if not 0 < tol < 1:
        raise ValueError(
            f"tol must be within 0 < tol < 1, got {tol}; it is what may be forgotten "
            "altogether, in units of the largest gradient."
        )
    if decay == 0:
        return 1
    return max(1, math.ceil(math.log(tol * (1 - decay)) / math.log(decay)))


def _check_tuple(batch):
    if not isinstance(batch, tuple):
        raise ValueError(
            "batch must be a tuple, the arguments of loss after params, got "
            f"{type(batch).__name__}; give (batch,) if it is a single one."
        )


def _scalar(loss):
    if jnp.shape(loss) != ():
        raise ValueError(
            f"loss must give one number for a batch, got shape {jnp.shape(loss)}; take "
            "the mean or the sum over its examples."
        )
    return widen(loss)
