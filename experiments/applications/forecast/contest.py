"""Contest of all methods on the validation part of a CSV file: which one forecasts?

Every method is fitted to the same training part, chooses its settings on the same
validation part, and is compared there by the error over all horizons (numbers of steps
ahead). The method with the lowest error wins, unless a simpler method is not shown to
be worse: then the simplest of these wins. A method is shown to be worse if the 95 %
interval of the difference of squared errors, paired by origin (the step to forecast
from), is above 0. The test part has no say.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import report
from experiments.applications.forecast.baselines import BASELINES
from experiments.applications.forecast.diebold_mariano import paired_interval
from experiments.applications.forecast.report import name_of, Row
from experiments.applications.forecast.scores import squared_errors
from experiments.applications.forecast.series import Prepared, Series

KINDS = {
    "reference": "the last value",
    "last_season": "the value of the last season",
    "seasonal": "the mean of the season",
    "ar": "a linear model",
    "ridge": "a linear model",
}


class Comparison(NamedTuple):
    """Errors of two methods, and the 95 % interval of the second minus the first."""

    error: float  # root mean squared error over all horizons
    other: float
    low: float
    high: float


class Verdict(NamedTuple):
    """Result of the contest."""

    winner: Row
    sentence: str
    against: dict[str, Comparison]  # comparison of the winner with each other method


def paired(
    series: Series, prepared: Prepared, said: np.ndarray, first: int
) -> list[float | None]:
    """Return the squared errors of each origin of the validation part, for the contest.

    Their mean is the mean squared error over all origins and horizons. An origin
    without a known target has None.

    Args:
      series: the series that was forecast.
      prepared: arrays of the series.
      said: forecasts [1, origins, H, 3].
      first: the first origin.
    """
    squares = squared_errors(series, prepared, said, first, "validation")[0]
    known = np.isfinite(squares)
    some = known.any(axis=1)
    sums = np.nansum(squares, axis=1) * some.sum() / known.sum()
    return [float(x) if use else None for x, use in zip(sums, some, strict=True)]


def compare(one: Row, other: Row, horizon: int) -> Comparison:
    """Compare the validation errors of two methods, paired by origin."""
    a, b = (
        np.array([x for x in row["validation_squares"] if x is not None])
        for row in (one, other)
    )
    low, high = paired_interval(b - a, min(horizon, max(1, (len(a) - 1) // 2)))
    errors = math.sqrt(a.mean()), math.sqrt(b.mean())
    # a² − b² = (a − b)(a + b), so the interval of squares is divided by a + b.
    total = max(sum(errors), 1e-300)
    return Comparison(*errors, low / total, high / total)


def decide(series: Series, rows: Sequence[Row]) -> Verdict:
    """Return the winner of the contest, and a sentence that says by how much it won."""
    horizon = max(series.horizons)
    order = [*BASELINES, *(r["method"] for r in rows if r["method"] not in BASELINES)]
    rows = sorted(rows, key=lambda row: order.index(row["method"]))
    lowest = min(rows, key=lambda row: row["validation_rmse"][0])
    winner = next(
        row for row in rows if row is lowest or compare(lowest, row, horizon).low <= 0
    )
    against = {
        row["method"]: compare(winner, row, horizon)
        for row in rows
        if row is not winner
    }
    sentence = _sentence(series, rows, winner, lowest, against)
    return Verdict(winner, sentence, against)


def _sentence(
    series: Series,
    rows: Sequence[Row],
    winner: Row,
    lowest: Row,
    against: dict[str, Comparison],
) -> str:
    if not against:
        return f"{name_of(series, winner['method'])} is the only method."
    rival = lowest if lowest is not winner else _rival(rows, winner)
    found = against[rival["method"]]
    names = [name_of(series, row["method"]) for row in (winner, rival)]
    one, other = (row["test_rmse"][0] for row in (winner, rival))
    low, high = _rounded(found.low), _rounded(found.high)
    interval = f"95 % interval of the difference: {low} to {high}"
    if not math.isfinite(found.low):
        interval = "the validation part is too short for an interval"
    test = f"On the test part: {_figure(one)} against {_figure(other)}."
    if found.low > 0:
        return (
            f"{kind(winner).capitalize()} is better here: {names[0]} has an error of "
            f"{_figure(found.error)} against {_figure(found.other)} of {names[1]} "
            f"({interval}). {test}"
        )
    return (
        f"No difference is shown between {names[0]} and {names[1]}: errors of "
        f"{_figure(found.error)} and {_figure(found.other)} ({interval}). The simpler "
        f"method, {names[0]}, forecasts. {test}"
    )


def _rival(rows: Sequence[Row], winner: Row) -> Row:
    """Return the best method of the other kind: a network, or a method without one."""
    is_network = lambda row: row["method"] not in BASELINES
    others = [row for row in rows if row is not winner]
    unlike = [row for row in others if is_network(row) != is_network(winner)]
    return min(unlike or others, key=lambda row: row["validation_rmse"][0])


def kind(row: Row) -> str:
    """Return the kind of a method in words."""
    return KINDS.get(row["method"], "a network")


def show(series: Series, rows: Sequence[Row], verdict: Verdict) -> None:
    """Print the errors of all methods, the winner, and the sentence."""
    lines = []
    for row in rows:
        method, won = row["method"], row is verdict.winner
        found = verdict.against.get(method)
        difference = "–" if found is None else _difference(found)
        within = [np.mean(each) for each in _coverages(row)]
        cells = [row["validation_rmse"][0], row["test_rmse"][0]]
        cells = [*map(_figure, cells), difference, f"{np.mean(within):.0f}"]
        lines.append(
            [name_of(series, method), *cells, "forecasts" if won else ""],
        )
    report.show_table(
        f"{series.title}: which method forecasts best?",
        ["", "validation", "test", "worse than the winner by", "within %", ""],
        lines,
        f"Root mean squared errors over all horizons, {series.unit}; lower is better. "
        "Worse by: 95 % interval on the validation part, paired; around 0, no "
        "difference is shown. Within %: share of the test part in the calibrated 90 % "
        "interval.",
    )
    report.conclude(verdict.sentence)


def _difference(found: Comparison) -> str:
    if not math.isfinite(found.low):
        return "too short to say"
    told = f"{_rounded(found.low)} to {_rounded(found.high)}"
    return told if found.low > 0 else f"{told}: no difference"


def _coverages(row: Row) -> list[Any]:
    return [seeds for period in row["coverage"].values() for seeds in period.values()]


def _rounded(number: float) -> str:
    """Return a number with two significant digits, and no exponent if it is large.

    Example:
      >>> _rounded(363.2), _rounded(-8.34), _rounded(0.65)
      ('360', '-8.3', '0.65')
    """
    return f"{float(f'{number:.2g}'):.15g}"


def _figure(error: float) -> str:
    return f"{error:.3g}" if abs(error) < 999.5 else f"{error:.0f}"
