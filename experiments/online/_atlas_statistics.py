"""Statistics of the study `atlas`: intervals, regrets, and paired tests over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments import report

LEVEL = 0.05
WORST = 2.0  # losses above this multiple of the trivial loss, or NaN, count as it
RESAMPLES = 2000


class Verdict(NamedTuple):
    """The rules of one task and cell, compared with the best of them."""

    best: str  # rule with the lowest mean loss
    equal: list[str]  # rules whose losses do not differ from the best one's
    p_values: dict[str, float]  # of all other rules, corrected by Holm's method
    regrets: dict[str, float]
    learned: bool  # whether the best rule's interval is below the trivial loss


def capped(losses: Sequence[float | None], trivial: float) -> np.ndarray:
    """Return losses with NaN (None), and all that are too large, set to the cap.

    Example:
      >>> capped([0.1, None, 9.0], 0.5).tolist()
      [0.1, 1.0, 1.0]
    """
    cap = WORST * trivial
    given = np.array([cap if loss is None else loss for loss in losses], float)
    return np.minimum(np.where(np.isnan(given), cap, given), cap)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean with its 95 % bootstrap interval: (low, mean, high).

    Example:
      >>> interval([2.0, 2.0, 2.0])
      (2.0, 2.0, 2.0)
    """
    given = np.asarray(values, float)
    found = stats.bootstrap(
        (given,), np.mean, n_resamples=RESAMPLES, confidence_level=1 - LEVEL,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(given.mean()), float(found.high)


def regret(loss: float, best: float, trivial: float) -> float:
    """Return (loss − best) / (trivial − best), at most 1.

    0 is the best rule's loss, and 1 the trivial predictor's or a higher loss.

    Example:
      >>> regret(0.3, best=0.1, trivial=0.5), regret(7.0, best=0.1, trivial=0.5)
      (0.5, 1.0)
    """
    gain = trivial - best
    return min((loss - best) / gain, 1.0) if gain > 0 else 0.0


def paired_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the p value of equal means of pairs, by all changes of sign.

    Under the hypothesis, the difference of each pair may as well have the other sign.
    The p value is the part of all 2ⁿ choices of signs for which the mean difference is
    at least as far from 0 as the measured one.

    Example:
      >>> paired_p([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
      0.25
    """
    d = np.asarray(a, float) - np.asarray(b, float)
    count = len(d)
    if count > 16:
        random = np.random.default_rng(0)
        signs = random.choice([-1.0, 1.0], size=(2**16, count))
    else:
        bits = np.arange(2**count)[:, None] >> np.arange(count)
        signs = 1.0 - 2.0 * (bits & 1)
    sums = np.abs(signs @ d)
    return float(np.mean(sums >= np.abs(d.sum()) * (1 - 1e-9)))


def compare(losses: Mapping[str, Sequence[float | None]], trivial: float) -> Verdict:
    """Compare the test losses of rules, whose seeds are paired, with the best rule's.

    The p values are corrected for the number of rules that are compared.
    """
    given = {rule: capped(each, trivial) for rule, each in losses.items()}
    means = {rule: float(each.mean()) for rule, each in given.items()}
    best = min(means, key=lambda rule: means[rule])
    others = [rule for rule in given if rule != best]
    listed = {rule: each.tolist() for rule, each in given.items()}
    raw = [paired_p(listed[rule], listed[best]) for rule in others]
    p_values = dict(zip(others, report.holm(raw), strict=True)) if others else {}
    return Verdict(
        best,
        [rule for rule in others if p_values[rule] >= LEVEL],
        p_values,
        {rule: regret(mean, means[best], trivial) for rule, mean in means.items()},
        interval(listed[best])[2] < trivial,
    )
