"""Forgetting factor: steps along past gradients, discounted by their age.

Notation: g_n is the gradient at step n ≥ 1, η the learning rate, 0 ≤ λ < 1 the decay.
The tutorial "4 Types of Backpropagation" (OpenGenus) prints as its recurrent kind

    Δw_n = −η g_n − λ g_{n−1} − λ² g_{n−2} − … − λ^{n−1} g_1,

where η multiplies the first term alone. The tutorial does not say at which weights the
old gradients are taken. Old gradients may be stored as computed, be computed again at
the current weights w_n, or come from one sequence. This file stores old gradients:

    m_n = g_n + λ m_{n−1},  m_0 = 0,
    printed     Δw_n = −(η g_n + λ m_{n−1}),
    scaled      Δw_n = −η m_n,
    normalised  Δw_n = −η (1−λ) m_n.

The scaled form, in which η multiplies every term, is Polyak's heavy ball. In the
normalised form, a step is −η times the moving average of gradients. On a loss
½ h (w − w*)² with curvature h, each form is stable for 0 < h < h_max, where

    scaled      h_max = 2(1+λ) / η,
    normalised  h_max = 2(1+λ) / (η(1−λ)),
    printed     h_max = min{ (1−λ) / (λ(1−η)), 2(1+λ) / (η(1+λ) − λ) },   η < 1.

The second bound of the printed form applies only if η(1+λ) > λ. For η = 0.01 and
λ = 0.9, h_max is 380 (scaled), 3800 (normalised) and 0.11 (printed).
:func:`~bpvariants.updates.replay` computes old gradients again at the current weights.
:func:`~bpvariants.gradients.discounted_weights` discounts the losses of one sequence.
"""

import warnings
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like
from bpvariants.updates._foreign_names import refuses
from bpvariants.updates._params import (
    as_grads,
    chain,
    check_number,
    check_params,
    check_state,
    wide,
)

Rate: TypeAlias = float | jax.Array | optax.Schedule
PRINTED_IS_NOT_NORMALISED = (
    "normalise=True cannot be combined with scale_past=False, the printed form, whose "
    "learning rate applies to the first term alone; leave one of the two out."
)


class ScaleByForgettingState(NamedTuple):
    """State of :func:`scale_by_forgetting`."""

    trace: optax.Updates  # m_n, like params, float32 or wider
    # number of steps n, [], for schedules; hides `tuple.count`, as in optax's states
    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]


@refuses(lr="learning_rate", momentum="decay")
def forgetting(
    learning_rate: Rate,
    decay: Rate,
    *,
    scale_past: bool = True,
    normalise: bool = False,
) -> optax.GradientTransformation:
    """Descend along present and past gradients, discounted by a factor λ per step.

        Δw_n = −η m_n,  m_n = g_n + λ m_{n−1}        (scale_past=True)
        Δw_n = −η a_n,  a_n = (1−λ) g_n + λ a_{n−1}  (normalise=True)
        Δw_n = −(η g_n + λ m_{n−1})                  (scale_past=False)

    Here g_n is the gradient at step n. The default is `optax.sgd(η, momentum=λ)`. With
    `normalise`, a step is −η (1−λ) m_n, because a_n is `optax.ema` with debias=False.
    With scale_past=False, a step is as the tutorial prints it. Along a constant
    gradient, these printed steps approach η + λ/(1−λ) times the gradient instead of
    η/(1−λ) (:func:`effective_step`). However small η is, the printed form is stable
    only if the curvature of the loss is below about (1−λ)/λ.

    A gradient element that is not finite makes an update that is not finite, and is
    left out of m_n. The state has p + 1 elements for p parameters; an update takes time
    O(p).

    Args:
      learning_rate: η ≥ 0, or a schedule of η.
      decay: forgetting factor 0 ≤ λ < 1, which remembers about 1/(1−λ) steps; or a
        schedule of λ, whose value at step n multiplies m_{n−1}.
      scale_past: whether η multiplies past gradients too.
      normalise: whether the weights of all gradients in a step sum to η for every λ (to
        less in the first steps).

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if learning_rate or decay is out of its range, or if normalise=True
        and scale_past=False; in `init`, if params are not floating arrays; in
        `update`, if gradients are not like params, or state is of another optimizer.

    Warns:
      UserWarning: if scale_past=False and :func:`effective_step` is more than 10 η.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.forgetting(0.5, decay=0.5)
      >>> _, state = optimizer.update(jnp.array(1.0), optimizer.init(jnp.array(0.0)))
      >>> optimizer.update(jnp.array(2.0), state)[0].item()
      -1.25

    References:
      "4 Types of Backpropagation", OpenGenus (the printed form).
      Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
      Computational Mathematics and Mathematical Physics 4, 1964,
      doi:10.1016/0041-5553(64)90137-5 (the scaled form).
    """
    if normalise and not scale_past:
        raise ValueError(PRINTED_IS_NOT_NORMALISED)
    if not callable(learning_rate):
        _check_learning_rate(learning_rate)
        # optax casts a schedule's value to the leaf's dtype, but not a traced rate.
        schedule = optax.constant_schedule(learning_rate)
    else:
        schedule = learning_rate
    if scale_past:
        rule = scale_by_forgetting(decay, normalise=normalise)
        rate = optax.scale_by_learning_rate(schedule)
        return chain("forgetting", rule, rate, widened=True)
    rule = scale_by_forgetting(decay, current=learning_rate)
    if are_numbers(learning_rate, decay):
        _warn_of_large_step(learning_rate, decay)
    return chain("forgetting", rule, optax.scale(-1.0), widened=True)


