"""Pictures of `forecast`: forecasts of the last steps, and errors by horizon."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from experiments import report
from experiments.applications.forecast.report import errors, name_of, Row, whole
from experiments.applications.forecast.series import Series

GREYS = report.COLOURS[-2:]  # colours of baselines
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
    figure, axes = report.panels(len(shown), 1, width=10, height=3.3, sharex=True)
    axes = axes[:, 0]
    for axis, (h, part) in zip(axes, shown.items(), strict=True):
        middle, low, high = np.array(part["said"]).T
        steps = slice(part["from"], part["from"] + len(middle))
        times = series.times[steps]
        axis.fill_between(
            times, low, high, color=report.COLOURS[0], alpha=0.2, label="90 % interval"
        )
        axis.plot(times, middle, color=report.COLOURS[0], label="forecast")
        axis.plot(times, series.values[steps], "k.-", linewidth=0.6, markersize=3)
        axis.plot([], [], "k.-", linewidth=0.6, label="observed")
        inside = (low <= series.values[steps]) & (series.values[steps] <= high)
        known = np.isfinite(series.values[steps])
        much = 100 * inside[known].mean()
        steps_ahead = "1 step" if h == "1" else f"{h} steps"
        axis.set_title(f"{steps_ahead} ahead; {much:.0f} % in interval", fontsize=10)
        axis.set_ylabel(_plain(series.unit))
    handles = axes[0].get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 3, "frameon": False}
    figure.legend(*handles, fontsize=9, **place)
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
    figure, axes = report.panels(width=9, height=5)
    axis, drawn = axes[0, 0], []
    learned = [row["method"] for row in rows if "validation" in row]
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
        if row["method"] in learned:
            at = learned.index(row["method"])
            colours = [each for each in report.COLOURS if each not in GREYS]
            style: dict[str, Any] = {"color": colours[at % len(colours)]}
            style |= {"linestyle": ("-", "--")[at // len(colours) % 2], "marker": "o"}
        else:  # a baseline
            style = {"marker": "sdv^<"[i % 5], "color": GREYS[i % 2]}
            style["linestyle"] = ("--", ":", "-.", (0, (5, 3)), (0, (1, 3)))[i % 5]
        name = name_of(series, row["method"])
        axis.plot([*found], means, markersize=4, linewidth=1.3, label=name, **style)
        axis.errorbar(
            [*found], means, spread, fmt="none", capsize=3, ecolor=style["color"]
        )
    axis.set_xlabel(f"steps ahead ({_step(series)})")
    axis.set_xscale("log")
    shown = series.horizons
    if len(shown) > 8:
        shown = sorted({1, *range(5, shown[-1] + 1, max(5, shown[-1] // 25 * 5))})
    axis.set_xticks(shown, [str(h) for h in shown])
    axis.minorticks_off()
    if max(drawn) > 6 * min(drawn) > 0:
        report.log_ticks(axis)
    axis.set_ylabel(
        f"root mean squared error, {_plain(series.unit)}"
        if series.variance is None
        else "mean squared error / variance of 1700–1979"
    )
    axis.set_title(f"{_plain(series.title)}: errors on the whole test part")
    report.label_ends(axis)
    return figure


def draw_own(series: Series, said: np.ndarray, method: str = "") -> Figure:
    """Draw the end of a user's series, and the forecast [H, 3] of H steps after it.

    The forecast of a step is a value and the two ends of its 90 % interval. The name of
    the method is in the title.
    """
    figure, axes = report.panels(width=10, height=4.2)
    axis = axes[0, 0]
    rows = len(series.values)
    past, times = slice(max(0, rows - BEFORE), rows), series.times
    ahead = np.arange(rows, rows + len(said))
    dated = series.ahead is not None and times.dtype == series.ahead.dtype
    if series.ahead is not None and dated:
        ahead = series.ahead
    times = times if dated else np.arange(rows)
    axis.plot(times[past], series.values[past], "k.-", linewidth=0.8, label="known")
    axis.fill_between(
        ahead, *said[:, 1:].T, color=report.COLOURS[0], alpha=0.2, label="90 % interval"
    )
    axis.plot(
        ahead, said[:, 0], "o-", color=report.COLOURS[0], markersize=3, label="forecast"
    )
    if times.dtype.kind == "M":
        axis.xaxis.set_major_formatter(ConciseDateFormatter(AutoDateLocator()))
    axis.set(xlabel="" if dated else "row", ylabel=_plain(series.unit))
    by = f", by {method}" if method else ""
    axis.set_title(_plain(f"{series.title}: what comes next{by}"))
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _plain(text: str) -> str:
    """Escape dollar signs in text, because in matplotlib they begin a formula."""
    return text.replace("$", r"\$")


def _step(series: Series) -> str:
    steps = {"sunspots": "years", "nyc": "hours", "sp500": "months", "csv": "rows"}
    return steps.get(series.name, "days")


def _time(series: Series) -> str:
    if series.name == "csv":
        return "row" if series.times.dtype.kind == "i" else ""
    return {"sunspots": "year"}.get(series.name, "")
