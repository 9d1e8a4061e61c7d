"""Resilient backpropagation: steps that follow only the signs of gradients.

Notation, for each parameter: g_t is the gradient, Δ_t the step size, s_t the sign that
the next gradient is compared with, E_t the loss. With sign(0) = 0 and s_0 = 0,

    a_t = s_{t−1} sign(g_t),
    Δ_t = min(η⁺ Δ_{t−1}, Δ_max) if a_t > 0,  max(η⁻ Δ_{t−1}, Δ_min) if a_t < 0,
          Δ_{t−1} if a_t = 0,
    θ_{t+1} = θ_t − D_t sign(g_t),

where Δ_0 is clipped to [Δ_min, Δ_max]. D_t = Δ_t and s_t = sign(g_t), except where
a_t < 0. Such a change of sign tells that a minimum was jumped over; what follows makes
the variants:

    variant   D_t                                s_t
    Rprop⁺    Δ_{t−1}                            0          takes the last step back
    Rprop⁻    Δ_t                                sign(g_t)  turns round
    iRprop⁺   Δ_{t−1} if E_t > E_{t−1}, else 0   0          takes it back if E grew
    iRprop⁻   0                                  0          rests

The last step was −Δ_{t−1} s_{t−1} there, for a step is skipped or taken back only where
s becomes 0, and a_t = 0 follows. So none needs a memory of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like, widen
from bpvariants.updates._params import check_signed


class ScaleByRpropState(NamedTuple):
    """State of :func:`scale_by_rprop`; both trees are like params."""

    step_sizes: optax.Updates  # Δ_t, in float32 if params are narrower
    signs: optax.Updates  # s_t in int8, which makes a step a third faster
    last_value: Any  # E_t, [], of iRprop⁺; else None


class _Flip(NamedTuple):
    """What a variant does where a gradient changed its sign."""

    step_size: Callable[[Any, Any, Any], Any]  # (Δ_{t−1}, Δ_t, E_t > E_{t−1}) -> D_t
    remember: bool  # whether s_t is sign(g_t) rather than 0


_VARIANTS = {
    "rprop_plus": _Flip(lambda old, new, worse: old, remember=False),
    "rprop_minus": _Flip(lambda old, new, worse: new, remember=True),
    "irprop_plus": _Flip(lambda old, new, worse: jnp.where(worse, old, 0), False),
    "irprop_minus": _Flip(lambda old, new, worse: 0, remember=False),
}


def scale_by_rprop(
    learning_rate: float | jax.Array,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: float | jax.Array = 1e-6,
    max_step_size: float | jax.Array = 50.0,
    *,
    variant: str = "irprop_minus",
) -> optax.GradientTransformationExtraArgs:
    """Replace each gradient by D_t sign(g_t), the bare rule of the Rprop family.

    Errors and cost are those of :func:`irprop_minus`.

    Args:
      learning_rate: first step size Δ_0, read by `init` only.
      eta_minus: factor 0 < η⁻ < 1 where the gradient changed its sign.
      eta_plus: factor η⁺ > 1 where it kept its sign.
      min_step_size: least step size Δ_min.
      max_step_size: greatest step size Δ_max.
      variant: "rprop_plus", "rprop_minus", "irprop_plus", whose `update` takes a
        `value` as :func:`irprop_plus` says, or "irprop_minus".

    Returns:
      An optax.GradientTransformation, whose updates are yet to be negated.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.scale_by_rprop(0.5, variant="rprop_plus")
      >>> rule.update(jnp.array(-7.0), rule.init(jnp.array(0.0)))[0].item()
      -0.5
    """
    _check(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, variant)
    flip, needs_value = _VARIANTS[variant], variant == "irprop_plus"

    def cast(numbers, like):  # as a traced float32 would promote bfloat16
        return [jnp.asarray(number, like.dtype) for number in numbers]

    def first_step_size(param):
        bounds = (learning_rate, min_step_size, max_step_size)
        return jnp.full_like(param, jnp.clip(*cast(bounds, param)))

    def init(params):
        check_signed(params)
        return ScaleByRpropState(
            step_sizes=jax.tree.map(first_step_size, widen(params)),
            signs=optax.tree.zeros_like(params, dtype=jnp.int8),
            last_value=jnp.asarray(jnp.inf, float) if needs_value else None,
        )

    def update(updates, state, params=None, *, value=None, **extra_args):
        del params, extra_args
        worse, value = (
            _compare(value, state.last_value) if needs_value else (None, None)
        )
        # The product of two small gradients may underflow to 0, that of signs cannot.
        signs = cast_like(jax.tree.map(jnp.sign, updates), state.step_sizes)
        agreement = jax.tree.map(
            lambda s, last: s * last.astype(s.dtype), signs, state.signs
        )
        step_sizes = jax.tree.map(adapt, state.step_sizes, agreement)

        def move(sign, agreement, old, new):
            return sign * jnp.where(agreement < 0, flip.step_size(old, new, worse), new)

        moves = jax.tree.map(move, signs, agreement, state.step_sizes, step_sizes)
        signs = jax.tree.map(remember, signs, agreement, state.signs)
        return cast_like(moves, updates), ScaleByRpropState(step_sizes, signs, value)

    def adapt(step_size, agreement):  # NaN agrees with nothing, and changes nothing
        numbers = (eta_minus, eta_plus, min_step_size, max_step_size)
        down, up, least, greatest = cast(numbers, step_size)
        shorter = jnp.maximum(step_size * down, least)
        longer = jnp.minimum(step_size * up, greatest)
        # XLA copies step sizes first, and is slower, if the factor is chosen instead.
        return jnp.where(
            agreement > 0, longer, jnp.where(agreement < 0, shorter, step_size)
        )

    def remember(sign, agreement, last):
        if not flip.remember:
            sign = jnp.where(agreement < 0, 0, sign)
        return jnp.where(jnp.isnan(sign), last, sign.astype(last.dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def _compare(value, last):
    """Return whether the loss grew, and what the next one is compared with."""
    if value is None:
        raise ValueError(
            "irprop_plus needs value, the loss at params where the gradient was taken: "
            "call optimizer.update(grads, state, params, value=value)."
        )
    if jnp.shape(value) != ():
        raise ValueError(
            "irprop_plus needs a value of shape (), the loss of the full batch, got "
            f"shape {jnp.shape(value)}; take the mean that was differentiated."
        )
    value = jnp.asarray(value, last.dtype)
    # NaN is worse than any, but must not make all that follows worse.
    return ~(value <= last), jnp.where(jnp.isnan(value), last, value)


def _check(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, variant):
    if variant not in _VARIANTS:
        raise ValueError(f"variant must be one of {[*_VARIANTS]}, got {variant!r}.")
    if callable(learning_rate):
        raise ValueError(
            f"learning_rate must be a number, got the schedule {learning_rate}; pass "
            "the first step size, as rprop adapts step sizes itself."
        )
    if are_numbers(learning_rate) and not learning_rate > 0:
        raise ValueError(
            f"rprop needs learning_rate > 0, got {learning_rate}; it is the first step "
            "size, for which 0.1 is usual."
        )
    if are_numbers(eta_minus, eta_plus) and not 0 < eta_minus < 1 < eta_plus:
        raise ValueError(
            "rprop needs 0 < eta_minus < 1 < eta_plus, got "
            f"eta_minus={eta_minus} and eta_plus={eta_plus}; 0.5 and 1.2 are usual."
        )
    if are_numbers(min_step_size, max_step_size) and not (
        0 <= min_step_size <= max_step_size
    ):
        raise ValueError(
            "rprop needs 0 <= min_step_size <= max_step_size, got "
            f"min_step_size={min_step_size} and max_step_size={max_step_size}; swap "
            "them, or leave one at its default, 1e-06 or 50.0."
        )
