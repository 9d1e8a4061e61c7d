"""Linear models on lags: least squares on the series, and ridge regression on all.

    y_{t+h} ≈ b_h + Σ_k w_{h,k} · x_{t−k},    k = 0 … lags − 1

Here y is the series, h the horizon (number of steps ahead), x the columns that the
model reads, standardised for ridge regression, and w and b the weights of the horizon.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import Ridge

from experiments.applications.forecast.series import fill, Prepared, Series

MOST = 20_000  # largest number of steps that linear models are fitted to
PENALTIES = (1e-3, 1e-1, 1e1, 1e2, 1e3, 1e4, 1e5)  # to try for ridge regression


class Linear(NamedTuple):
    """A fitted linear model of F columns, for H horizons."""

    weights: np.ndarray  # [H, F · lags]
    bias: np.ndarray  # [H]
    mean: np.ndarray  # [F], means of the columns
    scale: np.ndarray  # [F], standard deviations of the columns


def autoregression(series: Series, prepared: Prepared, end: int) -> Linear:
    """Fit least squares on lags of only the series, separately for each horizon."""
    plain = Linear(np.zeros(0), np.zeros(0), np.zeros(1), np.ones(1))
    inputs, weights = _inputs(series, plain), []
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    for i in range(len(series.horizons)):
        x, y = _known(series, prepared, inputs, i, end)
        weights.append(np.linalg.lstsq(x, y, rcond=None)[0])
    found = np.array(weights)
    return plain._replace(weights=found[:, :-1], bias=found[:, -1])


def penalties(series: Series, prepared: Prepared) -> list[float]:
    """Return the penalty with the lowest validation error for each horizon."""
    scaled = _scaling(series)
    inputs, first = _inputs(series, scaled), _first(series)
    best = []
    for i, h in enumerate(series.horizons):
        x, y = _known(series, prepared, inputs, i, series.validation)
        held = slice(series.validation - first, series.test - h - first)
        wanted = prepared.targets[series.validation : series.test - h, i]
        errors = [
            _error(np.asarray(Ridge(each).fit(x, y).predict(inputs[held])), wanted)
            for each in PENALTIES
        ]
        best.append(PENALTIES[int(np.argmin(errors))])
    return best


def ridge(
    series: Series, prepared: Prepared, end: int, chosen: Sequence[float]
) -> Linear:
    """Fit ridge regression on lags of all columns, with a penalty for each horizon."""
    scaled = _scaling(series)
    inputs, weights, bias = _inputs(series, scaled), [], []
    for i, penalty in enumerate(chosen):
        model = Ridge(penalty).fit(*_known(series, prepared, inputs, i, end))
        weights.append(np.asarray(model.coef_))
        bias.append(float(np.asarray(model.intercept_)))
    return scaled._replace(weights=np.array(weights), bias=np.array(bias))


def forecasts(model: Linear, series: Series) -> np.ndarray:
    """Return the forecasts [N, H] from all time steps; NaN before the first fit."""
    out = np.full((len(series.values), len(series.horizons)), np.nan)
    out[_first(series) :] = _inputs(series, model) @ model.weights.T + model.bias
    return out


def before(series: Series, i: int, end: int) -> slice:
    """Return the time steps that have all lags, and whose i-th target is before `end`.

    The i-th target of a time step is the value at the i-th horizon.
    """
    first = _first(series) + series.lags - 1
    return slice(first, max(first + 1, end - series.horizons[i]))


def _first(series: Series) -> int:
    """Return the first time step of the series that linear models are fitted to."""
    return max(0, series.test - MOST)


def _error(said: np.ndarray, wanted: np.ndarray) -> float:
    known = np.isfinite(wanted)
    return float(np.mean((said - wanted)[known] ** 2)) if known.any() else 0.0


def _scaling(series: Series) -> Linear:
    """Return a model without weights, with the scales of all columns before the test.

    The scales are those of the training part.
    """
    columns = _columns(series)[: series.validation]
    scale = np.maximum(columns.std(0), 1e-12)
    return Linear(np.zeros(0), np.zeros(0), columns.mean(0), scale)


def _columns(series: Series) -> np.ndarray:
    columns = np.column_stack([series.values, *series.others.T])
    return np.column_stack([fill(column) for column in columns.T])


def _inputs(series: Series, model: Linear) -> np.ndarray:
    """Return standardised columns and their lags, from the step `_first` on.

    Each row has the values at one time step and at the steps before it.
    """
    columns = _columns(series)[_first(series) :, : len(model.mean)]
    columns = (columns - model.mean) / model.scale
    padded = np.concatenate([np.zeros((series.lags - 1, columns.shape[1])), columns])
    windows = np.lib.stride_tricks.sliding_window_view(padded, series.lags, axis=0)
    return windows.reshape(len(columns), -1)


def _known(
    series: Series, prepared: Prepared, inputs: np.ndarray, i: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and i-th targets of time steps whose i-th target is before `end`.

    Time steps without a known value or without a known target are left out.
    """
    rows, first = before(series, i, end), _first(series)
    x = inputs[rows.start - first : rows.stop - first]
    y = prepared.targets[rows, i]
    use = np.isfinite(y) & np.isfinite(series.values[rows])
    return x[use], y[use]
