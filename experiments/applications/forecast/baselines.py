"""Baseline forecasts: past values, the season's mean, and linear models on lags.

Each baseline forecasts a value and the two ends of a 90 % interval. The forecasts are
[N, H, 3], in units of the series, for N origins and H horizons. An origin is a time
step to forecast from, and a horizon is a number of steps ahead. Each end of the
interval is the value plus a quantile of the baseline's residuals in the steps that it
is fitted to.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from experiments.applications.forecast import linear
from experiments.applications.forecast.series import fill, Prepared, Series

LOW, HIGH = 0.05, 0.95


class Fitted(NamedTuple):
    """A fitted baseline; `arrays` are its parameters, by name."""

    name: str
    arrays: dict[str, np.ndarray]


def fit(
    name: str, series: Series, prepared: Prepared, end: int, settings: Any = None
) -> Fitted:
    """Fit a baseline, named in :data:`BASELINES`, to the targets before step `end`.

    Args:
      name: name of the baseline.
      series: the series.
      prepared: arrays of the series.
      end: first time step that must not be used.
      settings: result of :func:`choose`; None to choose them here.
    """
    settings = choose(name, series, prepared) if settings is None else settings
    arrays = BASELINES[name][0](series, prepared, end, settings)
    values = BASELINES[name][1](arrays, series, prepared)
    ends = []
    for i in range(len(series.horizons)):
        residuals = (prepared.targets - values)[linear.before(series, i, end), i]
        residuals = residuals[np.isfinite(residuals)]
        ends.append(np.quantile(residuals, (LOW, HIGH)) if len(residuals) else (0, 0))
    return Fitted(name, arrays | {"ends": np.array(ends, float)})


def choose(name: str, series: Series, prepared: Prepared) -> Any:
    """Return the settings of a baseline with the lowest validation error, if any."""
    return linear.penalties(series, prepared) if name == "ridge" else ()


def apply(fitted: Fitted, series: Series, prepared: Prepared) -> np.ndarray:
    """Return the forecasts [N, H, 3] of a fitted baseline from all N time steps."""
    values = BASELINES[fitted.name][1](fitted.arrays, series, prepared)
    out = np.repeat(values[..., None], 3, axis=-1)
    out[..., 1:] += fitted.arrays["ends"]
    return out


def forecast(
    name: str, series: Series, prepared: Prepared, end: int | None = None
) -> np.ndarray:
    """Return the forecasts [N, H, 3] of a baseline, fitted to targets before `end`.

    By default, the baseline is fitted to the training and the validation part.
    """
    end = series.test if end is None else end
    return apply(fit(name, series, prepared, end), series, prepared)


def walk(name: str, series: Series, prepared: Prepared) -> tuple[np.ndarray, Fitted]:
    """Return forecasts [O, H, 3] from the last step before the validation part on.

    Forecasts of the validation part are by a fit to the training part, forecasts of the
    test part by a fit to all steps before it. The forecasts from the last step are by a
    fit to the whole series, which is the second result.
    """
    settings = choose(name, series, prepared)
    rows, first = len(series.values), series.validation - 1
    borders = [first, series.test - 1, rows - 1, rows]
    parts, fitted = [], None
    for begin, stop in pairwise(borders):
        fitted = fit(name, series, prepared, begin + 1, settings)
        parts.append(apply(fitted, series, prepared)[begin:stop])
    assert fitted is not None
    return np.concatenate(parts), fitted


def _nothing(series: Series, prepared: Prepared, end: int, settings: Any) -> dict:
    return {}


def _reference(arrays: dict, series: Series, prepared: Prepared) -> np.ndarray:
    return np.repeat(prepared.reference[:, None], len(series.horizons), axis=1)


def _last_season(arrays: dict, series: Series, prepared: Prepared) -> np.ndarray:
    """Forecast the value one season before the target, or several seasons before it.

    This is the last known value at the phase of the target. In the first season, the
    forecast is the last value.
    """
    steps, period = np.arange(len(series.values)), series.period
    values = fill(series.values)
    out = np.empty((len(steps), len(series.horizons)))
    for i, h in enumerate(series.horizons):
        at = steps + h - period * -(-h // period)
        out[:, i] = values[np.where(at < 0, steps, at)]
    return out


def _fit_seasonal(series: Series, prepared: Prepared, end: int, settings: Any) -> dict:
    """Return the mean of earlier values at each phase of the season."""
    phase, values = series.phase[:end], series.values[:end]
    known, phases = np.isfinite(values), int(series.phase.max()) + 1
    total = np.bincount(phase[known], values[known], minlength=phases)
    count = np.bincount(phase[known], minlength=phases)
    means = np.where(count > 0, total / np.maximum(count, 1), np.mean(values[known]))
    return {"means": means}


def _seasonal(arrays: dict, series: Series, prepared: Prepared) -> np.ndarray:
    means = arrays["means"]
    out = np.repeat(means[series.phase][:, None], len(series.horizons), axis=1)
    for i, h in enumerate(series.horizons):
        if series.period:
            out[:, i] = means[(series.phase + h) % series.period]
        else:  # the phases after the end are not known
            out[:-h, i] = means[series.phase[h:]]
    return out


def _fit_ar(series: Series, prepared: Prepared, end: int, settings: Any) -> dict:
    return linear.autoregression(series, prepared, end)._asdict()


def _fit_ridge(series: Series, prepared: Prepared, end: int, settings: Any) -> dict:
    return linear.ridge(series, prepared, end, settings)._asdict()


def _linear(arrays: dict, series: Series, prepared: Prepared) -> np.ndarray:
    fields = {name: arrays[name] for name in linear.Linear._fields}
    return linear.forecasts(linear.Linear(**fields), series)


# The baselines, from the simplest to the least simple: {name: (fit, apply)}.
BASELINES: dict[str, tuple[Callable[..., dict], Callable[..., np.ndarray]]] = {
    "reference": (_nothing, _reference),  # persistence, or the forecast 0 for returns
    "last_season": (_nothing, _last_season),
    "seasonal": (_fit_seasonal, _seasonal),
    "ar": (_fit_ar, _linear),
    "ridge": (_fit_ridge, _linear),
}
SEASONAL = {"last_season", "seasonal"}  # for series with a season


def names(series: Series) -> list[str]:
    """Return the names of the baselines that a series can have."""
    has_phase, has_period = series.phase.min() >= 0, series.period > 0
    possible = {"seasonal": has_phase, "last_season": has_period}
    return [name for name in BASELINES if possible.get(name, True)]
