"""Scores of forecasts: errors, coverage of intervals, and tests against a reference."""

from typing import Any

import numpy as np

from experiments.applications.forecast.baselines import HIGH, LOW
from experiments.applications.forecast.calibrate import calibrated, STEP
from experiments.applications.forecast.diebold_mariano import diebold_mariano
from experiments.applications.forecast.series import Prepared, Series

SHOWN = 150  # number of steps, at the end of the series, whose forecasts are drawn
ALL = "all"
PARTS = ("validation", "test")  # parts of the series that are forecast


def in_units(prepared: Prepared, said: np.ndarray, first: int) -> np.ndarray:
    """Convert networks' outputs to units of the series; put interval ends in order.

    Args:
      prepared: arrays of the series.
      said: outputs of the networks, [seeds, origins, H, 3]; they forecast the scaled
        target z.
      first: the first origin (an origin is a time step to forecast from).
    """
    reference = prepared.reference[first : first + said.shape[1], None, None]
    out = reference + prepared.scale[:, None] * said.astype(float)
    out[..., 1:] = np.sort(out[..., 1:], axis=-1)
    return out


def score(
    series: Series,
    prepared: Prepared,
    said: np.ndarray,
    first: int,
    step: float = STEP,
) -> dict[str, Any]:
    """Return the scores of forecasts of the validation part and the test part.

    Args:
      series: the series that was forecast.
      prepared: arrays of the series.
      said: forecasts [seeds, origins, H, 3], in units of the series, with the intervals
        of the method itself.
      first: the first origin (time step to forecast from): the last step before the
        validation part.
      step: size of the steps that adapt intervals in the test part; 0 for intervals
        that are only calibrated on the validation part.

    Returns:
      A dictionary of scores. For each period of the test part and each horizon, four
      scores are lists with one value per seed: rmse; coverage, the percentage of values
      within the calibrated interval; quantile_loss, the mean quantile loss of its two
      ends; and raw_coverage, the percentage within the method's own interval. The entry
      "validation_rmse" is the error on the validation part over all horizons, and
      "test_rmse" the same on the test part. For prices, the entry "skill" holds Diebold
      and Mariano's test against the reference forecast at each horizon. The entry
      "shown" holds forecasts to draw.
    """
    targets, own = prepared.targets[first:], said
    origins = np.arange(first, len(series.values))
    said, _ = calibrated(series, said, targets, first, step)
    periods = dict(series.periods)
    if len(periods) > 1:
        periods[ALL] = (series.test, len(series.values))
    measures = ("rmse", "coverage", "quantile_loss", "raw_coverage")
    row: dict[str, Any] = {
        measure: {period: {} for period in periods} for measure in measures
    }
    for period, (begin, end) in periods.items():
        for i, h in enumerate(series.horizons):
            at = origins + h
            use = (at >= begin) & (at < end) & np.isfinite(targets[:, i])
            use &= origins >= series.test - 1
            if not use.any():
                continue
            y, m = targets[use, i], said[:, use, i]
            ends = _pinball(LOW, y - m[..., 1]) + _pinball(HIGH, y - m[..., 2])
            row["rmse"][period][str(h)] = _mean((y - m[..., 0]) ** 2, 0.5)
            row["coverage"][period][str(h)] = _mean(100 * _inside(y, m))
            row["quantile_loss"][period][str(h)] = _mean(ends / 2)
            inside = _inside(y, own[:, use, i])
            row["raw_coverage"][period][str(h)] = _mean(100 * inside)
    for part in PARTS:
        squares = squared_errors(series, prepared, said, first, part)
        row[f"{part}_rmse"] = np.sqrt(np.nanmean(squares, axis=(1, 2))).tolist()
    if series.price:
        tested = series.test - 1 - first
        row["skill"] = _skill(series, prepared, said[:, tested:], series.test - 1)
    row["shown"] = _shown(series, said[:, series.test - 1 - first :])
    return row


def squared_errors(
    series: Series, prepared: Prepared, said: np.ndarray, first: int, part: str
) -> np.ndarray:
    """Return squared errors [seeds, O, H] of the forecasts of one of :data:`PARTS`.

    The O origins are the last step before the part, and the steps of the part. Where
    the target is not in the part, or not known, the squared error is NaN.
    """
    begin, end = {
        "validation": (series.validation, series.test),
        "test": (series.test, len(series.values)),
    }[part]
    rows = slice(begin - 1 - first, end - first)
    targets = prepared.targets[first:][rows]
    at = np.arange(begin - 1, end)[:, None] + np.array(series.horizons)
    targets = np.where(at < end, targets, np.nan)
    return (said[:, rows, :, 0] - targets) ** 2


def _inside(y: np.ndarray, said: np.ndarray) -> np.ndarray:
    return (said[..., 1] <= y) & (y <= said[..., 2])


def _pinball(q: float, errors: np.ndarray) -> np.ndarray:
    return np.maximum(q * errors, (q - 1) * errors)


def _mean(values: np.ndarray, power: float = 1.0) -> list[float]:
    return (values.mean(axis=1, dtype=float) ** power).tolist()


def _skill(series, prepared, said, first) -> dict[str, dict[str, float]]:
    """Test whether the forecasts' squared errors differ from the reference forecast's.

    Squared errors are means over seeds.
    """
    found = {}
    for i, h in enumerate(series.horizons):
        y = prepared.targets[first:, i]
        use = np.isfinite(y)
        theirs = (y - prepared.reference[first:])[use] ** 2
        ours = np.mean((y - said[..., i, 0])[:, use] ** 2, axis=0)
        gain = 100 * (1 - np.sqrt(ours.mean() / theirs.mean()))
        test = diebold_mariano(theirs - ours, h)
        found[str(h)] = {"gain": float(gain), **test._asdict()}
    return found


def _shown(series: Series, said: np.ndarray) -> dict[str, Any]:
    """Return the forecasts of the last steps at two horizons, averaged over seeds.

    The two horizons are the first and the last horizon of the series.
    """
    middle, length = said.mean(axis=0), said.shape[1]
    rows = len(series.values)
    found = {}
    for h in dict.fromkeys((series.horizons[0], series.horizons[-1])):
        count = min(SHOWN, length - h)
        part = middle[length - h - count : length - h, series.horizons.index(h)]
        found[str(h)] = {"from": rows - count, "said": part.round(6).tolist()}
    return found
