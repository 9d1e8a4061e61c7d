"""Forecasts of `breathing` by linear models; networks are in `_breathing_networks`.

Every method forecasts for horizons h. The forecast for time t + h that is made at time
t reads the samples up to t. What its weights have learned from depends on `delayed`:

- True: at time t, the newest known target is sample t. It belongs to the forecast from
  time t − h.
- False: at time t, the target of the forecast made at t − 1 is taken as known, as in
  the published program. It is sample t − 1 + h, which lies in the future for h > 1.

Each function returns the forecasts for each time, and their squared errors. The arrays
have the axes [S, T, H, …], with S sequences, T times for which the forecasts are, and H
horizons.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import updates
from experiments.harness.precision import double_precision
from experiments.online._breathing_series import COORDINATES, Series, windows


class Forecasts(NamedTuple):
    """Squared errors in mm² [S, T, H, …], and scaled forecasts [S, T, H, …, 9]."""

    errors: np.ndarray
    values: np.ndarray


def persistence(found: Series, horizons: np.ndarray) -> Forecasts:
    """Forecast that nothing moves. The array has no axes after H."""
    times = np.arange(found.values.shape[1])
    before = found.values[:, np.maximum(times[:, None] - horizons, 0)]
    return scored(found, before)


def last_target(found: Series, horizons: np.ndarray) -> Forecasts:
    """Repeat the target of the forecast before; only possible if it is not delayed.

    For time t + h, this is the sample at t + h − 1.
    """
    return persistence(found, np.ones_like(horizons))


def known_targets(
    found: Series, lags: int, decays: tuple[float, ...], prior: float, every: int = 1
) -> Forecasts:
    """Read targets that count as known instead of samples; not possible if delayed.

    The forecast for time t + h reads the samples up to t + h − 1, so it is a forecast
    with the horizon 1, whatever h is. The arrays have one horizon.
    """
    return least_squares(found, np.array([1]), lags, True, decays, prior, every)


def ridge(
    found: Series, horizons: np.ndarray, lags: int, penalties: tuple[float, ...],
    end: int, every: int = 1,
) -> Forecasts:  # fmt: skip
    """Fit a linear model on the samples before `end`; its weights stay as they are.

    The arrays have an axis of penalties after H. A penalty is the weight of ‖w‖² for
    each sample.
    """
    xs = windows(found.values, lags, every)
    longest = int(horizons.max())
    inputs = xs[:, : end - longest]
    at = np.arange(end - longest)[:, None] + horizons
    targets = found.values[:, at].reshape(*inputs.shape[:2], -1)
    moments = np.einsum("stp,stq->spq", inputs, inputs)
    product = np.einsum("stp,stq->spq", inputs, targets)
    identity = inputs.shape[1] * np.eye(inputs.shape[2])
    solved = [np.linalg.solve(moments + p * identity, product) for p in penalties]
    ys = np.stack([xs @ w for w in solved], axis=-1)
    ys = ys.reshape(*xs.shape[:2], len(horizons), COORDINATES, len(penalties))
    return scored(found, np.moveaxis(at_targets(ys, horizons), 3, -1))


def least_squares(
    found: Series, horizons: np.ndarray, lags: int, delayed: bool,
    decays: tuple[float, ...], prior: float, every: int = 1,
) -> Forecasts:  # fmt: skip
    """Learn a linear model by recursive least squares, for each forgetting factor.

    All horizons have the same inputs, so they share the covariance of the weights. The
    weights that have learned from the inputs of time s and the target s + h forecast
    from time s + h if targets are delayed, and from time s + 1 if not.
    """
    waits = horizons if delayed else np.ones_like(horizons)
    with double_precision():
        xs = jnp.asarray(windows(found.values, lags, every))
        values = jnp.asarray(found.values)

        def course(decay, xs, values):
            rule = updates.recursive_least_squares(decay, prior=prior)
            last = len(xs) - 1

            def body(w_and_state, s):
                targets = values[jnp.minimum(s + horizons, last)]
                w, state = w_and_state
                w, state = rule.update(w, state, xs[s], targets)
                now = xs[jnp.minimum(s + waits, last)]
                return (w, state), jnp.einsum("hp,phc->hc", now, w)

            w = jnp.zeros((xs.shape[1], len(horizons), values.shape[1]))
            start = w, rule.init(w)
            return jax.lax.scan(body, start, jnp.arange(len(xs)))[1]

        runs = jax.vmap(course, in_axes=(None, 0, 0), out_axes=0)
        run = jax.jit(jax.vmap(runs, in_axes=(0, None, None), out_axes=3))
        ys = np.asarray(run(jnp.asarray(decays), xs, values))
    return scored(found, at_targets(ys, horizons + waits))


def at_targets(ys: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Move forecasts for time s + shift, one shift for each horizon, to their time.

    Forecasts for the first times, which were not made, are 0.
    """
    moved = np.zeros_like(ys)
    for j, shift in enumerate(shifts):
        moved[:, shift:, j] = ys[:, :-shift, j]
    return moved


def scored(found: Series, ys: np.ndarray) -> Forecasts:
    """Return forecasts [S, T, H, …, 9] with their squared errors."""
    extra = (1,) * (ys.ndim - 3)
    shape = (*found.values.shape[:2], *extra, COORDINATES)
    errors = (ys - found.values.reshape(shape)) * found.scales.reshape(
        -1, 1, *extra, COORDINATES
    )
    return Forecasts((errors**2).sum(axis=-1), ys)
