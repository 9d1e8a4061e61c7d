"""Probabilistic Rprop for mini-batch gradients, whose signs are uncertain.

Notation, for each parameter θ with gradient g and step size Δ: m_t and v_t are moving
averages of g and g², with bias correction as in Adam. Φ is the cumulative distribution
function of the standard normal distribution; p_t is the probability that g is positive;
and ρ_t is the probability that g changes its sign. The state stores √v, because g² may
overflow or underflow. At step t,

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
    """State of :func:`probabilistic_rprop`: trees like params, in float32 or wider.

    Both moving averages are stored before their bias is corrected.
    """

    step_sizes: optax.Updates  # step size Δ_t of each parameter
    mean: optax.Updates  # moving average of the gradient
    root_square: optax.Updates  # root of the moving average of the squared gradient
    # []: number of steps so far. The name hides the method `tuple.count`, as in the
    # states of optax.
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

    Here g is the gradient, and m and s are its moving mean and standard deviation. The
    probability that g is positive is p, and the probability that g changes its sign is
    ρ. Φ is the standard normal distribution function, and Δ is the step size. The
    default settings are taken from the report cited below. With these settings, a step
    size hardly ever shrinks: it shrinks only if ρ > ½, that is, if p is above ½ and the
    previous probability p′ is below ½, or the reverse. With move="expected", a
    parameter moves less if the sign of g is uncertain. Among the methods for
    mini-batches that `python -m experiments rprop_minibatch` compares, move="expected"
    reached the lowest loss.

    If any gradient element is not finite, the whole update is NaN and the state does
    not change. The state has 3 elements per parameter, 12 bytes in float32; an update
    takes time proportional to the number of parameters.

    Args:
      learning_rate: first step size Δ_0, which only `init` reads; a number, or a pytree
        like params of numbers and arrays.
      eta_minus: smallest factor 0 < η⁻ < 1 by which a step size shrinks;
        adapt="exponential" does not use η⁻.
      eta_plus: largest factor η⁺ > 1 by which a step size grows.
      min_step_size: least step size Δ_min; a number, or a pytree like params.
      max_step_size: greatest step size Δ_max; a number, or a pytree like params.
      ema_decay: decay 0 ≤ μ < 1 of the moving averages, which average over about
        1/(1−μ) batches.
      adapt: how the factor of the step size depends on the probability ρ of a sign
        change: "exponential" is exp(−2 ln(η⁺) (ρ − ½)), "linear" is ρ η⁻ + (1 − ρ) η⁺,
        and "step" is η⁻ if ρ > ½ and η⁺ if ρ < ½.
      move: how far a parameter moves, for a step size Δ: "sign" moves it by −sign(m) Δ,
        where m is the moving mean of its gradient; "expected" moves it by −(2 p − 1) Δ,
        where p is the probability that its gradient is positive.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if a setting is out of its range; in `init`, if params are not real
        floating arrays, or a pytree of settings does not fit them; in `update`, if
        gradients and params have different shapes, or if the state belongs to another
        optimizer.

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
        mean, root = (optax.tree.zeros_like(steps) for _ in range(2))
        return ProbabilisticRpropState(steps, mean, root, jnp.zeros([], jnp.int32))

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
        # Update all arrays or none, because the number of steps, which corrects the
        # bias of the moving averages, is the same for all arrays.
        good = all_of(jax.tree.map(_is_finite, updates, state.step_sizes))
        count = jnp.where(good, optax.safe_increment(state.count), state.count)
        leaves, structure = jax.tree.flatten(updates)
        kept = [jax.tree.leaves(tree) for tree in state[:3]]
        advance = partial(_advance, how, state.count, good)
        results = [*map(advance, leaves, *kept, *bounds(updates))]
        moves, *trees = map(
            structure.unflatten, zip(*results, strict=True) if results else [()] * 4
        )
        steps, mean, root = trees
        return moves, ProbabilisticRpropState(steps, mean, root, count)

    return optax.GradientTransformationExtraArgs(init, update)


class _How(NamedTuple):
    """Settings of one update, which are the same for all arrays of params."""

    eta_minus: float | jax.Array
    eta_plus: float | jax.Array
    ema_decay: float | jax.Array
    adapt: str
    move: str


def _is_finite(g: jax.Array, step: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(g.astype(step.dtype)))


def _advance(how, count, good, g, step, mean, root, least, greatest):
    """Return one array's moves, and its new step sizes, means and root mean squares.

    If the flag `good` is False, the moves are NaN and all else is unchanged.
    """
    dtype, wide_g = step.dtype, g.astype(step.dtype)
    decay = jnp.asarray(how.ema_decay, dtype)
    keep = lambda new, old: jnp.where(good, new, old)

    def averages(mean, root, g):
        root = _hypotenuse(jnp.sqrt(decay) * root, jnp.sqrt(1 - decay) * jnp.abs(g))
        return decay * mean + (1 - decay) * g, root

    last = jnp.where(count == 0, 0.5, _probability(mean, root, decay, count))
    p = _probability(*averages(mean, root, wide_g), decay, count + 1)
    flip = p * (1 - last) + last * (1 - p)
    etas = (jnp.asarray(eta, dtype) for eta in (how.eta_minus, how.eta_plus))
    factor = _FACTORS[how.adapt](flip, *etas)
    low, high = jnp.asarray(least, dtype), jnp.asarray(greatest, dtype)
    new_step = jnp.minimum(jnp.maximum(step * factor, low), high)
    new_step = keep(new_step, step)
    # XLA must compute the new step sizes before it overwrites the averages, which the
    # step sizes depend on; otherwise it copies the averages first. Therefore the new
    # averages read the new step sizes, in the comparison with 0, which is always true.
    # The first barrier makes XLA compute the averages twice instead of storing them in
    # a temporary array. The second one makes it compute the moves from the new state,
    # so that it evaluates the probabilities only once.
    new_step, mean, root, wide_g = jax.lax.optimization_barrier(
        (new_step, mean, root, wide_g)
    )
    new_mean, new_root = averages(mean, root, wide_g)
    changes = good & (new_step >= 0)
    new_mean = jnp.where(changes, new_mean, mean)
    new_root = jnp.where(changes, new_root, root)
    new_mean, new_root = jax.lax.optimization_barrier((new_mean, new_root))
    kept = new_step, new_mean, new_root
    if how.move == "sign":
        go = jnp.sign(new_mean)
    else:
        go = 2 * _probability(new_mean, new_root, decay, count + 1) - 1
    return cast_like(keep(-go * new_step, jnp.nan), g), *kept


_FACTORS = {
    "exponential": lambda flip, down, up: jnp.exp(-2 * jnp.log(up) * (flip - 0.5)),
    "linear": lambda flip, down, up: flip * down + (1 - flip) * up,
    "step": lambda flip, down, up: jnp.where(
        flip > 0.5, down, jnp.where(flip < 0.5, up, 1)
    ),
}


def _probability(mean, root, decay, count):
    """Return P(g > 0) of a gradient g, which is taken to be normally distributed.

    Let m be the moving mean of g, and v the moving mean of g². The standard deviation
    of g is s = √(v − m²). Let r be m / √v. The ratio m / s equals r / √(1 − r²), which
    does not depend on the unit of the gradients.
    """
    limits = jnp.finfo(root.dtype)
    weight = 1 - decay ** count.astype(decay.dtype)
    unit = 1 / jnp.sqrt(jnp.where(count == 0, 1, weight))
    # If v is 0, m is 0 too, except if v underflowed. Then r is large, so P(g > 0)
    # rounds to 0 or 1.
    share = mean / jnp.maximum(root, limits.tiny) * unit
    # Values of 1 − r² below the machine epsilon are replaced by the epsilon, for which
    # the probability rounds to 0 or 1. A comparison of 1 − r² with 0 would be
    # unreliable, because XLA may compute 1 − r² twice, with different rounding errors.
    rest = jnp.maximum(1 - share**2, limits.eps)
    # XLA's rsqrt on CPUs, which it also makes of a division by a root, takes several
    # times as long as a root and a division.
    ratio = share * jnp.sqrt(rest) / rest
    return _normal_cdf(ratio)


def _hypotenuse(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return √(a² + b²) of finite a ≥ 0 and b ≥ 0, without overflow of a² and b².

    Unlike `jnp.hypot`, the function does not test for infinities.
    """
    long, short = jnp.maximum(a, b), jnp.minimum(a, b)
    share = short / jnp.maximum(long, jnp.finfo(long.dtype).tiny)
    return long * jnp.sqrt(1 + share**2)


def _normal_cdf(x: jax.Array) -> jax.Array:
    """Return the normal distribution function Φ(x), with a small absolute error.

    The error is at most 4e-7 in float32 and 3e-15 in float64. Unlike
    `jax.scipy.stats.norm.cdf`, the function evaluates no erfc, so the relative error is
    large where Φ(x) is near 0. Here, Φ is only added to numbers of about 1.
    """
    return (1 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype))) / 2
