"""Probabilistic Rprop, for mini-batch gradients, whose signs are uncertain.

Notation, for each parameter θ with gradient g and step size Δ: m_t and v_t are moving
averages of g and g², corrected for their start at 0. Φ is the normal distribution
function. The rule is

    s_t² = v_t − m_t²,   p_t = Φ(m_t / s_t)                            P(g > 0)
    ρ_t = p_t (1 − p_{t−1}) + p_{t−1} (1 − p_t),   p_0 = ½             P(a flip)
    Δ_t = clip(Δ_{t−1} · factor(ρ_t), Δ_min, Δ_max)

    exponential   factor = exp(−2 ln(η⁺) (ρ_t − ½)), from η⁺ over 1 to 1/η⁺
    linear        factor = ρ_t η⁻ + (1 − ρ_t) η⁺
    step          factor = η⁻ if ρ_t > ½, η⁺ if ρ_t < ½, else 1

    sign          θ_{t+1} = θ_t − sign(m_t) Δ_t
    expected      θ_{t+1} = θ_t − (2 p_t − 1) Δ_t.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like
from bpvariants.updates._foreign_names import refuses, TORCH_RPROP
from bpvariants.updates._params import (
    all_of,
    as_grads,
    check_number,
    check_signed,
    check_state,
    per_leaf,
    PerLeaf,
    wide,
)
from bpvariants.updates.resilient._rprop_checks import check_choice, check_settings

ADAPT = ("exponential", "linear", "step")
MOVE = ("sign", "expected")


class ProbabilisticRpropState(NamedTuple):
    """State of :func:`probabilistic_rprop`; trees are like params, float32 or wider."""

    step_sizes: optax.Updates  # Δ_t
    mean: optax.Updates  # moving average of g, without the correction
    square: optax.Updates  # moving average of g², without the correction
    # number of steps t, []; hides `tuple.count`, as in the states of optax
    count: jax.typing.ArrayLike  # pyright: ignore[reportIncompatibleMethodOverride]


@refuses(**TORCH_RPROP)
def probabilistic_rprop(
    learning_rate: PerLeaf = 0.01,
    eta_minus: float | jax.Array = 0.5,
    eta_plus: float | jax.Array = 1.2,
    min_step_size: PerLeaf = 1e-9,
    max_step_size: PerLeaf = 0.05,
    *,
    ema_decay: float | jax.Array = 0.99,
    adapt: Literal["exponential", "linear", "step"] = "exponential",
    move: Literal["sign", "expected"] = "sign",
) -> optax.GradientTransformationExtraArgs:
    """Rprop for MINI-BATCHES: step sizes adapt to the probability of a sign change.

        ρ = p (1 − p′) + p′ (1 − p),    p = Φ(m / s) = P(g > 0),  p′ the previous p
        Δ ← clip(Δ exp(−2 ln(η⁺) (ρ − ½)), Δ_min, Δ_max),    θ ← θ − sign(m) Δ.

    Here m and s are the moving mean and standard deviation of the gradient g, and Δ is
    the step size. The defaults are those of the report below. With these defaults, a
    step size hardly ever shrinks, because ρ > ½ only if p and p′ are on different sides
    of ½. With move="expected", moves are small where the sign of g is uncertain. Of the
    methods on mini-batches in `python -m experiments rprop_minibatch`, move="expected"
    trained best.

    If the square of any gradient element is not finite, the whole update is NaN and the
    state stays as it was. The state of p parameters has 3·p elements, 12 bytes a
    parameter in float32; an update takes time O(p).

    Args:
      learning_rate: first step size Δ_0, read by `init` only; a number, or a pytree
        like params of numbers and arrays.
      eta_minus: factor 0 < η⁻ < 1 of step sizes; adapt="exponential" does not use η⁻.
      eta_plus: factor η⁺ > 1 of step sizes.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      ema_decay: decay 0 ≤ μ < 1 of the averages, over about 1/(1−μ) batches.
      adapt: factor of the step size at the probability ρ of a sign change:
        "exponential" is exp(−2 ln(η⁺) (ρ − ½)), "linear" is ρ η⁻ + (1 − ρ) η⁺, and
        "step" is η⁻ if ρ > ½ and η⁺ if ρ < ½.
      move: "sign" moves a parameter by −sign(m) Δ, "expected" by −(2 p − 1) Δ.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if a setting is out of its range; in `init`, if params are not real
        floating arrays, or a pytree of settings does not fit them; in `update`, if
        gradients are not like params, or state is of another optimizer.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.probabilistic_rprop(0.01)
      >>> state = optimizer.init(jnp.array(0.0))
      >>> for grad in (1.0, 1.0, 1.0):  # certain from the second on: Δ grows by η⁺
      ...     step, state = optimizer.update(jnp.array(grad), state)
      ...     print(round(step.item(), 4))
      -0.01
      -0.012
      -0.0144

    References:
      Zadaianchuk & Balles, "Probabilistic Rprop" (report).
    """
    check_choice("adapt", adapt, ADAPT)
    check_choice("move", move, MOVE)
    check_number("ema_decay", ema_decay)
    if are_numbers(ema_decay) and not 0 <= ema_decay < 1:
        raise ValueError(
            f"probabilistic_rprop needs 0 <= ema_decay < 1, got {ema_decay}; 0.99 "
            "averages over about a hundred batches."
        )
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    check_settings("probabilistic_rprop", *numbers, usual=0.05)
    how = _How(eta_minus, eta_plus, ema_decay, adapt, move)

    def init(params):
        check_signed(params)
        leaves, structure = jax.tree.flatten(wide(params))
        rates = per_leaf("learning_rate", learning_rate, params)
        first = map(start, leaves, rates, *bounds(params))
        steps = structure.unflatten([*first])
        mean, square = (optax.tree.zeros_like(steps) for _ in range(2))
        return ProbabilisticRpropState(steps, mean, square, jnp.zeros([], jnp.int32))

    def bounds(params):
        low = per_leaf("min_step_size", min_step_size, params)
        return low, per_leaf("max_step_size", max_step_size, params)

    def start(param, rate, *ends):
        rate, least, greatest = (jnp.asarray(x, param.dtype) for x in (rate, *ends))
        return jnp.full_like(param, jnp.minimum(jnp.maximum(rate, least), greatest))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        check_state("probabilistic_rprop", state, ProbabilisticRpropState)
        updates = as_grads(updates, state.step_sizes)
        count = optax.safe_increment(state.count)
        leaves, structure = jax.tree.flatten(updates)
        kept = [jax.tree.leaves(tree) for tree in state[:3]]
        advance = partial(_advance, how, state.count)
        results = [*map(advance, leaves, *kept, *bounds(updates))]
        moves, *trees = map(
            structure.unflatten, zip(*results, strict=True) if results else [()] * 4
        )
        # Update all arrays or none, because one count corrects all their averages.
        good = all_of(jax.tree.map(lambda v: jnp.all(jnp.isfinite(v)), trees[2]))
        moves = jax.tree.map(lambda move: jnp.where(good, move, jnp.nan), moves)
        new = ProbabilisticRpropState(trees[0], trees[1], trees[2], count)
        return moves, jax.tree.map(partial(jnp.where, good), new, state)

    return optax.GradientTransformationExtraArgs(init, update)


class _How(NamedTuple):
    """Settings of a step, the same for all arrays."""

    eta_minus: float | jax.Array
    eta_plus: float | jax.Array
    ema_decay: float | jax.Array
    adapt: str
    move: str


def _advance(how, count, g, step, mean, square, least, greatest):
    """Return the move of one array, its step sizes, and averages of its g and g²."""
    dtype, wide_g = step.dtype, g.astype(step.dtype)
    decay = jnp.asarray(how.ema_decay, dtype)
    last = jnp.where(count == 0, 0.5, _probability(mean, square, decay, count))
    fade = lambda old, new: decay * old + (1 - decay) * new
    new_mean, new_square = fade(mean, wide_g), fade(square, wide_g**2)
    p = _probability(new_mean, new_square, decay, count + 1)
    flip = p * (1 - last) + last * (1 - p)
    etas = (jnp.asarray(eta, dtype) for eta in (how.eta_minus, how.eta_plus))
    factor = _FACTORS[how.adapt](flip, *etas)
    low, high = jnp.asarray(least, dtype), jnp.asarray(greatest, dtype)
    new_step = jnp.minimum(jnp.maximum(step * factor, low), high)
    go = jnp.sign(new_mean) if how.move == "sign" else 2 * p - 1
    return cast_like(-go * new_step, g), new_step, new_mean, new_square


_FACTORS = {
    "exponential": lambda flip, down, up: jnp.exp(-2 * jnp.log(up) * (flip - 0.5)),
    "linear": lambda flip, down, up: flip * down + (1 - flip) * up,
    "step": lambda flip, down, up: jnp.where(
        flip > 0.5, down, jnp.where(flip < 0.5, up, 1)
    ),
}


def _probability(mean, square, decay, count):
    """Return P(g > 0) = Φ(mean / deviation of g); for a deviation of 0, 0, ½ or 1."""
    weight = 1 - decay ** count.astype(decay.dtype)
    weight = jnp.where(count == 0, 1, weight)
    mean, square = mean / weight, square / weight
    # Rounding decides the sign of a variance near 0, and XLA may compute the variance
    # twice with different roundings. So do not compare it with 0; below this limit the
    # probability rounds to 0 or 1 anyway.
    limit = jnp.finfo(square.dtype).eps * square
    variance = jnp.maximum(square - mean**2, limit)
    known = square <= 0  # squares of tiny gradients underflow
    ratio = mean * jax.lax.rsqrt(jnp.where(known, 1, variance))
    certain = (1 + jnp.sign(mean)) / 2
    return jnp.where(known, certain, jax.scipy.stats.norm.cdf(ratio))
