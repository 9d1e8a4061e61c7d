"""The study `drift`: how fast a learner discounts old data if the target changes.

The first target function is a linear model whose weights change in a random walk. The
prediction errors are compared with errors measured outside this project. The second
target is tomorrow's maximum temperature in Seattle, predicted from today's weather.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data, report
from experiments.forgetting import _drift_report
from experiments.forgetting._online_regression import follow, METHODS, over_grid
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Way
from experiments.harness.options import above, all_of, at_least, given, within
from experiments.harness.study import run_study, Study

INPUTS, WALK, NOISE = 5, 0.01, 0.05
CHOSEN, SCORED = "2014", "2015"  # settings are chosen on 2014; errors are of 2015
CURVE = np.geomspace(0.02, 1.5, 40)  # learning rates in the picture
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DECAYS = (0.5, 0.9, 0.97, 0.99, 0.995, 0.999)
SHOWN = {
    "all": ("precipitation", "temp_max", "temp_min", "wind"),
    "no temperatures": ("precipitation", "wind"),
}


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Does a forgetting factor help to learn a linear model whose weights drift?"""

    QUICK = {"seeds": 2, "steps": 500, "burn_in": 100}
    CHECKS = {
        "horizon": at_least(1),
        "decay": within(0, 1, ends="()"),
        "rates": all_of(given, above(0)),
    }

    seeds: int = 5
    """Number of random walks of the true weights, which run together under vmap."""
    steps: int = 2000
    """Number of steps of each random walk."""
    burn_in: int = 200
    """Number of steps at the start that are left out of the mean error."""
    rates: tuple[float, ...] = (0.05, 0.2, 0.5, 1.0)
    """Learning rates η. Methods that sum past gradients change the weights by −η (1 −
    λ) times the sum."""
    decay: float = 0.9
    """Forgetting factor λ for random walks; for weather, λ is chosen from a grid."""
    horizon: int = 20
    """Number W of past examples that the method replay stores."""
    weather: bool = True
    """Whether to predict the weather too; missing data are downloaded once."""

    def check(self) -> None:
        """Check that `burn_in` is below `steps`, so that some steps are scored."""
        if not 0 <= self.burn_in < self.steps:
            raise ValueError(
                f"burn_in must be within 0 <= burn_in < steps = {self.steps}, got "
                f"{self.burn_in}."
            )


