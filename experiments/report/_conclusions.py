"""Sentences that compare scores of several seeds by confidence intervals."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.report._figures import number

LEVEL = 0.95  # confidence level of all intervals


class Interval(NamedTuple):
    """A confidence interval of a mean over seeds."""

    low: float
    mean: float
    high: float

    def overlaps(self, other: "Interval") -> bool:
        """Return whether two intervals have a number in common."""
        return self.low <= other.high and other.low <= self.high


def interval(values: Sequence[float]) -> Interval:
    """Return the 95 % confidence interval of a mean, by Student's t distribution.

    With one value, the interval is all numbers. With a value that is not finite, all
    three numbers are NaN.

    Example:
      >>> [round(end, 2) for end in interval([91.0, 92.0, 93.0])]
      [89.52, 92.0, 94.48]
    """
    from scipy.stats import t

    given = np.asarray(values, float)
    if not np.isfinite(given).all():
        return Interval(math.nan, math.nan, math.nan)
    mean = float(given.mean())
    if given.size < 2:
        return Interval(-math.inf, mean, math.inf)
    error = float(given.std(ddof=1)) / math.sqrt(given.size)
    half = error * float(t.ppf((1 + LEVEL) / 2, given.size - 1))
    return Interval(mean - half, mean, mean + half)


def best_of(
    scores: Mapping[str, Sequence[float]], *, higher_is_better: bool
) -> tuple[list[str], list[str], list[str]]:
    """Divide names into the best with its equals, those that are worse, and NaNs.

    The first list begins with the name that has the best mean score. The other names of
    the list have intervals that overlap with its interval.

    Example:
      >>> scores = {"a": [9.0, 9.1], "b": [8.0, 9.9], "c": [1.0, 1.1], "d": [np.nan]}
      >>> best_of(scores, higher_is_better=True)
      (['a', 'b'], ['c'], ['d'])
    """
    found = {name: interval(values) for name, values in scores.items()}
    failed = [name for name, each in found.items() if math.isnan(each.mean)]
    sign = -1 if higher_is_better else 1
    ranked = sorted(
        (name for name in found if name not in failed),
        key=lambda name: sign * found[name].mean,
    )
    if not ranked:
        return [], [], failed
    equal = [name for name in ranked if found[name].overlaps(found[ranked[0]])]
    return equal, [name for name in ranked if name not in equal], failed


def verdict(
    measure: str,
    scores: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    unit: str = "",
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """Say which scores are best, and which of them do not differ.

    Two scores do not differ if the 95 % confidence intervals of their means over seeds
    overlap.

    Args:
      measure: name of the score, such as "test accuracy".
      scores: {name: score of each seed}.
      higher_is_better: whether higher scores are better.
      unit: unit of the score, such as " %".
      limits: lowest and highest possible score, at which intervals are cut.

    Example:
      >>> verdict("accuracy", {"a": [90, 93], "b": [91, 95]}, higher_is_better=True)
      'No difference in accuracy: the 95 % intervals of b and a overlap.'
      >>> scores = {"a": [90.1, 90.2], "b": [71, 72]}
      >>> said = verdict("accuracy", scores, higher_is_better=True, unit=" %")
      >>> said.split(". ", 1)[1]
      'Lower: b (71.5 %).'
    """
    if min(map(len, scores.values()), default=0) < 2:
        return (
            f"One seed: no statement about differences in {measure}; give --seeds 3 or "
            "more."
        )
    best, worse, failed = best_of(scores, higher_is_better=higher_is_better)
    mean = lambda name: f"{name} ({_short(interval(scores[name]).mean)}{unit})"
    said = []
    if len(best) > 1 and not worse:
        names = listed(best) if len(best) < 6 else f"all {len(best)}"
        overlap = f"the 95 % intervals of {names} overlap"
        said.append(f"No difference in {measure}: {overlap}.")
    elif best:
        found = interval(scores[best[0]])
        low, high = max(found.low, limits[0]), min(found.high, limits[1])
        extent = f"interval {_short(low)} to {_short(high)}{unit}"
        extent = "with every seed" if low == high else extent
        order = "Highest" if higher_is_better else "Lowest"
        text = f"{order} {measure}: {best[0]} ({_short(found.mean)}{unit}, {extent})"
        if len(best) > 1:
            others = f"{len(best) - 1} of the {len(scores) - 1} others"
            others = listed(best[1:]) if len(best) < 5 else others
            text += f"; no difference from {others}, as 95 % intervals overlap"
        said.append(f"{text}.")
    if worse:
        order = "Lower" if higher_is_better else "Higher"
        names = listed([mean(name) for name in worse])
        if len(worse) > 4:
            names = (
                f"the other {len(worse)}, from {mean(worse[0])} to {mean(worse[-1])}"
            )
        said.append(f"{order}: {names}.")
    if failed:
        said.append(f"Not finite: {listed(failed)}.")
    return " ".join(said)


def against(
    reference: str,
    value: float | Mapping[str, float | Sequence[float]],
    scores: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    unit: str = "",
) -> str:
    """Say which scores are better than a baseline or a published score, and which not.

    A score does not differ from the reference if the 95 % confidence interval of the
    mean difference over seeds contains 0. Scores with one seed, and scores that are not
    finite, are left out; if none is left, the text is empty.

    Args:
      reference: name of the baseline.
      value: score of the baseline; or {name: score to compare this name with}, where a
        list of scores has one score for each seed, and differences are paired by seed.
      scores: {name: score of each seed}.
      higher_is_better: whether higher scores are better.
      unit: unit of the score, such as " %".

    Example:
      >>> against("guessing", 50, {"a": [90, 91], "b": [1, 99]}, higher_is_better=True)
      'Better than guessing (50): a (by 34.1 to 46.9). No difference from guessing: b.'
      >>> against("b", {"a": [7, 8]}, {"a": [5, 6]}, higher_is_better=False)
      'Better than b: a (by 2).'
    """
    better: dict[str, Interval] = {}
    worse: dict[str, Interval] = {}
    same: list[str] = []
    for name, values in scores.items():
        other = value[name] if isinstance(value, Mapping) else value
        gaps = np.subtract(values, other, dtype=float)
        found = interval((gaps if higher_is_better else -gaps).tolist())
        if len(values) < 2 or math.isnan(found.mean):
            continue
        if found.low > 0:
            better[name] = found
        elif found.high < 0:
            worse[name] = Interval(-found.high, -found.mean, -found.low)
        else:
            same.append(name)
    count = len(better) + len(same) + len(worse)
    known = "" if isinstance(value, Mapping) else f" ({_short(value)}{unit})"
    if count > 1 and len(better) == count:
        return f"All scores are better than {reference}{known}."
    some = f"{len(same)} of {count} scores" if len(same) > 3 else listed(same)
    said = []
    for beginning, names in {
        "Better than": _by(better, count, unit) if better else "",
        "No difference from": some if same else "",
        "Worse than": _by(worse, count, unit) if worse else "",
    }.items():
        if names:
            said.append(f"{beginning} {reference}{known}: {names}.")
            known = ""
    return " ".join(said)


def _by(found: Mapping[str, Interval], count: int, unit: str) -> str:
    """Return names with the intervals of their differences; count many names.

    Differences of percentages are in percentage points.
    """
    unit = " points" if unit == " %" else unit
    if len(found) > 3:
        means = [each.mean for each in found.values()]
        least, most = _short(min(means)), _short(max(means))
        return f"{len(found)} of {count} scores, by {least} to {most}{unit}"
    ends = lambda each: dict.fromkeys((_short(each.low), _short(each.high)))
    return listed([f"{n} (by {' to '.join(ends(x))}{unit})" for n, x in found.items()])


def _short(value: float) -> str:
    """Write a number with three digits.

    Example:
      >>> _short(99.834), _short(2.784e-6)
      ('99.8', '2.78·10⁻⁶')
    """
    return number(float(f"{value:.3g}"))


def listed(names: Sequence[str]) -> str:
    """Join names by commas and "and", or by semicolons if a name has a comma.

    Commas in brackets do not count.

    Example:
      >>> listed(["a", "b", "c"]), listed(["a, x", "b"])
      ('a, b and c', 'a, x; b')
    """
    if any(", " in re.sub(r"\([^)]*\)", "", name) for name in names):
        return "; ".join(names)
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
