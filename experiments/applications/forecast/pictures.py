"""Pictures of `forecast`: forecasts of the last steps, and errors by horizon."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.forecast.report import errors, name_of, Row, whole
from experiments.applications.forecast.series import Series

# Colours of the rows of results. Rows 4 to 8 are five networks, which are drawn in the
# last five colours. Rows 0 to 3 are baselines, which are drawn in grey instead.
COLOURS = ("C4", "C5", "C6", "C8", "C0", "C1", "C2", "C3", "C9")
BEFORE = 100  # number of past steps to draw before the forecast of a CSV file


def save(folder: Path, series: Series, rows: list[Row]) -> None:
    """Draw forecasts and errors of a series, and save both pictures."""
    networks = [row for row in rows if "validation" in row]
    if networks:
        best = min(networks, key=lambda row: np.mean(row["validation"]))
        picture = draw_forecasts(series, best)
        report.save_picture(folder, f"{series.name}-forecasts", picture)
    report.save_picture(folder, f"{series.name}-errors", draw_errors(series, rows))


def draw_forecasts(series: Series, row: Row) -> Figure:
    """Draw the last steps of a series, and their forecasts at two horizons."""
    shown = row["shown"]
    figure = Figure(figsize=(10, 1 + 3.1 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (h, part) in zip(axes, shown.items(), strict=True):
        middle, low, high = np.array(part["said"]).T
        steps = slice(part["from"], part["from"] + len(middle))
        times = series.times[steps]
        axis.fill_between(
            times, low, high, color="C0", alpha=0.2, label="90 % interval"
        )
        axis.plot(times, middle, color="C0", label="forecast")
        axis.plot(times, series.values[steps], "k.-", linewidth=0.6, markersize=3)
        axis.plot([], [], "k.-", linewidth=0.6, label="observed")
        inside = (low <= series.values[steps]) & (series.values[steps] <= high)
        known = np.isfinite(series.values[steps])
        much = 100 * inside[known].mean()
        steps_ahead = "1 step" if h == "1" else f"{h} steps"
        axis.set_title(f"{steps_ahead} ahead; {much:.0f} % in interval", fontsize=10)
        axis.set_ylabel(_plain(series.unit))
        axis.grid(alpha=0.3)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, loc="outside lower center", ncols=3)
    axes[-1].set_xlabel(_time(series))
    figure.suptitle(
        f"{_plain(series.title)}, the end of the test part: "
        f"{name_of(series, row['method'])}"
    )
    return figure


def draw_errors(series: Series, rows: list[Row]) -> Figure:
    """Draw the test error of each method against the horizon.

    Error bars are standard deviations over seeds.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axis, drawn = figure.subplots(), []
    for i, row in enumerate(rows):
        found: dict[int, Any] = {
            h: errors(series, row, whole(series), h) for h in series.horizons
        }
        found = {h: each for h, each in found.items() if each}
        means = [np.mean(each) for each in found.values()]
        drawn += means
        spread = [
            float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
            for each in found.values()
        ]
        style: dict[str, Any] = {
            "marker": "o",
            "linestyle": "-",
            "color": COLOURS[i % 9],
        }
        if "validation" not in row:  # a baseline
            dashes = ("--", ":", "-.", (0, (5, 3)))[i]
            style = {"marker": "sdv^"[i], "linestyle": dashes, "color": str(0.18 * i)}
        axis.errorbar(
            [*found], means, spread, markersize=4, linewidth=1.2, capsize=3,
            label=name_of(series, row["method"]), **style,
        )  # fmt: skip
    axis.set(xlabel=f"steps ahead ({_step(series)})", xscale="log")
    shown = series.horizons
    if len(shown) > 8:
        shown = sorted({1, *range(5, shown[-1] + 1, max(5, shown[-1] // 25 * 5))})
    axis.set_xticks(shown, [str(h) for h in shown])
    axis.minorticks_off()
    if max(drawn) > 6 * min(drawn) > 0:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params("y", which="minor", labelsize=7)
    axis.set_ylabel(
        f"root mean squared error, {_plain(series.unit)}"
        if series.variance is None
        else "mean squared error / variance of 1700–1979"
    )
    axis.set_title(f"{_plain(series.title)}: errors on the whole test part")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def draw_own(series: Series, said: np.ndarray) -> Figure:
    """Draw the end of a user's series, and the forecast [H, 3] of H steps after it.

    The forecast of a step is a value and the two ends of its 90 % interval.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axis = figure.subplots()
    rows = len(series.values)
    past = slice(max(0, rows - BEFORE), rows)
    axis.plot(
        series.times[past], series.values[past], "k.-", linewidth=0.8, label="known"
    )
    ahead = np.arange(rows, rows + len(said))
    axis.fill_between(
        ahead, *said[:, 1:].T, color="C0", alpha=0.2, label="90 % interval"
    )
    axis.plot(ahead, said[:, 0], "o-", color="C0", markersize=3, label="forecast")
    axis.set(xlabel="row", ylabel=_plain(series.unit))
    axis.set_title(f"{_plain(series.title)}: what comes next")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def _plain(text: str) -> str:
    """Escape dollar signs in text, because in matplotlib they begin a formula."""
    return text.replace("$", r"\$")


def _step(series: Series) -> str:
    steps = {"sunspots": "years", "nyc": "hours", "sp500": "months", "csv": "rows"}
    return steps.get(series.name, "days")


def _time(series: Series) -> str:
    return "row" if series.name == "csv" else {"sunspots": "year"}.get(series.name, "")
