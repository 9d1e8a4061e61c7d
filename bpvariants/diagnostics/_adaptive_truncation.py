"""Estimate of the lookback that keeps the bias of truncated BPTT below a bound.

Notation: ℓ_s is the last loss of an example, h_{s−k} is the carry k steps before it,
and φ_k = mean over examples ‖∂ℓ_s/∂h_{s−k}‖ for k = 1 … R. From k = τ on, errors are
assumed to decay like β^k, where β is fitted to log φ_k. A lookback of K steps then
leaves out at most, up to a factor M_θ ≥ ‖∂h_t/∂θ‖,

    bias(K) = Σ_{k=K}^{τ−1} φ_k  +  φ_τ β^{max(K,τ)−τ} / (1 − β),    β ≥ 1: infinite.

With Ĝ_K = ‖mean Σ_{k<K} ∂ℓ_s/∂h_{s−k}‖ in place of the gradient's norm, the relative
bias is

    rel(K) = bias(K) / max_K (Ĝ_K − bias(K)).

In the contract, a step returns y_s together with h_s, so ∂ℓ_s/∂h_s does not exist. This
is the term k = 0. No truncation leaves it out, so bias(K) does not need it. Without it,
however, Ĝ_K is smaller in most cases, and rel(K) is larger.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, is_count
from bpvariants._losses import as_arrays, check_sequence, with_loss
from bpvariants.diagnostics._look_back import Course, from_last_losses
from bpvariants.types import Loss, PyTree, Step

VANISHED = -50.0  # log(φ_k / max φ) below which an error is not fitted


class TruncationCertificate(NamedTuple):
    """Result of :func:`adaptive_truncation`; entry i of arrays [R] is for i + 1 steps.

    If `certified` is False, no lookback was found to be enough, and `lookback` is R.
    """

    lookback: jax.Array  # [] int, the smallest K with rel(K) < bias, else R
    certified: jax.Array  # [] bool, whether there is such a K
    relative_bias: jax.Array  # [R], rel(K), infinite where it could not be estimated
    absolute_bias: jax.Array  # [R], bias(K)
    beta: jax.Array  # [], β, NaN where too few errors were measured to fit it
    norms: jax.Array  # [R], φ_k
    truncated_norms: jax.Array  # [R], Ĝ_K


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
    mask: jax.Array | None = None,
    reset: jax.Array | None = None,
    initial: PyTree | None = None,
    fit: Literal["least_squares", "max"] = "least_squares",
) -> TruncationCertificate:
    """Find the smallest lookback K whose relative bias is estimated to be below `bias`.

        bias(K) / max_K (Ĝ_K − bias(K)) < bias

    Then use `truncated_bptt(step, loss, every=K, lookback=2 * K)`, in which every loss
    looks back at least K steps. K holds for the given params only, so measure again
    from time to time. Under `jit` the lookback is an array; take
    int(certificate.lookback) outside.

    This is an estimate, not a proof. Further back, errors may decay more slowly than
    the fit. M_θ is left out of both sides. Only the last loss of each example is
    measured; to average over several losses of a long sequence, give its windows as
    examples.

    The measured errors take precedence over the fit: bias(K) is at least Σ_{k=K}^R φ_k.
    The published estimator can be smaller, if φ_τ happens to be small.

    Time: R backward passes of a step, through the carry only, and T forward passes.
    Memory: R carries.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      params: its parameters θ.
      carry: state before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      targets: what the loss compares outputs with, leaves [T, *batch, ...].
      bias: δ > 0, the tolerable relative bias, such as 0.1.
      tau: τ, the number of steps back from which errors are assumed to decay
        geometrically, 1 ≤ τ < R.
      max_lookback: R ≤ T, the largest lookback to consider. Default: T.
      mask: [T, *batch] bool, False in padding. Padded steps count in R, but not in k.
      reset: [T, *batch] bool, True puts `initial` back before this step. Errors do not
        pass a reset; they are 0 before it.
      initial: carry that a reset puts back. Default: `carry`.
      fit: "least_squares" fits a line to log φ_k over k. "max" takes the slowest decay
        from any k ≥ τ to k + 1; it is safer, but often gives an infinite bias.

    Returns:
      A :class:`TruncationCertificate`. It is not certified, and rel(K) is infinite for
      all K, in these cases: β ≥ 1; no truncated gradient is longer than its bias; fewer
      than two lags k ≥ τ were measured; or a φ_k is not finite.

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
    """Return the certificate of a look-back curve; arrays [R, ...] start at k = 1."""
    beta = jnp.where(
        jnp.all(jnp.isfinite(norms)), _decay(norms, examples > 0, tau, fit), jnp.nan
    )
    absolute = _bias(norms, beta, tau)
    sums = jnp.concatenate([jnp.zeros_like(errors[:1]), jnp.cumsum(errors, 0)[:-1]])
    truncated = jnp.linalg.norm(sums, axis=1)
    lower = jnp.max(truncated - absolute)  # lower bound of the whole gradient's norm
    known = (lower > 0) & jnp.isfinite(absolute)
    relative = jnp.where(known, absolute / jnp.where(known, lower, 1), jnp.inf)
    relative = jnp.where(absolute == 0, 0, relative)  # nothing left out: no bias
    below = relative < jnp.asarray(bias, relative.dtype)
    certified = jnp.any(below)
    lookback = jnp.where(certified, jnp.argmax(below) + 1, len(norms))
    return TruncationCertificate(
        lookback, certified, relative, absolute, beta, norms, truncated
    )


def _decay(norms: jax.Array, reached: jax.Array, tau: int, fit: str) -> jax.Array:
    """Return β, fitted to log φ_k for k ≥ τ; NaN if fewer than 2 lags were measured."""
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
        # If at most one error is nonzero, errors vanish within a step: β = 0.
        slope = jnp.where(jnp.sum(fitted) < 2, -jnp.inf, slope)
    return jnp.where(jnp.sum(reached) < 2, jnp.nan, jnp.exp(slope))


def _bias(norms: jax.Array, beta: jax.Array, tau: int) -> jax.Array:
    """Return bias(K) for K = 1 … R, infinite for all of them unless β < 1."""
    lookbacks = jnp.arange(1, len(norms) + 1)
    measured = jnp.cumsum(norms[::-1])[::-1]
    before_tau = jnp.where(lookbacks < tau, measured - measured[tau - 1], 0)
    decays = beta < 1
    safe = jnp.where(decays, beta, 0)
    ahead = jnp.maximum(lookbacks - tau, 0).astype(norms.dtype)
    tail = norms[tau - 1] * safe**ahead / (1 - safe)
    return jnp.where(decays, jnp.maximum(before_tau + tail, measured), jnp.inf)


def _check(bias, tau, max_lookback, fit, length) -> int:
    """Check the settings; return R."""
    if are_numbers(bias) and not bias > 0:
        raise ValueError(f"bias must be positive, got {bias}; 0.1 allows a tenth.")
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
