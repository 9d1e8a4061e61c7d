"""Forecasts to beat: nothing changes, the season's mean, and linear models on lags.

Each says, for every origin and horizon, a value and the ends of an interval, [N, H, 3],
in units of the series. Intervals are quantiles of the residuals that it was fitted to.
"""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import Ridge

from experiments.applications._series import fill, Prepared, Series

LOW, HIGH = 0.05, 0.95
PENALTIES = (1e-3, 1e-1, 1e1, 1e2, 1e3, 1e4, 1e5)  # chosen on the validation part


def forecast(name: str, series: Series, prepared: Prepared) -> np.ndarray:
    """Return forecasts [N, H, 3] of one of :data:`BASELINES`.

    They are fitted to the training and the validation part.
    """
    values = BASELINES[name](series, prepared)
    out = np.repeat(values[..., None], 3, axis=-1)
    for i in range(len(series.horizons)):
        residuals = (prepared.targets - values)[_before(series, i, series.test), i]
        residuals = residuals[np.isfinite(residuals)]
        out[:, i, 1:] += np.quantile(residuals, (LOW, HIGH))
    return out


def _before(series: Series, i: int, end: int) -> slice:
    """Return the origins whose targets are all before a step, and have their lags."""
    return slice(series.lags - 1, max(series.lags, end - series.horizons[i]))


def _reference(series: Series, prepared: Prepared) -> np.ndarray:
    return np.repeat(prepared.reference[:, None], len(series.horizons), axis=1)


def _seasonal(series: Series, prepared: Prepared) -> np.ndarray:
    """Say the mean of the same place in the season, until the test part begins."""
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


def _lagged(columns: np.ndarray, lags: int) -> np.ndarray:
    """Return columns [N, F] and their lags, [N, lags · F]; NaN before the first."""
    padded = np.concatenate([np.full((lags - 1, columns.shape[1]), np.nan), columns])
    windows = np.lib.stride_tricks.sliding_window_view(padded, lags, axis=0)
    return windows.reshape(len(columns), -1)


def _autoregression(series: Series, prepared: Prepared) -> np.ndarray:
    """Fit by least squares on lags of the series itself, for each horizon apart."""
    lagged = _lagged(fill(series.values)[:, None], series.lags)
    inputs = np.column_stack([lagged, np.ones(len(lagged))])
    out = np.empty(prepared.targets.shape)
    for i in range(len(series.horizons)):
        rows = _before(series, i, series.test)
        x, y = inputs[rows], prepared.targets[rows, i]
        use = np.isfinite(y) & np.isfinite(series.values[rows])
        weights, *_ = np.linalg.lstsq(x[use], y[use], rcond=None)
        out[:, i] = np.nan_to_num(inputs) @ weights
    return out


def _ridge(series: Series, prepared: Prepared) -> np.ndarray:
    """Fit on lags of all columns; the penalty is what is best on validation."""
    columns = np.column_stack([series.values, *series.others.T])
    columns = np.column_stack([fill(column) for column in columns.T])
    begin = columns[: series.validation]
    columns = (columns - begin.mean(0)) / np.maximum(begin.std(0), 1e-12)
    inputs = _lagged(columns, series.lags)
    out = np.empty(prepared.targets.shape)
    for i in range(len(series.horizons)):

        def fitted(penalty, end, i=i):
            rows = _before(series, i, end)
            x, y = inputs[rows], prepared.targets[rows, i]
            use = np.isfinite(y)
            model = Ridge(penalty).fit(x[use], y[use])
            return np.asarray(model.predict(np.nan_to_num(inputs)))

        held = slice(series.validation, series.test - series.horizons[i])
        y = prepared.targets[held, i]
        errors = [
            np.nanmean((fitted(penalty, series.validation)[held] - y) ** 2)
            for penalty in PENALTIES
        ]
        out[:, i] = fitted(PENALTIES[int(np.argmin(errors))], series.test)
    return out


BASELINES: dict[str, Callable[[Series, Prepared], np.ndarray]] = {
    "reference": _reference,  # persistence, or zero
    "seasonal": _seasonal,
    "ar": _autoregression,
    "ridge": _ridge,
}
