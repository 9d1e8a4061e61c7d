"""Series to forecast, and their arrays of inputs and targets.

    z_{t,h} = (y_{t+h} − r_t) / s_h

z_{t,h} is the target at step t for horizon h, and y is the series. The reference
forecast r_t is the last value known at t, or 0 for returns. s_h is the standard
deviation of y_{t+h} − r_t. All means and standard deviations are over the training
part.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments import data

# Even if a price is a random walk, changes of its monthly means are correlated.
MEANS = (
    "The price is a mean over the month, so neighbouring returns are correlated by "
    "construction: a smaller error at the shortest horizon is no skill."
)
INDEX = "The index returns to its mean, but it cannot be bought, so this is no profit."


class Series(NamedTuple):
    """A series at equally spaced time steps; a missing value is NaN."""

    name: str
    title: str
    unit: str
    times: np.ndarray  # [N], times for pictures
    values: np.ndarray  # [N], the values to forecast
    others: np.ndarray  # [N, F], other columns, also inputs of the networks
    phase: np.ndarray  # [N] phase within the season, from 0; −1 without a season
    season: int  # number of phases if networks see the phase, else 0
    validation: int  # index of the first step of the validation part
    test: int  # index of the first step of the test part
    periods: dict[str, tuple[int, int]]  # {period of the test part: (first step, end)}
    horizons: tuple[int, ...]
    lags: int  # number of lags of the linear baselines
    returns: bool = False  # whether the values are returns, with reference forecast 0
    price: bool = False  # whether to test if forecasts are better than the reference
    caveat: str = ""
    variance: float | None = None  # if given, tables divide squared errors by it
    notes: tuple[str, ...] = ()  # notes to the user about the data
    period: int = 0  # number of steps in a season, if all seasons have as many, else 0
    inputs: tuple[str, ...] = ()  # names of the other columns, if they have names
    ahead: np.ndarray | None = None  # times of the steps after the end, if known


class Scaling(NamedTuple):
    """Means and standard deviations of the training part, for F input columns."""

    mean: np.ndarray  # [F]
    deviation: np.ndarray  # [F]; 1 for a constant column
    scale: np.ndarray  # [H], standard deviations s_h
    flagged: bool  # whether an input says that the value is missing


class Prepared(NamedTuple):
    """Arrays for networks, from a series of N steps and for H horizons."""

    xs: np.ndarray  # [N, D] float32, inputs at each step
    z: np.ndarray  # [N, H] float32, scaled targets; 0 where the target is not known
    known: np.ndarray  # [N, H] bool, whether the target is known
    reference: np.ndarray  # [N], reference forecasts r_t
    scaling: Scaling
    targets: np.ndarray  # [N, H], values y_{t+h}; NaN if not known

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations s_h [H]."""
        return self.scaling.scale


def prepare(series: Series, scaling: Scaling | None = None) -> Prepared:
    """Return the inputs and the targets at each step.

    Inputs at a step are the value, its change and the other columns, all standardised.
    If values are missing, one more input is 1 where the value is missing; if there is a
    season, two more inputs give its phase. A missing value is replaced by the last
    known value.

    Args:
      series: the series.
      scaling: means and standard deviations; None to compute them from the training
        part.

    Raises:
      ValueError: if the training part is constant, or has too few known values.
    """
    y, filled = series.values, fill(series.values)
    reference = np.zeros(len(y)) if series.returns else filled
    targets = np.full((len(y), len(series.horizons)), np.nan)
    for i, h in enumerate(series.horizons):
        targets[:-h, i] = y[h:]
    columns = [filled, np.diff(filled, prepend=filled[:1])]
    columns += [fill(column) for column in series.others.T]
    if scaling is None:
        scaling = _scaling(series, columns, targets - reference[:, None])
    xs = (np.stack(columns, axis=1) - scaling.mean) / scaling.deviation
    extra = []
    if scaling.flagged:
        extra.append(np.isnan(y))
    if series.season:
        angle = 2 * np.pi * series.phase / series.season
        extra += [np.sin(angle), np.cos(angle)]
    xs = np.column_stack([xs, *extra]).astype(np.float32)
    known = np.isfinite(targets)
    z = np.where(known, (targets - reference[:, None]) / scaling.scale, 0)
    return Prepared(xs, z.astype(np.float32), known, reference, scaling, targets)


