"""Intervals that are calibrated on the validation part, and adapted in the test part.

    s_t = max(a_t − y_t, y_t − b_t) / e_t
    interval_t = [a_t − q_t e_t, b_t + q_t e_t]
    q_{t+1} = q_t + η (1[s_t > q_t] − α),    e_{t+1} = e_t + λ (|y_t − m_t| − e_t)

At each horizon (number of steps ahead), m is a method's forecast, a and b are the ends
of its own interval, and y is the value that comes. e is the average size of recent
errors, of those that are known when the forecast is made. The score s is positive if y
is outside; its unit is e, so that intervals widen and narrow with recent errors, and a
series may grow by powers of ten. At the start of the test part, q is the
⌈(1 − α)(n + 1)⌉-th smallest of the n scores of the validation part (split conformal
prediction). In the test part, each score moves q as soon as its value y is known: up
after a miss, down after a hit, so that the share of misses tends to α, also if the
series changes. α is 10 %, η is .2, and λ is .05.

References:
  Romano, Patterson & Candès, "Conformalized quantile regression", NeurIPS 2019,
  arXiv:1905.03222.
  Angelopoulos, Candès & Tibshirani, "Conformal PID control for time series prediction",
  NeurIPS 2023, arXiv:2307.16895 (the quantile tracker).
  Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, "Distribution-free predictive inference
  for regression", JASA 2018, arXiv:1604.04173 (scores in units of a local error).
"""

import math

import numpy as np

from experiments.applications.forecast.series import Series

ALPHA = 0.1  # share of values that may be outside the interval
STEP = 0.2  # η, the step of q, in units of the average error
RATE = 0.05  # λ, the rate of the average error
FLOOR = 0.05  # smallest e, as a share of the mean error of the validation part


def calibrated(
    series: Series,
    said: np.ndarray,
    targets: np.ndarray,
    first: int,
    step: float = STEP,
) -> tuple[np.ndarray, np.ndarray]:
    """Return forecasts with calibrated intervals, and q·e [S, O, H] for each interval.

    An interval uses no value after its origin (the step to forecast from). The
    intervals of the validation part use scores of the same part.

    Args:
      series: the series that was forecast.
      said: forecasts [S, O, H, 3] by S networks from O origins: m, a and b.
      targets: values that come, [O, H]; NaN if not known.
      first: the first origin, the last step before the validation part.
      step: η; 0 to keep q constant, in the unit of the series (e is 1).
    """
    m, a, b = np.moveaxis(said, -1, 0)
    scores, errors = np.maximum(a - targets, targets - b), np.abs(targets - m)
    start = series.test - 1 - first  # the first origin of the test part
    offsets = np.zeros(scores.shape)
    for i, ahead in enumerate(series.horizons):
        at = first + np.arange(len(targets)) + ahead
        held = np.isfinite(targets[:, i]) & (at < series.test)
        if held.any():
            given = scores[..., i], errors[..., i], held, ahead, start
            offsets[..., i] = _offsets(*given, step)
    out = said.copy()
    out[..., 1], out[..., 2] = a - offsets, b + offsets
    crossed = out[..., 1] > out[..., 2]
    middle = (out[..., 1] + out[..., 2]) / 2
    out[..., 1] = np.where(crossed, middle, out[..., 1])
    out[..., 2] = np.where(crossed, middle, out[..., 2])
    return out, offsets


def _offsets(
    scores: np.ndarray,
    errors: np.ndarray,
    held: np.ndarray,
    ahead: int,
    start: int,
    step: float,
) -> np.ndarray:
    """Return q·e at each origin for one horizon, [S, O].

    Args:
      scores: s·e, [S, O]; NaN if the value that comes is not known.
      errors: |y − m|, [S, O].
      held: [O] bool, the origins that calibrate q.
      ahead: the horizon.
      start: the origin from which on q is adapted.
      step: η.
    """
    size = np.ones(scores.shape)
    if step:
        size = _recent(errors, errors[:, held].mean(axis=1), ahead)
    scores = scores / size
    q = _quantile(scores[:, held])
    found = q[:, None] * size
    for t in range(start + 1, scores.shape[1]):
        past = t - ahead  # the origin whose value has just become known
        if past >= start:
            missed = scores[:, past] * size[:, past] > found[:, past]
            known = np.isfinite(scores[:, past])
            q = q + np.where(known, step * (missed - ALPHA), 0)
        found[:, t] = q * size[:, t]
    return found


def _recent(errors: np.ndarray, begin: np.ndarray, ahead: int) -> np.ndarray:
    """Return e at each origin, [S, O]: the average size of errors known by then.

    At least a share `FLOOR` of the first average is returned, so that intervals do not
    vanish if a series stands still for some time.
    """
    begin = np.where(begin > 0, begin, 1.0)  # 0 if all forecasts were right
    sizes, size = np.empty(errors.shape), begin
    for t in range(errors.shape[1]):
        if t >= ahead:
            error = errors[:, t - ahead]
            size = size + np.where(np.isfinite(error), RATE * (error - size), 0)
        sizes[:, t] = size
    return np.maximum(sizes, FLOOR * begin[:, None])


def _quantile(scores: np.ndarray) -> np.ndarray:
    """Return the ⌈(1 − α)(n + 1)⌉-th smallest of n scores [S, n], or the largest."""
    n = scores.shape[1]
    rank = min(n, math.ceil((1 - ALPHA) * (n + 1)))
    return np.partition(scores, rank - 1, axis=1)[:, rank - 1]