def main(config: Config) -> report.Result:
    """Run all methods on random walks and on weather; print tables, save pictures."""
    return run_study("drift", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return one job for each pair of a data stream and a method.

    If the weather data are not available or not wanted, print the reason.
    """
    jobs = [
        Job(f"random walk, {name}", 1, partial(_walk_row, config, name))
        for name in METHODS
    ]
    weather, left_out = _weather(config)
    if weather is None:
        _drift_report.show_left_out(left_out)
        return jobs
    for inputs in SHOWN:
        for name in (*METHODS, "persistence", "fixed"):
            run = partial(_weather_row, config, weather, inputs, name)
            jobs.append(Job(f"Seattle, {inputs}, {name}", 1, run))
    return jobs


def _finish(folder: Path, config: Config, rows: list[dict[str, Any]]) -> None:
    _drift_report.show_walk(rows, config)
    _drift_report.show_weather(rows)
    report.save_picture(folder, "drift", _drift_report.draw_walk(rows, CURVE))
    if any(row["stream"] == "seattle" for row in rows):
        report.save_picture(folder, "seattle", _drift_report.draw_weather(rows))


def walks(config: Config) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Draw examples of linear models whose true weights change in a random walk.

    Returns:
      Inputs [seeds, T, d], targets [seeds, T] and true weights [seeds, T, d].
    """
    streams = []
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        numbers = np.random.default_rng(seed)
        shape = config.steps, INPUTS
        w = np.cumsum(WALK * numbers.normal(size=shape), axis=0)
        x = numbers.normal(size=shape)
        y = np.sum(x * w, axis=1) + NOISE * numbers.normal(size=config.steps)
        streams.append((x, y, w))
    xs, ys, ws = map(np.stack, zip(*streams, strict=True))
    return jnp.asarray(xs), jnp.asarray(ys), ws


def _walk_row(config: Config, name: str, way: Way) -> dict[str, Any]:
    """Run a method on all random walks; return its row of results.

    The row has mean squared errors for each learning rate and seed. For a picture, the
    row also has the values of one weight over time.
    """
    del way
    xs, ys, truth = walks(config)
    rates = np.array([*config.rates, *CURVE])
    means, paths = _follow_walks(config, name, xs, ys, rates)
    cut = len(config.rates)
    errors = {
        f"{rate:g}": [mean if np.isfinite(mean) else None for mean in by_seed]
        for rate, by_seed in zip(config.rates, means.T[:cut], strict=True)
    }
    curve = means[:, cut:].mean(axis=0)
    shown = int(np.argsort(config.rates)[(cut - 1) // 2])
    return {
        "stream": "random walk",
        "method": name,
        "decay": config.decay,
        "errors": errors,
        "curve": [mean if np.isfinite(mean) else None for mean in curve],
        "path": {
            "learning_rate": config.rates[shown],
            "truth": truth[0, :, 0].round(4).tolist(),
            "weight": np.clip(paths[0, shown], -9, 9).round(4).tolist(),
        },
    }


def _follow_walks(config, name, xs, ys, rates) -> tuple[np.ndarray, np.ndarray]:
    """Return mean squared errors [seeds, rates], and the first weight after each step.

    The first weight has the shape [seeds, rates, T]. An error is inf if it is not below
    the error of always predicting 0.
    """
    decay = jnp.asarray(config.decay)

    def run(x, y, rate):
        errors, ws = follow(name, x, y, rate, decay, config.horizon)
        return errors, ws[:, 0]

    over_rates = jax.vmap(run, in_axes=(None, None, 0))
    over_seeds = jax.vmap(over_rates, in_axes=(0, 0, None))
    errors, paths = over_seeds(xs, ys, jnp.asarray(rates))
    late = np.arange(config.steps) >= config.burn_in
    means = rms(np.asarray(errors, float), late) ** 2
    none = rms(np.asarray(ys, float), late)[:, None] ** 2
    paths = np.nan_to_num(np.asarray(paths, float))
    return np.where(means < none, means, np.inf), paths


def _weather(config: Config) -> tuple[data.SeattleWeather | None, str]:
    """Return the weather data, or None and the reason why the data are left out."""
    if not config.weather:
        return None, "as asked (--no-weather)"
    try:
        return data.seattle_weather(), ""
    except DataError as problem:  # no local copy of the data, and no download
        return None, str(problem)


def _weather_row(
    config: Config, weather: data.SeattleWeather, inputs: str, name: str, way: Way
) -> dict[str, Any]:
    """Return the errors of a method's temperature forecasts in °C, one for each day.

    The learning rate and the forgetting factor are those with the lowest error in the
    year `CHOSEN`.
    """
    del way
    xs, ys, scale = tomorrow(weather, SHOWN[inputs])
    days = weather.dates[1:]
    years = days.astype("datetime64[Y]").astype(str)
    if name == "persistence":
        errors, setting = np.diff(weather.temp_max), {}
    elif name == "fixed":  # a single fit by least squares to all years before SCORED
        before = years < SCORED
        w = np.linalg.lstsq(xs[before], ys[before], rcond=None)[0]
        errors, setting = scale * (ys - xs @ w), {}
    else:
        grid, settings = _grid(name, xs, ys, config.horizon)
        best = int(np.argmin(rms(grid, years == CHOSEN)))
        errors, setting = scale * grid[best], settings[best]
    scored, quarters = years == SCORED, days.astype("datetime64[M]").astype(int) % 12
    row = {"stream": "seattle", "inputs": inputs, "method": name, **setting}
    row |= {year: float(rms(errors, years == year)) for year in (CHOSEN, SCORED)}
    row["seasons"] = {
        season: float(rms(errors, scored & (quarters // 3 == i)))
        for i, season in enumerate(_drift_report.SEASONS)
    }
    row["days"], row["errors"] = days.astype(str).tolist(), errors.round(3).tolist()
    return row


def _grid(name, xs, ys, horizon) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Return the errors of a method with each setting, [settings, T], and all settings.

    A setting is a pair of a learning rate and a forgetting factor.
    """
    rates = RATES if name != "rls" else RATES[:1]  # rls has no learning rate
    decays = DECAYS if name != "sgd" else DECAYS[:1]
    examples = jnp.asarray(xs), jnp.asarray(ys)
    errors = over_grid(name, *examples, jnp.array(rates), jnp.array(decays), horizon)
    errors = np.asarray(errors, float)  # [forgetting factors, learning rates, T]
    settings = [
        ({} if name == "rls" else {"learning_rate": rate})
        | ({} if name == "sgd" else {"decay": decay})
        for decay in decays
        for rate in rates
    ]
    return errors.reshape(len(settings), -1), settings


def tomorrow(
    weather: data.SeattleWeather, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return inputs, the next day's maximum temperatures, and their scale in °C.

    The inputs [T, 1 + names] are a constant 1 and the weather columns in `names`. All
    weather columns, and the maximum temperatures [T], are standardised by their means
    and standard deviations in the first year, 2012. The scale is the standard deviation
    of the maximum temperature in this year.
    """
    first = weather.dates < np.datetime64("2013-01-01")
    columns = {name: getattr(weather, name) for name in {*names, "temp_max"}}
    if "precipitation" in columns:
        columns["precipitation"] = np.log1p(columns["precipitation"])
    scaled = {
        name: (column - column[first].mean()) / column[first].std()
        for name, column in columns.items()
    }
    xs = np.column_stack([np.ones(len(first)), *(scaled[name] for name in names)])
    return xs[:-1], scaled["temp_max"][1:], float(weather.temp_max[first].std())


def rms(errors: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the root mean square error over the chosen steps; NaN becomes inf."""
    with np.errstate(all="ignore"):
        mean = np.sqrt(np.mean(np.square(errors[..., chosen]), axis=-1))
    return np.nan_to_num(mean, nan=np.inf)