def _scaling(
    series: Series, columns: list[np.ndarray], differences: np.ndarray
) -> Scaling:
    """Return the scaling of input columns and of the differences y_{t+h} − r_t."""
    y, train = series.values, slice(0, series.validation)
    for i, h in enumerate(series.horizons):
        differences[max(0, series.validation - h) : series.validation, i] = np.nan
    count = np.sum(np.isfinite(differences[train]), axis=0)
    if np.any(count < 2):
        raise ValueError(
            f"{series.title} has too few known values in its training part, the first "
            f"{series.validation} steps."
        )
    scale, whole = np.nanstd(differences[train], axis=0), float(np.nanstd(y[train]))
    if np.nanmin(y[train]) == np.nanmax(y[train]):
        raise ValueError(
            f"{series.title} is constant in its training part, the first "
            f"{series.validation} steps: there is nothing to learn."
        )
    # If h is a whole period of a periodic y, y_{t+h} − r_t is always 0. The scale s_h
    # is then the standard deviation of y.
    scale = np.where(scale > 1e-9 * whole, scale, whole)
    mean = np.array([column[train].mean() for column in columns])
    deviation = np.array([column[train].std() for column in columns])
    deviation = np.where(deviation > 0, deviation, 1)
    return Scaling(mean, deviation, scale, bool(np.any(np.isnan(y))))


def fill(column: np.ndarray) -> np.ndarray:
    """Replace each NaN by the last known value before it.

    NaNs at the start are replaced by the first known value; zeros replace a column of
    NaNs.

    Example:
      >>> fill(np.array([np.nan, 1.0, np.nan, 3.0])).tolist()
      [1.0, 1.0, 1.0, 3.0]
    """
    known = np.isfinite(column)
    if not known.any():
        return np.zeros_like(column)
    last = np.maximum.accumulate(np.where(known, np.arange(len(column)), -1))
    return column[np.where(last < 0, np.argmax(known), last)]


def _sunspots() -> Series:
    years, numbers = data.sunspots()
    numbers = numbers.astype(float)
    at = lambda year: int(np.searchsorted(years, year))
    periods = {
        "1921–55": (at(1921), at(1956)),
        "1956–79": (at(1956), at(1980)),
        "1980–2008": (at(1980), len(years)),
    }
    return Series(
        "sunspots", "sunspots, yearly", "spots", years, numbers,
        np.zeros((len(years), 0)), years % 11, 0, at(1886), at(1921), periods,
        (1, 2, 5, 11), 12, variance=float(numbers[years <= 1979].var()),
    )  # fmt: skip


def _seattle() -> Series:
    weather = data.seattle_weather()
    days, at = weather.dates, lambda day: int(np.searchsorted(weather.dates, day))
    phase = (days - days.astype("datetime64[Y]")).astype(int)
    others = np.stack(
        [np.log1p(weather.precipitation), weather.temp_min, weather.wind], axis=1
    )
    test = at(np.datetime64("2015-01-01"))
    return Series(
        "seattle", "Seattle, daily maximum", "°C", days, weather.temp_max, others,
        phase, 366, at(np.datetime64("2014-01-01")), test, {"2015": (test, len(days))},
        (1, 2, 3, 7), 14,
    )  # fmt: skip


def _nyc() -> Series:
    weather = data.nyc_weather("JFK")
    one = np.timedelta64(1, "h")
    hours = np.arange(weather.hours[0], weather.hours[-1] + one)  # every hour
    place = (weather.hours - hours[0]).astype(int)
    columns = np.full((len(hours), 4), np.nan)
    names = ("temperature", "dew_point", "humidity", "wind_speed")
    for i, name in enumerate(names):
        columns[place, i] = getattr(weather, name)
    test = len(hours) * 4 // 5
    return Series(
        "nyc", "New York (JFK), hourly temperature", "°F", hours, columns[:, 0],
        columns[:, 1:], hours.astype(int) % 24, 24, test * 7 // 8, test,
        {"last 20 %": (test, len(hours))}, (1, 6, 12, 24), 48, period=24,
    )  # fmt: skip


def _sp500() -> Series:
    found = data.shiller()
    returns, months = np.diff(np.log(found.price)), found.months[1:]
    test = len(returns) * 4 // 5
    return Series(
        "sp500", "S&P 500, monthly log-return", "log-return", months, returns,
        np.zeros((len(returns), 0)), months.astype(int) % 12, 12, test * 7 // 8, test,
        {f"from {months[test]}": (test, len(returns))}, (1, 3, 12), 12,
        returns=True, price=True, caveat=MEANS,
    )  # fmt: skip


def _vix() -> Series:
    found = data.vix()
    logs, test = np.log(found.close), 7388
    weekday = (found.dates.astype(int) + 3) % 7  # 1970-01-01 was a Thursday
    return Series(
        "vix", "VIX, daily log close", "log", found.dates, logs,
        np.zeros((len(logs), 0)), weekday, 7, test * 7 // 8, test,
        {f"from {found.dates[test]}": (test, len(logs))}, (1, 5, 22), 22, price=True,
        caveat=INDEX,
    )  # fmt: skip


SERIES: dict[str, Callable[[], Series]] = {
    "sunspots": _sunspots,
    "seattle": _seattle,
    "nyc": _nyc,
    "sp500": _sp500,
    "vix": _vix,
}
