"""How errors decay or grow on their way back through time.

Notation: h_t is the carry, ℓ_t is the loss, w_t is its weight, J_t = ∂h_t/∂h_{t−1}, and
c_t = ∂ℓ_t/∂h_t through the readout alone. The error that reaches h_t is

    δ_t = w_t c_t + δ_{t+1} J_{t+1}.

The error of a single loss at lag k is ∂ℓ_s/∂h_{s−k}. The look-back curve is its norm
against the lag, φ_k = mean over s and examples ‖∂ℓ_s/∂h_{s−k}‖.

In the contract, a step returns y_t together with h_t. Therefore c_t is found from how
y_t reads h_t in the step's own program; it is 0 if y_t is computed from h_{t−1}
directly.
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
from bpvariants._tables import aligned, short
from bpvariants.diagnostics._look_back import Course, from_each_loss, ratio
from bpvariants.types import Loss, PyTree, Step

FADED = 1e-3  # an error that shrinks to less than this share has vanished


class GradientFlow(NamedTuple):
    """Result of :func:`gradient_flow` along T steps, from S of the losses.

    Attributes:
      deltas: [T], ‖δ_t‖ for the sum Σ_t w_t ℓ_t of an example, averaged over the
        examples without padding at t.
      curve: [T], φ_k for the lags k = 0 … T−1; NaN where no carry is so far back.
      norms: [S, T], the same for each s alone.
      sources: [S] int, the steps s whose losses were used, counted from 0; −1 for none.
      beta: [], β of φ_k ∝ β^k, fitted by least squares to log φ_k for k ≥ tau. 0 if
        errors vanish within a step; NaN if fewer than two lags were measured.
      lookback: [] int, the smallest K for which lags k ≥ K have at most the share
        `tolerance` of Σ_k φ_k; `truncated_bptt(..., every=1, lookback=K)` leaves these
        lags out. T if all lags are needed.
    """

    deltas: jax.Array
    curve: jax.Array
    norms: jax.Array
    sources: jax.Array
    beta: jax.Array
    lookback: jax.Array

    @property
    def verdict(self) -> str:
        """Whether an error vanishes or explodes between the last step and the first.

        With R − 1 the largest lag measured: "vanishing" if β^(R−1) < 1/1000,
        "exploding" if it is > 1000 or an error is infinite, "steady" in between. "not
        finite" if an error is NaN, and "unknown" if β is NaN. Not within `jit`.
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
        """Return φ_k, and ‖δ_t‖ of k steps before the end, for about 20 lags k."""
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
        axes: Any,
        against: Literal["lag", "time"] = "lag",
        label: str | None = None,
    ) -> None:
        """Draw φ_k against the lag, or ‖δ_t‖ against time, into Matplotlib's axes.

        Several networks may be drawn into the same axes, each with its `label`. Against
        the lag, a dashed line shows the fitted decay.
        """
        if against not in ("lag", "time"):
            raise ValueError(f"against must be 'lag' or 'time', got {against!r}.")
        curve = np.asarray(self.curve if against == "lag" else self.deltas)
        where = np.arange(len(curve))
        (line,) = axes.plot(where, curve, marker=".", label=label)
        axes.set_yscale("log")
        if against == "time":
            axes.set(xlabel="time step t (from 0)", ylabel="‖δ_t‖")
            return
        beta, logs = float(self.beta), np.log(np.where(curve > 0, curve, np.nan))
        if beta > 0 and np.isfinite(logs[1:]).any():
            level = np.nanmean(logs[1:] - where[1:] * math.log(beta))
            fitted = np.exp(level + where * math.log(beta))
            axes.plot(where, fitted, "--", color=line.get_color(), linewidth=0.8)
        axes.set(xlabel="lag k (steps back)", ylabel="‖∂ℓ_s/∂h_{s−k}‖")


