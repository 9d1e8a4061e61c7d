"""Study `drift`: the forgetting factor on targets that change while they are learned.

First a linear model whose weights walk at random, beside figures measured outside of
this project; then the weather of Seattle, tomorrow's maximum from today's numbers.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data, report
from experiments.forgetting import _drift_report
from experiments.forgetting._online_regression import follow, METHODS, over_grid

INPUTS, WALK, NOISE = 5, 0.01, 0.05
CHOSEN, SCORED = "2014", "2015"  # the year to choose η and λ on, that to report
CURVE = np.geomspace(0.02, 1.5, 40)  # learning rates of the picture
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DECAYS = (0.5, 0.9, 0.97, 0.99, 0.995, 0.999)
SHOWN = {
    "all": ("precipitation", "temp_max", "temp_min", "wind"),
    "no temperatures": ("precipitation", "wind"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Follow a linear model under drift with and without a forgetting factor."""

    seeds: int = 5
    """How many random walks, under vmap."""
    steps: int = 2000
    """Length of each walk."""
    burn_in: int = 200
    """How many steps at the start are left out of the mean error."""
    rates: tuple[float, ...] = (0.05, 0.2, 0.5, 1.0)
    """Learning rates η; sums of past gradients are stepped along by η (1 − λ)."""
    decay: float = 0.9
    """Forgetting factor λ of the walks; for the weather it is chosen from a grid."""
    horizon: int = 20
    """How many examples are replayed, W."""
    weather: bool = True
    """Whether to take the weather too, which is fetched once if it is not there."""
    out: Path | None = None
    """Folder to write to; by default runs/drift-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("seeds", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if not 0 <= self.burn_in < self.steps:
            raise ValueError(
                f"burn_in must be within 0 <= burn_in < steps = {self.steps}, got "
                f"{self.burn_in}."
            )
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must be within 0 < decay < 1, got {self.decay}.")
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be positive, got {self.rates}.")


def main(config: Config) -> report.Result:
    """Follow all streams, show tables, and write them to a folder with pictures."""
    folder = report.make_folder("drift", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    weather, left_out = _weather(config)
    jobs = {
        f"random walk, {name}": partial(_walk_row, config, name) for name in METHODS
    }
    if weather is not None:
        for inputs in SHOWN:
            for name in (*METHODS, "persistence", "fixed"):
                job = partial(_weather_row, config, weather, inputs, name)
                jobs[f"Seattle, {inputs}, {name}"] = job
    try:
        with report.Progress(len(jobs)) as progress:
            for what, job in jobs.items():
                progress.begin(what, 1)
                rows.append(job())
                report.append_row(folder, rows[-1])
                progress.advance(1)
    except KeyboardInterrupt:
        interrupted = True
    _drift_report.show_walk(rows, config)
    _drift_report.show_weather(rows, left_out)
    if rows and not interrupted:
        picture = _drift_report.draw_walk(rows, CURVE)
        report.save_picture(folder, "drift", picture)
        if weather is not None:
            report.save_picture(folder, "seattle", _drift_report.draw_weather(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def walks(config: Config) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Return xs [seeds, T, d], ys [seeds, T] and the true weights [seeds, T, d]."""
    streams = []
    for seed in range(config.seeds):
        numbers = np.random.default_rng(seed)
        shape = config.steps, INPUTS
        w = np.cumsum(WALK * numbers.normal(size=shape), axis=0)
        x = numbers.normal(size=shape)
        y = np.sum(x * w, axis=1) + NOISE * numbers.normal(size=config.steps)
        streams.append((x, y, w))
    xs, ys, ws = map(np.stack, zip(*streams, strict=True))
    return jnp.asarray(xs), jnp.asarray(ys), ws


def _walk_row(config: Config, name: str) -> dict[str, Any]:
    """Return mean squared errors of each seed, for each learning rate, and a path."""
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
    """Return mean squared errors [seeds, η] and first weights [seeds, η, T].

    Errors are inf where predictions of 0 are better.
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
    """Return the data, or why they are left out."""
    if not config.weather:
        return None, "as asked (--no-weather)"
    try:
        return data.seattle_weather(), ""
    except SystemExit as problem:  # no network, and no copy at hand
        return None, str(problem)


def _weather_row(
    config: Config, weather: data.SeattleWeather, inputs: str, name: str
) -> dict[str, Any]:
    """Return daily errors, in °C, at the η and λ that were best in CHOSEN."""
    xs, ys, scale = tomorrow(weather, SHOWN[inputs])
    days = weather.dates[1:]
    years = days.astype("datetime64[Y]").astype(str)
    if name == "persistence":
        errors, setting = np.diff(weather.temp_max), {}
    elif name == "fixed":  # least squares on all that is before the year scored
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
    """Return errors [settings, T] and the settings."""
    rates = RATES if name != "rls" else RATES[:1]  # which has none
    decays = DECAYS if name != "sgd" else DECAYS[:1]
    examples = jnp.asarray(xs), jnp.asarray(ys)
    errors = over_grid(name, *examples, jnp.array(rates), jnp.array(decays), horizon)
    errors = np.asarray(errors, float)  # [λ, η, T]
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
    """Return inputs [T, 1 + names], the next day's maximum [T], and its unit in °C.

    All are in units of their deviation from the mean of the first year, 2012.
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
    """Return the root of the mean square over chosen days, inf where it diverged."""
    with np.errstate(all="ignore"):
        mean = np.sqrt(np.mean(np.square(errors[..., chosen]), axis=-1))
    return np.nan_to_num(mean, nan=np.inf)
