"""Bootstrap over sequences: intervals of mean errors, and paired comparisons."""

from collections.abc import Sequence

import numpy as np

SAMPLES = 10_000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over sequences.

    With one sequence, both ends are its value.

    Example:
      >>> interval([1.0, 1.0, 1.0])
      (1.0, 1.0)
    """
    low, high = np.percentile(_means(values), [2.5, 97.5])
    return float(low), float(high)


def p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean difference of 0, by paired bootstrap.

    Sequences are drawn with replacement. p is twice the share of drawn means that have
    not the sign of the mean, at least 1/10,001.

    Example:
      >>> p_value([-0.1, -0.2, -0.3]) < 0.001, p_value([-0.1, 0.2, -0.1, 0.1]) > 0.5
      (True, True)
    """
    means = _means(differences)
    share = min(np.sum(means <= 0), np.sum(means >= 0))
    return float(min(1.0, (2 * share + 1) / (SAMPLES + 1)))


def _means(values: Sequence[float]) -> np.ndarray:
    """Return the means of samples drawn with replacement, always the same samples."""
    drawn = np.random.default_rng(0).integers(len(values), size=(SAMPLES, len(values)))
    return np.asarray(values, float)[drawn].mean(axis=1)