def _check_learning_rate(learning_rate):
    check_number("learning_rate", learning_rate)
    if are_numbers(learning_rate) and not learning_rate >= 0:
        raise ValueError(
            f"forgetting needs learning_rate >= 0, got {learning_rate}; to ascend, "
            "negate the loss."
        )


def _check_decay(decay: Any) -> None:
    if callable(decay):
        return
    check_number("decay", decay)
    if are_numbers(decay) and not 0 <= decay < 1:
        raise ValueError(
            f"forgetting needs 0 <= decay < 1, got {decay}; past gradients are "
            "multiplied by it at each step, and 0.9 remembers about ten of them."
        )


def _warn_of_large_step(learning_rate, decay):
    total = effective_step(learning_rate, decay, scale_past=False)
    if total > 10 * learning_rate:
        warnings.warn(
            "forgetting with scale_past=False has an effective step of "
            f"learning_rate + decay / (1 - decay) = {total:.4g}, over ten times "
            f"learning_rate={learning_rate}; pass scale_past=True to scale past "
            "gradients too.",
            stacklevel=4,
        )


def effective_step(
    learning_rate: float | jax.Array,
    decay: float | jax.Array,
    *,
    scale_past: bool = True,
    normalise: bool = False,
) -> float | jax.Array:
    """Return the sum of the weights of all gradients in a :func:`forgetting` step.

        η / (1−λ)      (scale_past=True)
        η              (normalise=True)
        η + λ / (1−λ)  (scale_past=False)

    Along a constant gradient, the steps of `forgetting` approach the returned sum times
    the gradient. The sum is therefore the learning rate of plain gradient descent to
    compare with `forgetting`.

    Args:
      learning_rate: η ≥ 0, a number or an array.
      decay: forgetting factor 0 ≤ λ < 1, a number or an array.
      scale_past: as in :func:`forgetting`.
      normalise: as in :func:`forgetting`.

    Raises:
      ValueError: as :func:`forgetting`, and if an argument is a schedule.

    Example:
      >>> from bpvariants import updates
      >>> updates.effective_step(0.5, decay=0.75)
      2.0
      >>> updates.effective_step(0.5, decay=0.75, scale_past=False)
      3.5
    """
    for name, rate in {"learning_rate": learning_rate, "decay": decay}.items():
        if callable(rate):
            raise ValueError(
                f"{name} must be a number or an array, got a schedule; give its value "
                "at one step."
            )
    _check_learning_rate(learning_rate)
    _check_decay(decay)
    if not scale_past:
        if normalise:
            raise ValueError(PRINTED_IS_NOT_NORMALISED)
        return learning_rate + decay / (1 - decay)
    return learning_rate if normalise else learning_rate / (1 - decay)


def scale_by_forgetting(
    decay: Rate, current: Rate = 1.0, *, normalise: bool = False
) -> optax.GradientTransformation:
    """Replace the gradient g_n by current·g_n + λ m_{n−1}, the rule of `forgetting`.

    The trace is m_n = g_n + λ m_{n−1}. With current = 1 the result is m_n; with current
    = η the result is the negated step of the printed form (scale_past=False). With
    `normalise`, g_n is multiplied by 1−λ, in the result and in m_n. The argument
    `decay` (λ), exceptions and cost are as for :func:`forgetting`.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.scale_by_forgetting(decay=0.5, current=0.25)
      >>> _, state = rule.update(jnp.array(1.0), rule.init(jnp.array(0.0)))
      >>> rule.update(jnp.array(2.0), state)[0].item()
      1.0
    """
    _check_decay(decay)

    def init(params):
        check_params(params)
        trace = optax.tree.zeros_like(wide(params))
        return ScaleByForgettingState(trace, count=jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        del params
        check_state("forgetting", state, ScaleByForgettingState)
        updates = as_grads(updates, state.trace)
        now, past = (
            rate(state.count) if callable(rate) else rate for rate in (current, decay)
        )

        fade = lambda m: jnp.asarray(past, m.dtype) * m

        def remember(g, m):  # leave out NaN and ∞, which would stay in m for ever
            return jnp.where(jnp.isfinite(g), g + fade(m), m)

        def combine(g, m, new):
            if are_numbers(now) and now == 1:  # so that XLA need not copy m_{n−1}
                return jnp.where(jnp.isfinite(g), new, g)
            return jnp.asarray(now, g.dtype) * g + fade(m)

        grads = cast_like(updates, state.trace)
        if normalise:
            share = lambda g: (1 - jnp.asarray(past, g.dtype)) * g
            grads = jax.tree.map(share, grads)
        trace = jax.tree.map(remember, grads, state.trace)
        sums = jax.tree.map(combine, grads, state.trace, trace)
        count = optax.safe_increment(state.count)
        return cast_like(sums, updates), ScaleByForgettingState(trace, count)

    return optax.GradientTransformation(init, update)
