"""Answers of a saved forecast: the winner of the contest, asked with a newer file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.applications.forecast import baselines, own, scores, user_csv
from experiments.applications.forecast.network import make_network, say
from experiments.applications.forecast.series import prepare, Scaling, Series
from experiments.data.tables import read_columns, season_of, Table
from experiments.harness import novelty
from experiments.harness.models import Answer, Saved

READS: dict[str, Callable[[str], Any]] = {"csv": Path}


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Forecast of the rows after the end of a file; as text, it is a CSV table."""

    rows: int  # number of rows in the file
    times: np.ndarray | None  # [H], times of the forecast rows, if the file has times
    values: np.ndarray  # [H, 3]: value, and the two ends of its 90 % interval

    def __str__(self) -> str:
        """Return the forecast as the text of a CSV file."""
        return user_csv.forecast_text(self.rows, self.values, self.times).rstrip()


def make_predict(saved: Saved) -> Callable[[Any], Answer]:
    """Return a function that forecasts the rows after the end of a file or of values.

    Its argument is the path of a CSV file with the columns of the run's file, or an
    array of past values in order of time: [T], or [T, 1 + inputs] if the run had
    inputs. The value of the answer is a :class:`Forecast`. Nothing is trained: the
    winner of the run forecasts from the new values. NaN is a missing value.
    """
    settings, params = saved.settings, saved.params
    mean, deviation, scale, flagged = params["scaling"]
    scaling = Scaling(mean, deviation, scale, bool(flagged))

    def predict(x: Any) -> Answer:
        path = Path(x) if isinstance(x, str | Path) else None
        table = _table(settings, x) if path is None else _read(settings, path)
        series = _series(settings, table, path or Path("the values"))
        prepared = prepare(series, scaling)
        said = _said(settings, params["arrays"], series, prepared)
        said[:, 1] -= params["offsets"]
        said[:, 2] += params["offsets"]
        said[:, 1:] = np.sort(said[:, 1:], axis=1)
        ahead = user_csv.times_ahead(table, len(said))
        value = Forecast(len(series.values), ahead, said)
        if "novelty" not in params:
            return Answer(value)
        past = own.windows(series, scaling.mean[0], scaling.deviation[0])[-1:]
        distance = float(novelty.distances(params["novelty"], {"past": past})[0])
        return Answer(value, distance=distance, alarms=novelty.ALARMS)

    return predict


def _read(settings: dict[str, Any], path: Path) -> Table:
    names = (settings["column"], *settings["inputs"])
    return read_columns(path, names, **settings["options"])


def _table(settings: dict[str, Any], values: Any) -> Table:
    """Return an array of past values [T] or [T, 1 + inputs] as a table."""
    names = (settings["column"], *settings["inputs"])
    array = np.asarray(values, float)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != len(names):
        raise ValueError(
            f"x must be a path, or values [T, {len(names)}] of {', '.join(names)}; got "
            f"the shape {np.shape(values)}."
        )
    return Table(dict(zip(names, array.T, strict=True)), None, ())


def _series(settings: dict[str, Any], table: Table, path: Path) -> Series:
    """Return the past values as a series without a part that is still to come.

    Raises:
      ValueError: if there are too few values, none is known, or the season of the run
        cannot be continued.
    """
    season, lags = settings["season"], settings["lags"]
    column, inputs = settings["column"], settings["inputs"]
    series = user_csv.make_series(table, column, path, inputs, season)
    rows, least = len(series.values), max(lags, season, 2)
    if rows < least or not np.isfinite(series.values).any():
        raise ValueError(
            f"column {column!r} of {path} has {np.isfinite(series.values).sum()} "
            f"numbers in {rows} rows; the forecast needs {least} rows at least."
        )
    calendar = table.times is not None and season_of(table.times)
    begin = user_csv.label(series, 0)
    counted = season and (not calendar or calendar[0] != season)
    if counted and begin != settings["first"]:
        where = f"{path} begins at {begin}"
        if table.times is None:
            where = "values without dates do not say where they begin"
        raise ValueError(
            f"the season of {season} rows is counted from the first row of the run's "
            f"file, {settings['first']}; {where}. Give a file that begins there."
        )
    horizons = tuple(range(1, settings["horizons"] + 1))
    return series._replace(horizons=horizons, lags=lags)


def _said(
    settings: dict[str, Any], arrays: list[np.ndarray], series: Series, prepared: Any
) -> np.ndarray:
    """Return the method's own forecast [H, 3] from the last row."""
    method = settings["method"]
    if method in baselines.BASELINES:
        fitted = dict(zip(settings["names"], arrays, strict=True))
        fitted = baselines.Fitted(method, fitted)
        return baselines.apply(fitted, series, prepared)[-1].copy()
    count, horizons = prepared.xs.shape[1], len(series.horizons)
    network = make_network(settings["cell"], count, settings["units"], horizons)
    structure = jax.tree.structure(network.init(jax.random.key(0)))
    params = jax.tree.unflatten(structure, arrays)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    said = np.asarray(say(network, horizons, params, prepared.xs))[:, -1:]
    last = len(series.values) - 1
    return scores.in_units(prepared, said, last)[:, 0].mean(axis=0)