def gradient_flow(
    step: Step,
    loss: Loss,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    targets: PyTree,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    reset: jax.Array | None = None,
    initial: PyTree | None = None,
    samples: int = 32,
    tau: int = 1,
    tolerance: float | jax.Array = 0.1,
) -> GradientFlow:
    """Measure how errors decay or grow on their way back: does the gradient vanish?

        ‖δ_t‖ for each t,    φ_k = mean ‖∂ℓ_s/∂h_{s−k}‖ for each k,    φ_k ∝ β^k

    This is not the gradient in the parameters, which is a sum over steps and hides the
    decay. δ_t is the error of the sum of an example's losses; for that of their mean,
    divide by Σ w. The function works within `jit`; the `verdict` works only outside.

    Time: S + 1 backward passes, through the carry only, one after another. Memory: one
    such pass, which is T times the arrays that a step computes, and T·n·B for errors.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      params: its parameters θ.
      carry: state before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      targets: what the loss compares outputs with, leaves [T, *batch, ...].
      weights: [T, *batch], how much each loss counts, also in means over s. For a
        network that answers at the last step, give 1 there and 0 elsewhere.
      mask: [T, *batch] bool, False in padding; k does not count padded steps.
      reset: [T, *batch] bool, True puts `initial` back before this step. Errors do not
        pass a reset; they are 0 before it.
      initial: carry that a reset puts back. Default: `carry`.
      samples: S, the largest number of losses to use. They are evenly spread over the
        steps with weight, from the first to the last; if S is 1, it is the last.
      tau: lag from which errors are assumed to decay geometrically.
      tolerance: share of Σ_k φ_k that the recommended lookback may leave out.

    Returns:
      A :class:`GradientFlow`, whose `table()` is text and whose `plot(axes)` draws.

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
    inputs = xs, counted(targets, weights)
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
    """Return β, fitted to log φ_k for k ≥ tau."""
    phi = curve[tau:]
    fitted = (phi > 0) & jnp.isfinite(phi)
    logs = jnp.log(jnp.where(fitted, phi, 1))
    count = jnp.maximum(jnp.sum(fitted), 1).astype(phi.dtype)
    mean = lambda values: jnp.sum(jnp.where(fitted, values, 0)) / count
    k = jnp.arange(len(phi), dtype=phi.dtype)
    k = k - mean(k)
    spread = mean(k**2)
    beta = jnp.exp(mean(k * logs) / jnp.where(spread > 0, spread, 1))
    beta = jnp.where(jnp.sum(fitted) < 2, 0, beta)  # errors vanish within a step
    return jnp.where(jnp.sum(~jnp.isnan(phi)) < 2, jnp.nan, beta)


def _lookback(curve: jax.Array, tolerance: float | jax.Array) -> jax.Array:
    """Return the smallest K whose Σ_{k ≥ K} φ_k is within the tolerance."""
    measured = jnp.where(jnp.isnan(curve), 0, curve)
    left_out = jnp.cumsum(measured[::-1])[::-1] - measured  # entry k is for K = k + 1
    allowed = jnp.asarray(tolerance, curve.dtype) * jnp.sum(measured)
    enough = (left_out <= allowed) & jnp.isfinite(allowed)
    return jnp.where(jnp.any(enough), jnp.argmax(enough) + 1, len(curve))


def _some_of(count: int) -> list[int]:
    """Return about 20 of the lags, or all if there are at most 20."""
    steps = np.unique(np.geomspace(1, max(count, 2), 20).astype(int)) - 1
    return list(range(count)) if count <= 20 else [int(k) for k in steps if k < count]


def _check(samples, tau, tolerance, length) -> None:
    check_count("samples", samples)
    if not is_count(tau, 0, max(length - 1, 1)):
        raise ValueError(
            f"tau must be an integer from 0 to {length - 1}, the largest lag; got "
            f"{tau!r}."
        )
    if are_numbers(tolerance) and not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}.")
