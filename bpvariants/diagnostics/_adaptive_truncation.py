"""Estimate of how far truncated BPTT must look back for its bias to be below a bound.

Notation: ℓ_s is the last loss of an example, at step s, and h_{s−k} is the carry k
steps before step s. The error norm at lag k is φ_k = mean over examples of
‖∂ℓ_s/∂h_{s−k}‖, for k = 1 … R. R is the largest lag that is measured. From a chosen lag
τ on, the error norms are assumed to decay like β^k, where β is fitted to log φ_k. Let
M_θ be a bound on ‖∂h_t/∂θ‖. If the error norms decay like β^k, truncated BPTT that
propagates errors back over K steps has a bias of at most M_θ · bias(K), where

    bias(K) = Σ_{k=K}^{τ−1} φ_k  +  φ_τ β^{max(K,τ)−τ} / (1 − β),    β ≥ 1: infinite.

The relative bias rel(K) is bias(K) divided by a lower bound of the gradient's norm. The
lower bound uses Ĝ_K = ‖mean over examples of Σ_{k<K} ∂ℓ_s/∂h_{s−k}‖, the norm of the
sum of the error signals at lags below K:

    rel(K) = bias(K) / max_K (Ĝ_K − bias(K)).

The sums over lags in bias(K) and Ĝ_K begin at the lag k = 1. The error signal at lag 0,
∂ℓ_s/∂h_s, is not available, because a step returns the output y_s and the carry h_s
together, and not y_s as a function of h_s. The bias does not need lag 0, because
truncated BPTT never leaves out the error signal at lag 0. Without lag 0, Ĝ_K is in most
cases smaller, and rel(K) is larger.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, is_count
from bpvariants._losses import as_arrays, check_sequence, with_loss
from bpvariants._settings import check_scalar
from bpvariants.diagnostics._look_back import Course, from_last_losses
from bpvariants.types import Loss, PyTree, Step

VANISHED = -50.0  # the fit leaves out error norms below exp(−50) times the largest


class TruncationCertificate(NamedTuple):
    """Result of :func:`adaptive_truncation`; entry i of an array is for lookback i + 1.

    R is the largest lookback considered. A relative bias is small if it is below the
    argument `bias`. If no lookback up to R has a small relative bias, `certified` is
    False and `lookback` is R.
    """

    lookback: jax.Array  # []: smallest lookback of small relative bias; R if none has
    certified: jax.Array  # []: whether any lookback has a small relative bias
    relative_bias: jax.Array  # [R]: relative bias of each lookback; infinite if unknown
    absolute_bias: jax.Array  # [R]: estimated bias of the gradient, by lookback
    beta: jax.Array  # []: factor by which error norms change per lag; NaN if not fitted
    norms: jax.Array  # [R]: mean norm φ_k of the error signals at each lag k = 1 … R
    truncated_norms: jax.Array  # [R]: norm of the sum of the errors at lags < lookback


def adaptive_truncation(
    step: Step,
    loss: Loss,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    targets: PyTree,
    *,
    bias: float | jax.Array,
    tau: int,
    max_lookback: int | None = None,
    mask: jax.typing.ArrayLike | None = None,
    reset: jax.typing.ArrayLike | None = None,
    initial: PyTree | None = None,
    fit: Literal["least_squares", "max"] = "least_squares",
) -> TruncationCertificate:
    """Find the smallest lookback K with an estimated relative bias below `bias`.

        bias(K) / max_K (Ĝ_K − bias(K)) < bias

    Here bias(K) is the estimated bias of truncated BPTT that propagates errors back
    over K time steps. Ĝ_K is the norm of the sum of the error signals at lags below K.
    Therefore, the denominator is a lower bound of the gradient's norm. Use the
    resulting K in `truncated_bptt(step, loss, every=K, lookback=2 * K)`. With these
    settings, the error signal of every loss travels back at least K steps. K is valid
    only for the given params, so repeat the estimate during the training. Under `jit`,
    `lookback` is a traced array; call int(certificate.lookback) outside of `jit`.

    The bias is an estimate, not a proven bound: at lags k above the largest measured
    lag R, error norms may decay more slowly than the fitted β^k. The error signal at a
    carry h_t is multiplied by ∂h_t/∂θ to give a gradient; the norm of ∂h_t/∂θ is left
    out of both the bias and the gradient's norm. Only the error signals of each
    example's last loss are measured. To average over several losses of a long sequence,
    pass windows of the sequence as examples.

    Unlike in the paper, bias(K) is never smaller than Σ_{k=K}^R φ_k, the sum of the
    measured error norms at lags k ≥ K. The estimator in the paper can be smaller than
    this sum, if the error norm φ_τ at the first fitted lag τ happens to be small.

    Let R be `max_lookback`. Time: R backward passes of one step, which compute
    derivatives with respect to the carry but not to the params, and T forward passes of
    one step. Memory: R carries.

    Args:
      step: one time step of the network.
      loss: function (y, target) -> losses [*batch], one for each example.
      params: the parameters θ of the network.
      carry: the network's carry before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      targets: targets of the loss, leaves [T, *batch, ...].
      bias: the largest acceptable relative bias, above 0, such as 0.1.
      tau: τ, the smallest lag to which the geometric decay is fitted; 1 ≤ τ < R, where
        R is `max_lookback`.
      max_lookback: R ≤ T, the largest lookback to consider, in time steps. Default: T.
      mask: [T, *batch] bool, False in padding. The error signals at the last R steps
        are measured, and these R steps include padded steps. The lag k does not count
        padded steps.
      reset: [T, *batch] bool; True sets the carry to `initial` before the time step.
        The error signals of a loss after a reset are 0 at all steps before the reset.
      initial: the carry after a reset. Default: `carry`.
      fit: how β is fitted. Let φ_k be the error norm at lag k. "least_squares" fits a
        line to log φ_k as a function of k. "max" uses the largest ratio φ_{k+1} / φ_k
        at lags k ≥ τ. With "max", the bias is less often underestimated, but β is more
        often at least 1; the estimated bias is infinite if β is at least 1.

    Returns:
      A :class:`TruncationCertificate`. `certified` is False, and the relative bias is
      infinite for all lookbacks K, in each of these cases: the fitted decay β per lag
      is at least 1; bias(K) is at least the norm Ĝ_K of the summed error signals for
      all K; fewer than two lags k ≥ τ were measured; or an error norm is not finite.

    Raises:
      ValueError: if bias, tau, max_lookback or fit are out of range, or if lengths,
        shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics, gradients
      >>> leak = lambda theta, h, x: (0.5 * h + theta * x, 0.5 * h + theta * x)
      >>> loss = lambda y, target: (y - target) ** 2 / 2
      >>> args = 1.0, jnp.zeros(()), jnp.ones(30), jnp.zeros(30)
      >>> found = diagnostics.adaptive_truncation(leak, loss, *args, bias=0.1, tau=2)
      >>> int(found.lookback), bool(found.certified), round(found.beta.item(), 4)
      (5, True, 0.5)

    References:
      Aicher, Foti & Fox, "Adaptively truncating backpropagation through time to control
      gradient bias", 2019, arXiv:1905.07473.
    """
    advance = with_loss(step, loss)
    mask, reset = as_arrays(mask=mask, reset=reset)
    losses = check_sequence(
        advance, params, carry, xs, targets, None, mask, reset, initial
    )
    length = jax.tree.leaves(xs)[0].shape[0]
    steps = _check(bias, tau, max_lookback, fit, length)
    initial = carry if initial is None else initial
    course = Course(advance, params, carry, (xs, targets), mask, reset, initial)
    measured = from_last_losses(course, losses.shape, steps)
    return certificate(*measured, bias, tau, fit)


def certificate(
    norms: jax.Array,
    examples: jax.Array,
    errors: jax.Array,
    bias: float | jax.Array,
    tau: int,
    fit: str,
) -> TruncationCertificate:
    """Compute the TruncationCertificate from measured error signals at lags 1 to R."""
    beta = jnp.where(
        jnp.all(jnp.isfinite(norms)), _decay(norms, examples > 0, tau, fit), jnp.nan
    )
    absolute = _bias(norms, beta, tau)
    sums = jnp.concatenate([jnp.zeros_like(errors[:1]), jnp.cumsum(errors, 0)[:-1]])
    truncated = jnp.linalg.norm(sums, axis=1)
    lower = jnp.max(truncated - absolute)  # lower bound of the gradient's norm
    known = (lower > 0) & jnp.isfinite(absolute)
    relative = jnp.where(known, absolute / jnp.where(known, lower, 1), jnp.inf)
    relative = jnp.where(absolute == 0, 0, relative)  # 0 divided by any norm
    below = relative < jnp.asarray(bias, relative.dtype)
    certified = jnp.any(below)
    lookback = jnp.where(certified, jnp.argmax(below) + 1, len(norms))
    return TruncationCertificate(
        lookback, certified, relative, absolute, beta, norms, truncated
    )


def _decay(norms: jax.Array, reached: jax.Array, tau: int, fit: str) -> jax.Array:
    """Fit the decay β of error norms per lag; NaN with fewer than two measured lags."""
    phi, reached = norms[tau - 1 :], reached[tau - 1 :]
    tiny = jnp.log(jnp.finfo(phi.dtype).tiny)
    logs = jnp.where(phi > 0, jnp.log(phi), -jnp.inf)
    largest = jnp.max(logs, where=reached, initial=-jnp.inf)
    fitted = reached & (logs > jnp.maximum(tiny, largest + VANISHED))
    logs = jnp.where(fitted, logs, 0)
    if fit == "max":
        slopes = logs[1:] - logs[:-1]
        both, again = fitted[1:] & fitted[:-1], fitted[1:] & ~fitted[:-1]
        slopes = jnp.where(both, slopes, jnp.where(again, jnp.inf, -jnp.inf))
        slope = jnp.max(slopes)
    else:
        count = jnp.maximum(jnp.sum(fitted), 1).astype(logs.dtype)
        mean = lambda values: jnp.sum(jnp.where(fitted, values, 0)) / count
        k = jnp.arange(len(phi), dtype=logs.dtype)
        k = k - mean(k)
        spread = mean(k**2)
        slope = mean(k * logs) / jnp.where(spread > 0, spread, 1)
        # If at most one error norm is nonzero, error signals vanish within one lag: the
        # decay β is 0, and `slope`, the logarithm of β, is −∞.
        slope = jnp.where(jnp.sum(fitted) < 2, -jnp.inf, slope)
    return jnp.where(jnp.sum(reached) < 2, jnp.nan, jnp.exp(slope))


def _bias(norms: jax.Array, beta: jax.Array, tau: int) -> jax.Array:
    """Return the estimated bias of each lookback, or infinity if beta is at least 1."""
    lookbacks = jnp.arange(1, len(norms) + 1)
    measured = jnp.cumsum(norms[::-1])[::-1]
    before_tau = jnp.where(lookbacks < tau, measured - measured[tau - 1], 0)
    decays = beta < 1
    safe = jnp.where(decays, beta, 0)
    ahead = jnp.maximum(lookbacks - tau, 0).astype(norms.dtype)
    tail = norms[tau - 1] * safe**ahead / (1 - safe)
    return jnp.where(decays, jnp.maximum(before_tau + tail, measured), jnp.inf)


def _check(bias, tau, max_lookback, fit, length) -> int:
    """Check the settings; return the largest lookback to consider."""
    check_scalar("bias", bias, remedy="give 0.1, for example")
    if are_numbers(bias) and not bias > 0:
        raise ValueError(f"bias must be positive, got {bias}; give 0.1, for example.")
    if length < 2:
        raise ValueError(
            "xs must have at least 2 time steps, so that errors can decay; got 1."
        )
    steps = length if max_lookback is None else max_lookback
    if not is_count(steps, 2, length):
        raise ValueError(
            f"max_lookback must be an integer from 2 to {length}, the number of time "
            f"steps, got {steps!r}."
        )
    if not is_count(tau, 1, int(steps) - 1):
        raise ValueError(
            f"tau must be an integer from 1 to {int(steps) - 1}, so that errors from "
            f"tau to max_lookback = {steps} steps back show how they decay; got "
            f"{tau!r}."
        )
    if fit not in ("least_squares", "max"):
        raise ValueError(f"fit must be 'least_squares' or 'max', got {fit!r}.")
    return int(steps)
