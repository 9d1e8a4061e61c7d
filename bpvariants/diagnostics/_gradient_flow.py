"""Measurement of how error signals decay or grow as they travel back in time.

Notation: step t has the carry h_t, the loss ℓ_t with the weight w_t, and the Jacobian
J_t = ∂h_t/∂h_{t−1}. The derivative c_t = ∂ℓ_t/∂h_t includes only the path from h_t to
ℓ_t through the output y_t. The error signal at h_t is

    δ_t = w_t c_t + δ_{t+1} J_{t+1}.

The error signal of a single loss ℓ_s at lag k is ∂ℓ_s/∂h_{s−k}. The look-back curve φ_k
is the mean norm of these error signals at each lag k: φ_k = mean over s and examples of
‖∂ℓ_s/∂h_{s−k}‖.

A step is a function that returns the output y_t and the carry h_t together, and not y_t
as a function of h_t. Therefore c_t is found from the step's jaxpr, which shows how y_t
is computed from h_t. If the jaxpr computes y_t from h_{t−1} and not from h_t, then
c_t = 0.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import are_numbers, check_count, is_count
from bpvariants._losses import (
    as_arrays,
    check_sequence,
    counted,
    effective_weights,
    with_loss,
)
from bpvariants._pictures import axes_for
from bpvariants._settings import check_scalar
from bpvariants._tables import aligned, short
from bpvariants.diagnostics._look_back import Course, from_each_loss, ratio
from bpvariants.types import Loss, PyTree, Step

FADED = 1e-3  # error signals count as vanished if their norms shrink by this factor


class GradientFlow(NamedTuple):
    """Result of :func:`gradient_flow` for T time steps and S measured losses.

    Attributes:
      deltas: [T]: norm ‖δ_t‖ of the error signal, averaged over the examples for which
        step t is not padding. The error signal is the derivative of the weighted sum of
        losses Σ_s w_s ℓ_s with respect to the carry h_t.
      curve: [T]: look-back curve φ_k = mean ‖∂ℓ_s/∂h_{s−k}‖ for lags k = 0 … T−1. φ_k
        is NaN if no measured loss ℓ_s has k time steps before it.
      norms: [S, T]: the look-back curve of each single loss ℓ_s.
      sources: [S] int: the time steps s of the S measured losses, counted from 0; −1 in
        unused entries, if fewer than S losses were measured.
      beta: []: decay β of the error norms φ_k ∝ β^k, fitted by least squares to log φ_k
        for lags k ≥ tau. β is 0 if errors vanish within one time step, and NaN if fewer
        than two of these lags were measured.
      lookback: [] int: the smallest number K of lags that suffices, or T if all lags
        are needed. K lags suffice if the left-out sum Σ_{k≥K} φ_k of the look-back
        curve is at most `tolerance` times the whole sum. `truncated_bptt(..., every=1,
        lookback=K)` leaves out all lags k ≥ K.
    """

    deltas: jax.Array
    curve: jax.Array
    norms: jax.Array
    sources: jax.Array
    beta: jax.Array
    lookback: jax.Array

    @property
    def verdict(self) -> str:
        """Whether error signals vanish or explode from the last step to the first.

        Let k be the largest measured lag, and β the decay of the error norms per lag.
        The verdict is "vanishing" if β^k < 1/1000, "exploding" if β^k > 1000 or an
        error norm is infinite, and otherwise "steady". If an error norm is NaN, the
        verdict is "not finite"; if β is NaN, the verdict is "unknown". `verdict` does
        not work within `jit`.
        """
        curve, deltas = np.asarray(self.curve), np.asarray(self.deltas)
        measured = np.flatnonzero(~np.isnan(np.asarray(self.norms)).all(axis=0))
        if np.isnan(deltas).any() or not measured.size:
            return "not finite"
        if np.isinf(curve).any() or np.isinf(deltas).any():
            return "exploding"
        beta, longest = float(self.beta), int(measured[-1])
        if math.isnan(beta):
            return "unknown"
        logarithm = longest * math.log(beta) if beta > 0 else -math.inf
        if abs(logarithm) <= -math.log(FADED):
            return "steady"
        return "vanishing" if logarithm < 0 else "exploding"

    def table(self) -> str:
        """Return text with norms of error signals, for about 20 lags k.

        The line of lag k shows the look-back curve φ_k, and the norm of the error
        signal δ at the carry k steps before the end of the sequence.
        """
        rows = [["k", "‖∂ℓ_s/∂h_{s−k}‖", "of k = 0", "‖δ_{T−k}‖"]]
        deltas, curve = np.asarray(self.deltas)[::-1], np.asarray(self.curve)
        for k in _some_of(len(curve)):
            share = curve[k] / curve[0] if curve[0] else np.nan
            rows.append([str(k), *map(short, (curve[k], share, deltas[k]))])
        return (
            aligned(rows) + f"\n{self.verdict}: errors change by β = "
            f"{short(self.beta)} a step; recommended lookback {int(self.lookback)}"
        )

    def plot(
        self,
        axes: Any = None,
        against: Literal["lag", "time"] = "lag",
        label: str | None = None,
    ) -> Any:
        """Draw error norms against the lag k or the time step t; return the axes.

        `axes` are Matplotlib axes; by default, those of a new figure. As a function of
        the lag k, the plot shows the look-back curve φ_k, which is the mean norm of the
        error signals at lag k. A dashed line is the fitted decay β^k. As a function of
        the time step t, the plot shows the norms ‖δ_t‖ of the error signals. Curves of
        several networks may be drawn into the same axes, each with its own `label`.
        """
        if against not in ("lag", "time"):
            raise ValueError(f"against must be 'lag' or 'time', got {against!r}.")
        axes = axes_for("flow.plot", axes)
        curve = np.asarray(self.curve if against == "lag" else self.deltas)
        where = np.arange(len(curve))
        (line,) = axes.plot(where, curve, marker=".", label=label)
        axes.set_yscale("log")
        if against == "time":
            axes.set(xlabel="time step t (from 0)", ylabel="‖δ_t‖")
            return axes
        beta, logs = float(self.beta), np.log(np.where(curve > 0, curve, np.nan))
        if beta > 0 and np.isfinite(logs[1:]).any():
            level = np.nanmean(logs[1:] - where[1:] * math.log(beta))
            fitted = np.exp(level + where * math.log(beta))
            axes.plot(where, fitted, "--", color=line.get_color(), linewidth=0.8)
        norm = r"$\Vert \partial\ell_s / \partial h_{s-k} \Vert$"
        axes.set(xlabel="lag k (steps back)", ylabel=norm)
        return axes


def gradient_flow(
    step: Step,
    loss: Loss,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    targets: PyTree,
    *,
    weights: jax.typing.ArrayLike | None = None,
    mask: jax.typing.ArrayLike | None = None,
    reset: jax.typing.ArrayLike | None = None,
    initial: PyTree | None = None,
    samples: int = 32,
    tau: int = 1,
    tolerance: float | jax.Array = 0.1,
) -> GradientFlow:
    """Measure how error signals decay or grow while they travel back in time.

        ‖δ_t‖ for each t,    φ_k = mean ‖∂ℓ_s/∂h_{s−k}‖ for each k,    φ_k ∝ β^k

    The error signal δ_t is the derivative of the weighted sum of an example's losses
    with respect to the carry h_t. For the derivative of the weighted mean, divide δ_t
    by Σ w, the sum of the weights. The error signal of a single loss ℓ_s at the carry k
    steps before step s is ∂ℓ_s/∂h_{s−k}. The mean norm of this error signal is φ_k, and
    β is the fitted decay of φ_k per lag. The gradient for the parameters is a sum over
    time steps, so it does not show how error signals decay. `gradient_flow` works
    within `jit`; the result's `verdict`, `table()` and `plot()` work only outside of
    `jit`.

    Time: S + 1 backward passes for S measured losses, one after another; these passes
    compute derivatives with respect to the carry but not to the params. Memory: the
    residuals of one backward pass over T steps, and T·n·B array elements for the error
    signals. Here B is the number of examples, and n is the number of elements of an
    example's carry.

    Args:
      step: one time step of the network.
      loss: function (y, target) -> losses [*batch], one for each example.
      params: the parameters θ of the network.
      carry: the network's carry before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      targets: targets of the loss, leaves [T, *batch, ...].
      weights: [T, *batch]: weight of each loss. The same weights are used in the mean
        φ_k of the error norms over steps s. If only the last output of the network
        matters, give weight 1 to the last step and 0 to all others.
      mask: [T, *batch] bool, False in padding. The lag k counts only steps without
        padding.
      reset: [T, *batch] bool; True sets the carry to `initial` before the time step.
        The error signals of a loss after a reset are 0 at all steps before the reset.
      initial: the carry after a reset. Default: `carry`.
      samples: largest number S of single losses to measure. The measured losses are
        evenly spaced among the losses with nonzero weight, and include the first and
        the last of these losses; if S is 1, only the last one is measured.
      tau: smallest lag k of the error norms φ_k to which the decay β^k is fitted.
      tolerance: fraction of the sum of the look-back curve φ_k that the recommended
        lookback may leave out.

    Returns:
      A :class:`GradientFlow`; `table()` returns it as text, and `plot(axes)` draws it.

    Raises:
      ValueError: if samples, tau or tolerance are out of range, or if lengths, shapes
        or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics
      >>> def leak(theta, h, x):
      ...     h = 0.5 * h + theta * x
      ...     return h, h
      >>> args = 1.0, jnp.zeros(()), jnp.ones(4), jnp.zeros(4)
      >>> flow = diagnostics.gradient_flow(leak, lambda y, target: y, *args)
      >>> print(flow.table())
      k ‖∂ℓ_s/∂h_{s−k}‖ of k = 0 ‖δ_{T−k}‖
      0           1.000    1.000     1.000
      1           .5000    .5000     1.500
      2           .2500    .2500     1.750
      3           .1250    .1250     1.875
      steady: errors change by β = .5000 a step; recommended lookback 3

    References:
      Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural
      networks", 2013, arXiv:1211.5063.
      Aicher, Foti & Fox, "Adaptively truncating backpropagation through time to control
      gradient bias", 2019, arXiv:1905.07473.
    """
    weights, mask, reset = as_arrays(weights=weights, mask=mask, reset=reset)
    advance = with_loss(step, loss)
    losses = check_sequence(
        advance, params, carry, xs, targets, weights, mask, reset, initial
    )
    length = jax.tree.leaves(xs)[0].shape[0]
    _check(samples, tau, tolerance, length)
    initial = carry if initial is None else initial
    shape = (length, *losses.shape)
    counts = effective_weights(weights, mask)
    counts = jnp.ones(shape) if counts is None else jnp.broadcast_to(counts, shape)
    inputs = xs, counted(targets, weights, mask)
    course = Course(advance, params, carry, inputs, mask, reset, initial)
    deltas, sources, sums, shares = from_each_loss(
        course, counts.astype(losses.dtype), min(samples, length)
    )
    curve = ratio(jnp.sum(sums, axis=0), jnp.sum(shares, axis=0))
    return GradientFlow(
        deltas=deltas,
        curve=curve,
        norms=ratio(sums, shares),
        sources=sources,
        beta=_decay(curve, tau),
        lookback=_lookback(curve, tolerance),
    )


def _decay(curve: jax.Array, tau: int) -> jax.Array:
    """Fit the decay per lag to the look-back curve at lags ≥ tau, by least squares."""
    phi = curve[tau:]
    fitted = (phi > 0) & jnp.isfinite(phi)
    logs = jnp.log(jnp.where(fitted, phi, 1))
    count = jnp.maximum(jnp.sum(fitted), 1).astype(phi.dtype)
    mean = lambda values: jnp.sum(jnp.where(fitted, values, 0)) / count
    k = jnp.arange(len(phi), dtype=phi.dtype)
    k = k - mean(k)
    spread = mean(k**2)
    beta = jnp.exp(mean(k * logs) / jnp.where(spread > 0, spread, 1))
    beta = jnp.where(jnp.sum(fitted) < 2, 0, beta)  # error norms vanish within one lag
    return jnp.where(jnp.sum(~jnp.isnan(phi)) < 2, jnp.nan, beta)


def _lookback(curve: jax.Array, tolerance: float | jax.Array) -> jax.Array:
    """Find the smallest lookback that omits at most `tolerance` of the curve's sum."""
    measured = jnp.where(jnp.isnan(curve), 0, curve)
    # Entry i of `left_out` is the sum of the error norms at all lags of at least i + 1,
    # which a lookback of i + 1 steps leaves out.
    left_out = jnp.cumsum(measured[::-1])[::-1] - measured
    allowed = jnp.asarray(tolerance, curve.dtype) * jnp.sum(measured)
    enough = (left_out <= allowed) & jnp.isfinite(allowed)
    return jnp.where(jnp.any(enough), jnp.argmax(enough) + 1, len(curve))


def _some_of(count: int) -> list[int]:
    """Return all lags if there are at most 20, and otherwise about 20 of them."""
    steps = np.unique(np.geomspace(1, max(count, 2), 20).astype(int)) - 1
    return list(range(count)) if count <= 20 else [int(k) for k in steps if k < count]


def _check(samples, tau, tolerance, length) -> None:
    check_count("samples", samples)
    if not is_count(tau, 0, max(length - 1, 1)):
        raise ValueError(
            f"tau must be an integer from 0 to {length - 1}, the largest lag; got "
            f"{tau!r}."
        )
    check_scalar("tolerance", tolerance)
    if are_numbers(tolerance) and not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}.")
