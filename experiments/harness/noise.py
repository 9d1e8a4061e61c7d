"""Statistics of times that were measured in rounds, and that differ by noise.

In each round, all implementations are timed one after another, so that a change of the
machine's load affects all of them. The times of a round therefore belong together.
"""

import statistics
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


def spread(values: Sequence[float]) -> float:
    """Return half the interquartile range of values, relative to their median."""
    low, median, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / median


def ratio_interval(
    times: Sequence[float], reference: Sequence[float]
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of median(times) / median(reference).

    Rounds are drawn with replacement. The two times of a round are drawn together,
    because noise of a round affects both. The interval is (NaN, NaN) if the numbers of
    rounds differ.

    Args:
      times: a time of each round.
      reference: the times of another implementation in the same rounds.

    Example:
      >>> ratio_interval([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
      (2.0, 2.0)
    """
    if len(times) != len(reference):
        return float("nan"), float("nan")
    pairs = np.array([times, reference])
    rounds = pairs.shape[1]
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    above, below = np.median(pairs[:, drawn], axis=2)
    ends = np.quantile(above / below, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(ends[0]), float(ends[1])


def check_agreement(
    results: dict[str, np.ndarray | float], within: float, what: str = "results"
) -> None:
    """Check that all results equal the first, before their computations are timed.

    Args:
      results: {name of an implementation: its result}.
      within: largest norm of a difference, relative to the norm of the first result.
      what: what the results are, for the error message.

    Raises:
      ValueError: if a result differs more, or has another shape.
    """
    (first, wanted), *others = results.items()
    wanted = np.asarray(wanted, float)
    size = max(float(np.linalg.norm(wanted)), np.finfo(float).tiny)
    for name, got in others:
        got = np.asarray(got, float)
        if got.shape != wanted.shape:
            raise ValueError(
                f"{what} of {name} have shape {got.shape}, those of {first} "
                f"{wanted.shape}: they do not compute the same, and are not timed."
            )
        off = float(np.linalg.norm(got - wanted)) / size
        if not off <= within:
            raise ValueError(
                f"{what} of {name} differ from those of {first} by {off:.1e}, which is "
                f"more than {within:.0e}: they do not compute the same, and are not "
                "timed."
            )
