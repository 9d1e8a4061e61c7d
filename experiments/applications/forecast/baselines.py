"""Baseline forecasts: the last value, the season's mean, and linear models on lags.

Each baseline forecasts a value and the two ends of a 90 % interval. The forecasts are
[N, H, 3], in units of the series, for N origins and H horizons. An origin is a time
step to forecast from, and a horizon is a number of steps ahead. Each end of the
interval is the value plus a quantile of the baseline's residuals before the test part.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.linear_model import Ridge

from experiments.applications.forecast.series import fill, Prepared, Series

LOW, HIGH = 0.05, 0.95
MOST = 20_000  # largest number of steps that linear models are fitted to
PENALTIES = (1e-3, 1e-1, 1e1, 1e2, 1e3, 1e4, 1e5)  # to try in ridge regression


def forecast(name: str, series: Series, prepared: Prepared) -> np.ndarray:
    """Return the forecasts [N, H, 3] of one baseline, named in :data:`BASELINES`.

    The baseline is fitted to the training and the validation part.
    """
    values = BASELINES[name](series, prepared)
    out = np.repeat(values[..., None], 3, axis=-1)
    for i in range(len(series.horizons)):
        residuals = (prepared.targets - values)[_before(series, i, series.test), i]
        residuals = residuals[np.isfinite(residuals)]
        out[:, i, 1:] += np.quantile(residuals, (LOW, HIGH))
    return out


def _first(series: Series) -> int:
    """Return the first time step of the series that linear models are fitted to."""
    return max(0, series.test - MOST)


def _before(series: Series, i: int, end: int) -> slice:
    """Return the origins that have all lags, and whose i-th target is before `end`.

    An origin is a time step to forecast from; the i-th target is the value at the i-th
    horizon.
    """
    first = _first(series) + series.lags - 1
    return slice(first, max(first + 1, end - series.horizons[i]))


def _reference(series: Series, prepared: Prepared) -> np.ndarray:
    return np.repeat(prepared.reference[:, None], len(series.horizons), axis=1)


def _seasonal(series: Series, prepared: Prepared) -> np.ndarray:
    """Forecast the mean of earlier values that have the target's phase of the season.

    Earlier values are all values before the test part.
    """
    phase, values = series.phase[: series.test], series.values[: series.test]
    known = np.isfinite(values)
    phases = int(series.phase.max()) + 1
    total = np.bincount(phase[known], values[known], minlength=phases)
    count = np.bincount(phase[known], minlength=phases)
    means = np.where(count > 0, total / np.maximum(count, 1), np.mean(values[known]))
    out = np.repeat(means[series.phase][:, None], len(series.horizons), axis=1)
    for i, h in enumerate(series.horizons):
        out[:-h, i] = means[series.phase[h:]]
    return out


def _lagged(series: Series, columns: np.ndarray) -> np.ndarray:
    """Return values of the columns [N, F] and their lags, from :func:`_first` on.

    Each row has the values at one time step and at the steps before it.
    """
    before = np.zeros((series.lags - 1, columns.shape[1]))
    padded = np.concatenate([before, columns[_first(series) :]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, series.lags, axis=0)
    return windows.reshape(len(columns) - _first(series), -1)


def _autoregression(series: Series, prepared: Prepared) -> np.ndarray:
    """Fit least squares on lags of only the series, separately for each horizon."""
    inputs = _lagged(series, fill(series.values)[:, None])
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    out, first = np.full(prepared.targets.shape, np.nan), _first(series)
    for i in range(len(series.horizons)):
        x, y = _known(series, prepared, inputs, i, series.test)
        weights, *_ = np.linalg.lstsq(x, y, rcond=None)
        out[first:, i] = inputs @ weights
    return out


def _ridge(series: Series, prepared: Prepared) -> np.ndarray:
    """Fit ridge regression on lags of all columns; validation chooses the penalty."""
    columns = np.column_stack([series.values, *series.others.T])
    columns = np.column_stack([fill(column) for column in columns.T])
    begin = columns[: series.validation]
    columns = (columns - begin.mean(0)) / np.maximum(begin.std(0), 1e-12)
    inputs, first = _lagged(series, columns), _first(series)
    out = np.full(prepared.targets.shape, np.nan)
    for i, h in enumerate(series.horizons):
        fit = partial(_known, series, prepared, inputs, i)
        held = slice(series.validation - first, series.test - h - first)
        y = prepared.targets[series.validation : series.test - h, i]
        models = [Ridge(each).fit(*fit(series.validation)) for each in PENALTIES]
        errors = [
            np.nanmean((np.asarray(model.predict(inputs[held])) - y) ** 2)
            for model in models
        ]
        best = Ridge(PENALTIES[int(np.argmin(np.array(errors)))])
        best.fit(*fit(series.test))
        out[first:, i] = best.predict(inputs)
    return out


def _known(
    series: Series, prepared: Prepared, inputs: np.ndarray, i: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs and i-th targets of origins whose i-th target is before `end`.

    Origins without a known value or without a known target are left out.
    """
    rows, first = _before(series, i, end), _first(series)
    x = inputs[rows.start - first : rows.stop - first]
    y = prepared.targets[rows, i]
    use = np.isfinite(y) & np.isfinite(series.values[rows])
    return x[use], y[use]


BASELINES: dict[str, Callable[[Series, Prepared], np.ndarray]] = {
    "reference": _reference,  # persistence, or the forecast 0 for returns
    "seasonal": _seasonal,
    "ar": _autoregression,
    "ridge": _ridge,
}
