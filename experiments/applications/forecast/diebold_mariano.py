"""Diebold and Mariano's test: is one forecast more accurate than another?

    d_t = e²_t − e′²_t,    V = (γ_0 + 2 Σ_{k < h} γ_k) / n,    S = c d̄ / √V
    c² = (n + 1 − 2h + h (h − 1) / n) / n

Here d_t is the difference between the squared errors e²_t and e′²_t of the two
forecasts, and d̄ is the mean of the n differences. The autocovariance of d at lag k is
γ_k, and the variance of d̄ is V. Forecasts h steps ahead overlap, so their errors are
correlated up to lag h − 1. The factor c is Harvey, Leybourne and Newbold's correction
for small n. The p value is computed from the statistic S by Student's t distribution
with n − 1 degrees of freedom.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05
LEAST = 1e-4  # smaller p values are shown as "< 0.0001"


class Comparison(NamedTuple):
    """Result of the test; the statistic is positive if the reference is worse."""

    statistic: float
    p: float  # p value of the two-sided test


def diebold_mariano(differences: np.ndarray, horizon: int) -> Comparison:
    """Test the hypothesis that the two forecasts have the same mean loss.

    The estimated variance V can be zero or negative. In this case, the autocovariances
    γ_k are weighted by 1 − k / h (Bartlett's weights). The weighted V is positive
    unless all differences are equal.

    Args:
      differences: [n], in order of time: loss of the reference forecast minus loss of
        the other forecast.
      horizon: h; both forecasts are h steps ahead.

    Raises:
      ValueError: if there are too few differences for the horizon, or if a difference
        is not finite.

    Example:
      >>> test = diebold_mariano(np.array([1.0, 2.0, 3.0, 4.0]), 1)
      >>> round(test.statistic, 4), round(test.p, 4)
      (3.873, 0.0305)

    References:
      Diebold & Mariano, "Comparing predictive accuracy", Journal of Business & Economic
      Statistics 13(3), 1995, doi:10.1080/07350015.1995.10524599.
      Harvey, Leybourne & Newbold, "Testing the equality of prediction mean squared
      errors", International Journal of Forecasting 13(2), 1997,
      doi:10.1016/S0169-2070(96)00719-4.
    """
    d, h = np.asarray(differences, float), horizon
    n = len(d)
    correction = (n + 1 - 2 * h + h * (h - 1) / max(n, 1)) / max(n, 1)
    if h < 1 or n <= 2 * h or correction <= 0:
        raise ValueError(
            f"differences must be more than 2 · horizon, at least 3; got {n} of them "
            f"and a horizon of {h}."
        )
    if not np.all(np.isfinite(d)):
        raise ValueError("differences must be finite; leave out missing values.")
    plain, weighted = _long_run_variances(d, h)
    total = plain if plain > 0 else weighted
    if total <= 0:  # all differences are equal
        same = d.mean() == 0
        return Comparison(0.0 if same else np.sign(d.mean()) * np.inf, float(same))
    statistic = np.sqrt(correction) * d.mean() / np.sqrt(total / n)
    return Comparison(float(statistic), float(2 * stats.t.sf(abs(statistic), n - 1)))


def paired_interval(differences: np.ndarray, horizon: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean difference, d̄ ± t √V / c.

    Here t is the quantile of Student's distribution. V is the larger of the two
    estimates of :func:`diebold_mariano`, because with few differences either can be
    much too small. Outside the interval, the test also finds a difference. Too few
    differences for the horizon give an infinite interval.

    Args:
      differences: [n], in order of time; as for :func:`diebold_mariano`.
      horizon: h; differences are correlated up to lag h − 1.

    Example:
      >>> low, high = paired_interval(np.array([1.0, 2.0, 3.0, 4.0]), 1)
      >>> round(low, 3), round(high, 3)
      (0.446, 4.554)
    """
    d, n = np.asarray(differences, float), len(differences)
    h = horizon
    if n <= max(2 * h, 2):
        return -np.inf, np.inf
    correction = (n + 1 - 2 * h + h * (h - 1) / n) / n
    variance = max(_long_run_variances(d, h))
    half = stats.t.ppf(1 - LEVEL / 2, n - 1) * np.sqrt(variance / n / correction)
    return float(d.mean() - half), float(d.mean() + half)


def _long_run_variances(d: np.ndarray, h: int) -> tuple[float, float]:
    """Return γ_0 + 2 Σ γ_k, and the same sum with Bartlett's weights."""
    off, n = d - d.mean(), len(d)
    lags = np.array([off[k:] @ off[: n - k] for k in range(h)]) / n
    plain = lags[0] + 2 * lags[1:].sum()
    return float(plain), float(lags[0] + 2 * lags[1:] @ (1 - np.arange(1, h) / h))


def verdict(gain: float, p: float, reference: str) -> str:
    """Describe the result of a test in words.

    Args:
      gain: percentage by which the error is below the reference forecast's error.
      p: p value, corrected for the number of tests.
      reference: name of the reference forecast.

    Example:
      >>> verdict(0.4, 0.31, "the zero forecast")
      'no skill shown: 0.4 % less error than the zero forecast, p = 0.31'
    """
    much = f"{abs(gain):.1f} % {'less' if gain > 0 else 'more'} error than {reference}"
    chance = f"p = {p:.2g}" if p >= LEAST else f"p < {LEAST:g}"
    if p >= LEVEL:
        return f"no skill shown: {much}, {chance}"
    return f"{'better' if gain > 0 else 'worse, no skill'}: {much}, {chance}"
