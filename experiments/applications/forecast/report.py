"""Tables of `forecast` with published figures, and tests of skill."""

from typing import Any

import numpy as np

from experiments import report
from experiments.applications.forecast.diebold_mariano import LEAST, LEVEL, verdict
from experiments.applications.forecast.scores import ALL
from experiments.applications.forecast.series import Series

Row = dict[str, Any]
MEASURED = "elsewhere"
UNVERIFIED = "Weigend et al., unverified"
PUBLISHED = {
    "sunspots": [
        ("AR(12)", {"1921–55": 0.130, "1956–79": 0.368}, MEASURED),
        ("persistence", {"1921–55": 0.427, "1956–79": 0.965}, MEASURED),
        ("network", {"1921–55": 0.086, "1956–79": 0.35}, UNVERIFIED),
        ("threshold AR", {"1921–55": 0.097, "1956–79": 0.28}, UNVERIFIED),
    ],
    "seattle": [
        ("persistence", {"1 ahead": 2.91}, MEASURED),
        ("ridge on 14 lags", {"1 ahead": 2.78}, MEASURED),
        ("mean of the day", {"1 ahead": 4.42}, MEASURED),
    ],
    "nyc": [
        ("persistence, gaps ignored", {"1 ahead": 1.61, "24 ahead": 8.29}, MEASURED),
        ("ridge on 48 lags, the same", {"1 ahead": 1.47, "24 ahead": 8.06}, MEASURED),
    ],
    "sp500": [
        ("zero", {"1 ahead": 0.0382}, MEASURED),
        ("ridge on 12 lags", {"1 ahead": 0.0372}, MEASURED),
    ],
    "vix": [
        ("persistence", {"1 ahead": 0.0787}, MEASURED),
        ("ridge on 22 lags", {"1 ahead": 0.0782}, MEASURED),
    ],
}
COLUMNS = 5  # largest number of horizons in a table
OF_INTERVALS = {"within %": "coverage", "quantile": "quantile_loss"}


def name_of(series: Series, method: str) -> str:
    """Return the name of a method in tables and pictures."""
    reference = "zero" if series.returns else "persistence"
    names = {
        "reference": reference,
        "last_season": "value of the last season",
        "seasonal": "mean of the season",
        "ar": f"AR({series.lags})",
        "ridge": f"ridge on {series.lags} lags",
    }
    return names.get(method, method.replace(":", " × "))


def errors(series: Series, row: Row, period: str, horizon: int) -> list[float] | None:
    """Return each seed's test error in a period: the RMSE, or MSE / variance.

    The errors are MSE / variance if `series.variance` is given.
    """
    found = row["rmse"][period].get(str(horizon))
    if found is None or series.variance is None:
        return found
    return [error**2 / series.variance for error in found]


def whole(series: Series) -> str:
    """Return the name of the period that covers the whole test part."""
    return ALL if len(series.periods) > 1 else next(iter(series.periods))


def show(series: Series, rows: list[Row]) -> None:
    """Print errors by horizon and scores of intervals.

    For prices, also print tests of skill: is a forecast better than the reference
    forecast?
    """
    unit = (
        f"root mean squared error, {series.unit}"
        if series.variance is None
        else "mean squared error / variance of 1700–1979"
    )
    published = [report.Published(*each) for each in PUBLISHED.get(series.name, [])]
    first = series.horizons[0]
    if len(series.periods) > 1:
        columns = {period: (period, first) for period in series.periods}
        ours = {
            name_of(series, row["method"]): _cells(series, row, columns) for row in rows
        }
        title = f"{series.title}: {unit}, {first} step ahead"
        report.show_beside(title, [*columns], ours, published)
        published = []
    columns = {_ahead(h): (whole(series), h) for h in _some(series.horizons)}
    ours = {}
    for row in rows:
        cells = _cells(series, row, columns)
        for title, measure in OF_INTERVALS.items():
            found = row[measure][whole(series)].values()
            cells[title] = [float(np.mean(seeds)) for seeds in zip(*found, strict=True)]
        ours[name_of(series, row["method"])] = cells
    report.show_beside(
        f"{series.title}: {unit}",
        [*columns, *OF_INTERVALS],
        ours,
        published,
        f"Test: {', '.join(series.periods)}. Lower is better, except within %: the "
        "share of values in the interval that should contain 90 %. The interval is "
        "calibrated on the validation part, and adapted in the test part. Quantile: "
        "the quantile loss of its ends. Both are means over all horizons. Rules that "
        "learn at every step, such as rtrl, do so in the test part too.",
    )
    if series.price:
        _show_skill(series, rows)


def _cells(series: Series, row: Row, columns: dict[str, tuple[str, int]]) -> dict:
    """Return {column title: errors of all seeds}, without columns that are empty."""
    found = {title: errors(series, row, *where) for title, where in columns.items()}
    return {title: each for title, each in found.items() if each}


def _ahead(horizon: int) -> str:
    return f"{horizon} ahead"


def _some(horizons: tuple[int, ...]) -> tuple[int, ...]:
    """Return the horizons that a table shows: at most :data:`COLUMNS` of them."""
    if len(horizons) <= COLUMNS:
        return horizons
    places = np.linspace(0, len(horizons) - 1, COLUMNS).round().astype(int)
    return tuple(horizons[place] for place in places)


def skill(series: Series, rows: list[Row]) -> list[tuple[str, str, float, str]]:
    """Return (method, horizon, p, verdict) of each comparison with the reference.

    The reference forecast is 0 for returns, and persistence for other series. p is the
    p value, corrected for the number of comparisons by Holm's method.
    """
    found = [
        (row["method"], h, test["p"], test["gain"])
        for row in rows
        if row["method"] != "reference"
        for h, test in row["skill"].items()
    ]
    reference = "the zero forecast" if series.returns else "persistence"
    corrected = report.holm([p for _, _, p, _ in found])
    return [
        (method, h, p, verdict(gain, p, reference))
        for (method, h, _, gain), p in zip(found, corrected, strict=True)
    ]


def conclusion(series: Series, rows: list[Row]) -> str:
    """Say in words which methods are better than the reference forecast of a series."""
    found = skill(series, rows)
    better = [
        f"{name_of(series, method)} at {h}"
        for method, h, _, text in found
        if text.startswith("better")
    ]
    if not better:
        return (
            f"{series.title}: no skill shown. Of {len(found)} comparisons none is "
            f"better than the reference at the level of {100 * LEVEL:.0f} %."
        )
    return (
        f"{series.title}: {len(better)} of {len(found)} comparisons are better than "
        f"the reference at the level of {100 * LEVEL:.0f} %: {', '.join(better)}; no "
        f"skill shown by the others. {series.caveat}"
    ).strip()


def _show_skill(series: Series, rows: list[Row]) -> None:
    lines = [
        [name_of(series, method), h, f"{_of(rows, method, h):.2f}", _p(p), text]
        for method, h, p, text in skill(series, rows)
    ]
    if not lines:
        return
    note = (
        "S: Diebold and Mariano's statistic of squared errors, corrected for small "
        "samples; above 0 the reference has larger errors. p: two-sided, corrected for "
        "the number of lines (Holm)."
    )
    title = f"{series.title}: is there any skill?"
    report.show_table(title, ["", "steps ahead", "S", "p", "in words"], lines, note)
    report.wide_console().print(f"[bold]{conclusion(series, rows)}\n")


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= LEAST else f"<{LEAST:g}"


def _of(rows: list[Row], method: str, horizon: str) -> float:
    row = next(row for row in rows if row["method"] == method)
    return row["skill"][horizon]["statistic"]
