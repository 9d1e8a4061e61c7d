"""ARTBP: BPTT truncated at random steps, reweighted so that it is unbiased.

Notation: h_t is the carry, ℓ_t the loss of step t, J_t = ∂h_t/∂h_{t−1}, and δ_t the
error signal at h_t. Between steps t and t + 1 the backward pass is cut with probability
κ_t. At a cut, cut_t is 1, and no error signal passes. Without a cut, cut_t is 0. κ_t
may depend on earlier cuts, but not on the data. Error signals that pass are scaled up,
to compensate for the cuts on average:

    δ_t = ∂ℓ_t/∂h_t + (1 − cut_t) / (1 − κ_t) · δ_{t+1} J_{t+1}.

Given the earlier cuts, each factor (1 − cut_t) / (1 − κ_t) has mean 1. Products of
these factors therefore also have mean 1, and the mean of the estimate is the exact
gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_single_key
from bpvariants._dtypes import cast_like, is_floating, widen
from bpvariants._losses import (
    as_arrays,
    check_sequence,
    counted,
    effective_weights,
    normalised,
    with_loss,
)
from bpvariants._settings import check_number
from bpvariants.gradients.remat._policies import check_remat, Remat
from bpvariants.gradients.through_time._unroll import sum_steps
from bpvariants.types import GradientRule, Loss, PyTree, Step

# Function: age, the number of steps since the last cut -> κ, the probability of a cut.
Schedule = Callable[[jax.Array], jax.typing.ArrayLike]


class Cuts(NamedTuple):
    """Cuts of the backward pass, [T, *batch]; cut t is between steps t − 1 and t."""

    cut: jax.Array  # bool: whether the backward pass is cut; False in padding
    probability: jax.Array  # κ, probability of the cut; 0 in padding


def artbp(
    step: Step,
    loss: Loss,
    *,
    truncation: float | jax.Array | Schedule,
    remat: Remat = None,
) -> GradientRule:
    """ARTBP, an unbiased estimate of BPTT's gradient from random truncations.

        δ_t = ∂ℓ_t/∂h_t + (1 − cut_t) / (1 − κ_t) · δ_{t+1} J_{t+1},   P(cut_t) = κ_t

    δ_t is the error signal at the carry h_t, ℓ_t the loss of step t, and J_t the
    Jacobian ∂h_t/∂h_{t−1}. The backward pass is cut after step t with probability κ_t.

    The gradient is unbiased at fixed params; the value and the carry are exact. The
    variance of the gradient grows fast with the probability κ of a cut. With constant
    κ, an error signal travels back k steps with probability (1 − κ)^k, and is then
    multiplied by (1 − κ)^−k. With κ = 0 the rule is BPTT.

    Under `jit` shapes are static, and a segment between two cuts may be as long as the
    sequence. Therefore, this rule takes the same time and memory as :func:`bptt`. The
    rule's purpose is to study how much variance unbiased truncation adds. To save
    memory, you would have to choose the cuts outside of `jit`, and store only one
    segment at a time.

    Each example has its own random cuts. Cuts shared by the batch would be unbiased,
    too. But shared cuts would cause more variance, because the random errors of the
    examples would not average out. No error signal passes a reset, so a reset starts a
    new segment. In padding, error signals are neither cut nor scaled, and the step does
    not count as a step since the last cut.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      truncation: κ, the probability of a cut, 0 ≤ κ < 1; or a schedule, which is a
        function age -> κ. The age of an example is its number of steps since the last
        cut, reset or start. The schedule gets ages [*batch] as floats, each a whole
        number of at least 1, and returns κ, [] or [*batch]. :func:`growing_truncation`
        returns a schedule. A traced or scheduled κ outside 0 ≤ κ < 1 makes the gradient
        NaN, because at κ = 1 no scaling could compensate for the cut.
      remat: which arrays the forward pass stores for the backward pass, as in
        :func:`bptt`.

    Returns:
      A :class:`~bpvariants.types.GradientRule` that also requires a `jax.random.key`,
      as the keyword `key`.

    Raises:
      ValueError: if `truncation` is a number out of range; when the rule is called, if
        there is no key, or if lengths, shapes or dtypes disagree.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.artbp(integrate, loss, truncation=0.5))
      >>> args = 2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2)
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> [rule(*args, key=key)[1].item() for key in keys]  # exact: 10
      [6.0, 6.0, 14.0, 14.0]

    References:
      Tallec & Ollivier, "Unbiasing truncated backpropagation through time", 2017,
      arXiv:1705.08209.
    """
    _check_truncation(truncation)
    check_remat(remat)
    with_cuts = _with_cuts(step, loss, remat)

    def rule(
        params,
        carry,
        xs,
        targets,
        weights=None,
        mask=None,
        reset=None,
        initial=None,
        *,
        key=None,
    ):
        if key is None:
            raise ValueError(
                "key must be given, as a keyword: artbp draws at random where to cut. "
                "Use rule(..., key=jax.random.key(0)), with a new key at each call."
            )
        check_single_key(key)

        def draw(shape, dtype, mask, reset):
            uniforms = jax.random.uniform(key, shape, dtype)
            return _cuts(truncation, uniforms, mask, reset)

        return with_cuts(
            draw, params, carry, xs, targets, weights, mask, reset, initial
        )

    return rule


def _check_truncation(truncation) -> None:
    if callable(truncation):
        return
    check_number("truncation", truncation, remedy="it is a probability")
    if are_numbers(truncation) and not 0 <= truncation < 1:
        raise ValueError(
            "truncation must be a probability within 0 <= truncation < 1, got "
            f"{truncation}. If a cut is certain, no scaling makes up for it; for "
            "certain cuts use gradients.truncated_bptt."
        )


def _cuts(
    truncation: float | jax.Array | Schedule,
    uniforms: jax.Array,
    mask: jax.Array | None,
    reset: jax.Array | None,
) -> Cuts:
    """Cut the backward pass wherever `uniforms` is below κ, the probability of a cut.

    `uniforms` [T, *batch] is drawn from [0, 1). The age of a step is the number of
    steps since the last cut, reset or start. A step of age 0, which is the first step
    or a reset, sends no error signal to earlier steps. This step therefore gets no cut.
    """
    schedule = truncation if callable(truncation) else lambda age: truncation

    def body(age, inputs):
        uniform, mask, reset = inputs
        age = age if reset is None else jnp.where(reset, 0, age)
        kappa = schedule(jnp.maximum(age, 1).astype(uniform.dtype))
        kappa = jnp.asarray(kappa, uniform.dtype)
        kappa = _broadcast(kappa, age.shape)
        kappa = jnp.where((kappa >= 0) & (kappa < 1), kappa, jnp.nan)
        here = age > 0 if mask is None else (age > 0) & mask
        kappa = jnp.where(here, kappa, 0)
        cut = here & (uniform < kappa)
        older = jnp.where(cut, 1, age + 1)
        age = older if mask is None else jnp.where(mask, older, age)
        return age, Cuts(cut, kappa)

    # The cast is safe, because `guarded` rejects masks and resets that are not bool.
    mask, reset = (None if f is None else f.astype(bool) for f in (mask, reset))
    if mask is not None and reset is not None:
        reset = reset & mask
    start = jnp.zeros(uniforms.shape[1:], jnp.int32)
    return jax.lax.scan(body, start, (uniforms, mask, reset))[1]


def _broadcast(kappa: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if kappa.shape not in ((), shape):
        raise ValueError(
            "truncation must be one number, or a schedule that returns one number or "
            f"one for each age it is given, shape {shape}; got shape {kappa.shape}."
        )
    return jnp.broadcast_to(kappa, shape)


def _with_cuts(
    step: Step, loss: Loss, remat: Remat
) -> Callable[..., tuple[tuple[jax.Array, PyTree], PyTree]]:
    """Return a gradient rule whose first argument is a function that draws the cuts."""
    advance = with_loss(step, loss)

    def cutting(params, carry, inputs_and_cuts):
        inputs, cuts = inputs_and_cuts
        return advance(params, _cut_off(carry, cuts), inputs)

    def rule(draw, params, carry, xs, targets, weights, mask, reset, initial):
        weights, mask, reset = as_arrays(weights=weights, mask=mask, reset=reset)
        losses = check_sequence(
            advance, params, carry, xs, targets, weights, mask, reset, initial
        )
        initial = carry if initial is None else initial
        shape = (jax.tree.leaves(xs)[0].shape[0], *losses.shape)
        shares = normalised(effective_weights(weights, mask), shape, losses.dtype)
        cuts = draw(shape, losses.dtype, mask, reset)

        def objective(params):
            inputs = (xs, counted(targets, weights, mask)), cuts
            last, value = sum_steps(
                cutting, params, carry, inputs, mask, reset, initial,
                shares=shares, remat=remat,
            )  # fmt: skip
            return value, last

        return jax.value_and_grad(objective, has_aux=True)(params)

    return rule


def _cut_off(carry: PyTree, cuts: Cuts) -> PyTree:
    """Return the carry unchanged; in the backward pass, cut or scale its cotangents."""
    scale = lambda leaf: _scaled(leaf, *cuts) if is_floating(leaf) else leaf
    return jax.tree.map(scale, carry)


@jax.custom_jvp
def _scaled(leaf: jax.Array, cut: jax.Array, kappa: jax.Array) -> jax.Array:
    """Return the leaf unchanged, but with the derivative (1 − cut) / (1 − kappa)."""
    del cut, kappa
    return leaf


@_scaled.defjvp  # pyright: ignore[reportFunctionMemberAccess]
def _scaled_jvp(primals, tangents):
    leaf, cut, kappa = primals
    trailing = (1,) * (jnp.ndim(leaf) - cut.ndim)
    column = lambda flags: flags.reshape(flags.shape + trailing)
    wide = widen(tangents[0])
    wide = wide / column(1 - kappa).astype(wide.dtype)
    # `where` also cuts an infinite tangent; a product would give 0 · inf = NaN.
    wide = jnp.where(column(cut), jnp.zeros_like(wide), wide)
    return leaf, cast_like(wide, leaf)
