"""Study `forecast`: sunspots, weather, prices, or a series of one's own.

Each network says a value and an interval of 90 % for several horizons at each step, and
is set beside forecasts that anybody can make, in a walk forward: what is said at a step
is by a network that has seen nothing after it. On prices a test of Diebold and Mariano
says whether there is any skill.
"""

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import choices, report
from experiments.applications.forecast import (
    baselines,
    learn,
    network,
    online,
    pictures,
    report as forecast_report,
    scores,
    user_csv,
)
from experiments.applications.forecast.series import prepare, SERIES, Series
from experiments.harness import options
from experiments.harness.jobs import check_resume, Job, open_run, run_jobs, Way

METHODS = (
    "bptt:adam",
    "truncated_bptt:adam",
    "bptt:irprop_minus",
    "rtrl:forgetting_normalised",
    "snap_1:forgetting_normalised",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Forecast series by recurrent networks, beside baselines of the same run."""

    sets: tuple[str, ...] = tuple(SERIES)
    """Of sunspots, seattle, nyc, sp500 and vix."""
    methods: tuple[str, ...] | None = None
    """As rule:update, by name; online rules, rtrl and others, learn at every step. By
    default five of them, and bptt:adam for a file of one's own."""
    csv: str | None = None
    """A CSV file to forecast a column of, in the place of sets."""
    column: str | None = None
    """The name of that column."""
    horizon: int = 12
    """How many rows ahead to forecast it."""
    season: int | None = None
    """After how many rows it repeats itself, if it does."""
    cell: str = "gru"
    """gru, lstm, rtu or tanh."""
    units: int = 12
    """Of the cell."""
    lookback: int = 8
    """How many steps errors travel back, by rules that truncate."""
    steps: int = 240
    """Updates by mini-batches at most; the validation part says how many."""
    full_batch_steps: int = 60
    """Updates by the full batch at most."""
    looks: int = 30
    """How often to look at the validation part."""
    batch: int = 32
    """Windows of a mini-batch, drawn at random."""
    warm: int = 32
    """Steps of a window before the first that counts."""
    span: int = 32
    """Steps of a window that count."""
    learning_rate: float | None = None
    """Of updates by windows; by default that of each, 0.005 for adam."""
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    """Learning rates at every step; the validation part says which."""
    decay: float = 0.9
    """Forgetting factor of past gradients, at every step."""
    passes: int = 5
    """How often to go through the training part, learning at every step."""
    blocks: int = 1
    """Parts of the test part, for each of which networks are trained anew on all that
    is before it; baselines, and rules that learn at every step, are not."""
    seeds: int = 3
    """Networks of each kind, under vmap."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    quick: bool = False
    """A small form of it, in less than half a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not done again."""
    out: Path | None = None
    """Folder to write to; by default runs/forecast-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("horizon", "season", "units", "lookback", "steps", "full_batch_steps")
        sizes += ("looks", "batch", "warm", "span", "passes", "blocks", "seeds")
        options.check_at_least_one(self, *sizes)
        options.check_known("sets", self.sets, SERIES)
        options.check_known("cell", self.cell, network.CELLS)
        for method in self.methods or ():
            _check_method(method)
        if (self.csv is None) != (self.column is None):
            raise ValueError(
                f"csv and column go together, a file and the name of a column in it; "
                f"got csv={self.csv!r} and column={self.column!r}."
            )
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be positive, got {self.rates}.")
        rate = self.learning_rate
        if rate is not None and not rate > 0:
            raise ValueError(f"learning_rate must be positive, got {rate}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in 0 <= decay < 1, got {self.decay}.")
        check_resume(self)


def _check_method(method: str) -> None:
    """Check that a method is a rule and an update that go together."""
    rule, colon, update = method.partition(":")
    if not colon:
        raise ValueError(
            f"methods must be like rule:update, such as bptt:adam; got {method!r}."
        )
    known = (*choices.RULES, "snap_1", "snap_2")
    options.check_known("methods: the rule", rule, known)
    options.check_known("methods: the update", update, choices.UPDATES)
    if online.is_online(rule) and learn.is_whole(update):
        raise ValueError(
            f"methods: {update} is for full batches, and {rule} learns at every step; "
            f"choose {rule}:forgetting_normalised, or bptt:{update}."
        )


def main(config: Config) -> report.Result:
    """Forecast all series by all methods, show tables and pictures, and write them."""
    config = options.at_quick_size(
        config, sets=("seattle",), methods=("bptt:adam",), steps=80, looks=8, seeds=1
    )
    load, start = cache(_load), time.perf_counter()
    config, folder = open_run("forecast", config, check=load)
    found, left_out = load(config)
    jobs = [job for series in found.values() for job in _jobs(config, series)]
    rows, interrupted = run_jobs(folder, jobs)
    for name, series in found.items():
        mine = [row for row in rows if row["set"] == name]
        if mine:
            forecast_report.show(series, mine)
            pictures.save(folder, series, mine)
    for name, why in left_out.items():
        report.show_table(f"{name} is left out", ["", "why"], [[name, why]])
    if "csv" in found:
        _write_own(folder, found["csv"], rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _own(config: Config) -> Series:
    """Return the series of a file, or leave with what is wrong with it."""
    assert config.csv is not None
    assert config.column is not None
    given = Path(config.csv), config.column, config.horizon, config.season
    try:
        series = user_csv.read_series(*given)
        prepare(series)
        learn.check_known(series, config.blocks)
    except ValueError as error:
        raise SystemExit(f"--csv: {error}") from error
    return series


def _load(config: Config) -> tuple[dict[str, Series], dict[str, str]]:
    """Return the series that are there, and why others are not."""
    if config.csv is not None:
        return {"csv": _own(config)}, {}
    found, left_out = {}, {}
    for name in config.sets:
        try:
            found[name] = SERIES[name]()
        except SystemExit as problem:  # no network, and no copy at hand
            left_out[name] = str(problem)
    if not found:
        raise SystemExit("\n".join(left_out.values()))
    return found, left_out


def _jobs(config: Config, series: Series) -> list[Job]:
    """Return the baselines of a series, then the networks."""
    prepared = cache(partial(prepare, series))
    seasonal = series.phase.min() >= 0
    names = [name for name in baselines.BASELINES if name != "seasonal" or seasonal]
    jobs = [
        Job(f"{series.name}-{name}", 1, partial(_baseline, name, series, prepared))
        for name in names
    ]
    default = METHODS if config.csv is None else METHODS[:1]
    for method in config.methods or default:
        rule, _, update = method.partition(":")
        whole = learn.is_whole(update)
        steps = config.full_batch_steps if whole else config.steps
        train = partial(_network, config, rule, update, series, prepared)
        job = f"{series.name}-{rule}-{update}"
        jobs.append(Job(job, 1 if online.is_online(rule) else steps, train))
    return jobs


def _baseline(name: str, series: Series, prepared, way: Way) -> dict[str, Any]:
    """Score a forecast that anybody can make."""
    said = baselines.forecast(name, series, prepared())
    first = series.test - 1
    way.advance(1)
    row = {"set": series.name, "method": name}
    return row | scores.score(series, prepared(), said[None, first:], first)


def _network(
    config: Config, rule: str, update: str, series, prepared, way: Way
) -> dict[str, Any]:
    """Train networks of all seeds, and score what they say of the test part."""
    given = rule, update, series, prepared()
    if online.is_online(rule):
        learned = online.at_every_step(config, *given, way)
    else:
        learned = learn.by_windows(config, *given, way)
    said = scores.in_units(prepared(), learned.said, learned.first)
    row = {"set": series.name, "method": f"{rule}:{update}", "cell": config.cell}
    row |= {"units": config.units, **learned.row}
    row |= scores.score(series, prepared(), said, learned.first)
    if series.name == "csv":
        row["forecast"] = said[:, -1].mean(axis=0).tolist()
    return row


def _write_own(folder: Path, series: Series, rows: list[dict]) -> None:
    """Write the forecast of the first network as a CSV file, and draw it."""
    said = next((row["forecast"] for row in rows if "forecast" in row), None)
    if said is not None and report.writes():
        path = folder / "forecast.csv"
        user_csv.write_forecast(path, len(series.values), np.array(said))
        figure = pictures.draw_own(series, np.array(said))
        report.save_picture(folder, "forecast", figure)
