"""Steps along a sum of the present and past gradients, each discounted by its age.

Notation: g_n is the gradient at step n ≥ 1, η is the learning rate, and λ is the
forgetting factor, 0 ≤ λ < 1. The tutorial "4 Types of Backpropagation" (OpenGenus)
prints this equation for what it calls recurrent backpropagation:

    Δw_n = −η g_n − λ g_{n−1} − λ² g_{n−2} − … − λ^{n−1} g_1,

where the learning rate η multiplies only the first term. The tutorial does not say at
which weights the old gradients are taken, so the equation can be read in three ways.
First, the old gradients are stored when they are computed. Second, the old gradients
are recomputed at the current weights w_n. Third, the old gradients are those of the
losses at earlier time steps of one sequence. This file implements the first way, by a
running sum m_n, in three forms of the step:

    m_n = g_n + λ m_{n−1},  m_0 = 0,
    printed     Δw_n = −(η g_n + λ m_{n−1}),
    scaled      Δw_n = −η m_n,
    normalised  Δw_n = −η (1−λ) m_n.

The scaled form, in which the learning rate η multiplies every term, is Polyak's
heavy-ball method. In the normalised form, a step is −η times the exponential moving
average of the gradients. On a loss ½ h (w − w*)² with curvature h and minimum w*, each
form converges for 0 < h < h_max, where λ is the forgetting factor and

    scaled      h_max = 2(1+λ) / η,
    normalised  h_max = 2(1+λ) / (η(1−λ)),
    printed     h_max = min{ (1−λ) / (λ(1−η)), 2(1+λ) / (η(1+λ) − λ) },   η < 1.

The second bound of the printed form applies only if η(1+λ) > λ. For η = 0.01 and
λ = 0.9, h_max is 380 (scaled), 3800 (normalised) and 0.11 (printed).
:func:`~bpvariants.updates.replay` recomputes old gradients at the current weights.
:func:`~bpvariants.gradients.discounted_weights` discounts the losses of one sequence.
"""

import warnings
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like
from bpvariants._settings import check_flag
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


class ScaleByForgettingState(NamedTuple):
    """State of :func:`scale_by_forgetting`."""

    trace: optax.Updates  # sum m_n of discounted gradients, float32 or wider
    # []: number of steps so far, for schedules. The name hides the method
    # `tuple.count`, as in the states of optax.
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

    Here g_n is the gradient at step n, η is the learning rate, and m_n is the
    discounted sum of the gradients. The default equals `optax.sgd(η, momentum=λ)`. With
    `normalise=True`, a step is −η times the moving average a_n = (1−λ) m_n of the
    gradients, which `optax.ema` computes with debias=False. With `scale_past=False`,
    the steps are those that the tutorial "4 Types of Backpropagation" prints. If the
    gradient is constant, the printed steps approach −(η + λ/(1−λ)) times the gradient,
    and the default steps approach −η/(1−λ) times the gradient (see
    :func:`effective_step`). However small the learning rate η is, the printed steps are
    stable only if the curvature of the loss is below about (1−λ)/λ.

    If an element of the gradient is not finite, the same element of the update is not
    finite either, and the same element of the stored sum m does not change. The state
    has p + 1 elements for p parameters; an update takes time O(p).

    Args:
      learning_rate: η ≥ 0, or a schedule of η.
      decay: forgetting factor 0 ≤ λ < 1, or a schedule of λ. The value of λ at step n
        multiplies the previous sum m_{n−1}. A step depends mainly on the last 1/(1−λ)
        gradients.
      scale_past: whether the learning rate η multiplies past gradients too.
      normalise: whether to multiply gradients by 1−λ, so that the factors of all
        gradients in a step sum to η for every λ. (In the first steps, the sum of the
        factors is smaller than η.)

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if learning_rate or decay is out of its range, or if normalise=True
        and scale_past=False; in `init`, if params are not floating arrays; in `update`,
        if the shapes of gradients and params differ, or if the state belongs to another
        optimizer.

    Warns:
      UserWarning: if scale_past=False and :func:`effective_step` is more than 10 times
        the learning rate η.

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
    _check_form(scale_past, normalise)
    if not callable(learning_rate):
        _check_learning_rate(learning_rate)
        # Make the number a schedule, because optax casts a schedule's value to the
        # dtype of each array of updates, but does not cast a traced number.
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


def _check_form(scale_past: bool, normalise: bool) -> None:
    check_flag("scale_past", scale_past)
    check_flag("normalise", normalise)
    if normalise and not scale_past:
        raise ValueError(
            "normalise=True cannot be combined with scale_past=False, the printed "
            "form, whose learning rate applies to the first term alone; leave one of "
            "the two out."
        )


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
    """Return the sum of the factors of all gradients in a step of :func:`forgetting`.

        η / (1−λ)      (scale_past=True)
        η              (normalise=True)
        η + λ / (1−λ)  (scale_past=False)

    Here η is the learning rate and λ is the forgetting factor. If the gradient g is
    constant, the steps of `forgetting` approach −c g, where c is the returned value. To
    compare `forgetting` with plain gradient descent, give gradient descent the returned
    value as its learning rate.

    Args:
      learning_rate: η ≥ 0, a number or an array.
      decay: forgetting factor 0 ≤ λ < 1, a number or an array.
      scale_past: as in :func:`forgetting`.
      normalise: as in :func:`forgetting`.

    Raises:
      ValueError: in the same cases as :func:`forgetting`, and if an argument is a
        schedule.

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
    _check_form(scale_past, normalise)
    if not scale_past:
        return learning_rate + decay / (1 - decay)
    return learning_rate if normalise else learning_rate / (1 - decay)


def scale_by_forgetting(
    decay: Rate, current: Rate = 1.0, *, normalise: bool = False
) -> optax.GradientTransformation:
    """Replace the gradient g_n by current·g_n + λ m_{n−1}, where m is a running sum.

    The running sum, called the trace, is m_n = g_n + λ m_{n−1}. With current = 1, the
    result is m_n. If `current` is the learning rate, the result is the negated step of
    `forgetting` with scale_past=False. With `normalise=True`, g_n is multiplied by 1−λ
    in the equations of the result and of the trace. The argument `decay` (λ), the
    exceptions, the memory and the time are as in :func:`forgetting`.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.scale_by_forgetting(decay=0.5, current=0.25)
      >>> _, state = rule.update(jnp.array(1.0), rule.init(jnp.array(0.0)))
      >>> rule.update(jnp.array(2.0), state)[0].item()
      1.0
    """
    _check_decay(decay)
    check_flag("normalise", normalise)
    if not callable(current):
        check_number("current", current)

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
            if are_numbers(now) and now == 1:  # avoids a copy of the old m
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
