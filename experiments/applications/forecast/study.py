"""Study `forecast`: sunspots, weather, prices, or the column of a CSV file.

At each step a network forecasts a value and a 90 % interval for several horizons. The
network that forecasts from a step has seen no value after this step. Baselines are
persistence, seasonal and linear forecasts. For a CSV file, all methods compete on the
validation part, and the winner forecasts the rows after the end of the file. On prices,
the test of Diebold and Mariano decides whether a forecast is better than a trivial
reference forecast.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from experiments import choices, report
from experiments.applications.forecast import (
    baselines,
    learn,
    network,
    online,
    own,
    pictures,
    report as forecast_report,
    scores,
)
from experiments.applications.forecast.series import prepare, Prepared, SERIES, Series
from experiments.data.tables import DATES, DECIMALS
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import (
    above,
    all_of,
    at_least,
    check_known,
    given,
    known,
    within,
)
from experiments.harness.study import run_study, TrainingStudy

METHODS = (
    "bptt:adam",
    "truncated_bptt:adam",
    "bptt:irprop_minus",
    "rtrl:forgetting_normalised",
    "snap_1:forgetting_normalised",
)


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """Do recurrent networks forecast series better than simple baselines?"""

    QUICK = {
        "sets": ("seattle",), "methods": ("bptt:adam",), "steps": 80, "looks": 8,
        "seeds": 1,
    }  # fmt: skip
    CHECKS = {
        "horizon season units lookback steps full_batch_steps looks": at_least(1),
        "batch warm span passes blocks": at_least(1),
        "sets": known(SERIES),
        "cell": known(network.CELLS),
        "rates": all_of(given, above(0)),
        "learning_rate": above(0),
        "decay": within(0, 1, ends="[)"),
    }

    FILES = ("csv",)

    sets: tuple[str, ...] = tuple(SERIES)
    """Series: sunspots, seattle, nyc, sp500 and vix."""
    methods: tuple[str, ...] | None = None
    """Pairs of gradient rule and update rule, written rule:update. Online rules, such
    as rtrl, learn at every time step. By default five pairs; for a CSV file, two."""
    csv: str | None = None
    """A CSV file with a column to forecast; the series in `sets` are then not used."""
    column: str | None = None
    """Name of the column to forecast or, if the file has no names of columns, its
    position, counted from 1. A file with one column of numbers needs no name."""
    target: str | None = None
    """Another name of the option `column`."""
    inputs: tuple[str, ...] = ()
    """Other columns of the file that networks and ridge regression read; `all` is for
    all other columns of numbers."""
    delimiter: str | None = None
    """Character between fields of the file; by default inferred from the file."""
    decimal: str | None = None
    """Decimal mark in the file, . or , (by default inferred from the file)."""
    encoding: str | None = None
    """Encoding of the file, such as utf-8 or cp1252 (by default inferred)."""
    header: int | None = None
    """Number of rows with names of columns, 0 if there are none (by default
    inferred)."""
    dates: str | None = None
    """Reading of dates such as 01/02/2020: day-first or month-first (by default
    inferred, and reported)."""
    horizon: int = 12
    """Largest number of rows ahead to forecast the column of the CSV file."""
    season: int | None = None
    """Period of the column's season in rows, 1 for none; by default inferred from the
    step of the times."""
    cell: str = "gru"
    """Kind of the recurrent layer: gru, lstm, rtu or tanh."""
    units: int = 12
    """Number of units of the recurrent layer."""
    lookback: int = 8
    """Number of time steps that truncated gradient rules go back."""
    steps: int = 240
    """Largest number of mini-batch updates; the validation loss decides how many are
    used."""
    full_batch_steps: int = 60
    """Largest number of full-batch updates; the validation loss decides how many are
    used."""
    looks: int = 30
    """Number of times that the validation part is scored during training."""
    batch: int = 32
    """Number of windows in a mini-batch, drawn at random."""
    warm: int = 32
    """Number of time steps at the beginning of a window that have no loss."""
    span: int = 32
    """Number of time steps with a loss in a window, after its steps without a loss."""
    learning_rate: float | None = None
    """Learning rate of gradient rules that train on windows; the default depends on the
    update rule."""
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    """Learning rates to try for online rules; the rate with the lowest validation loss
    is used."""
    decay: float = 0.9
    """Forgetting factor for past gradients, for online rules."""
    passes: int = 5
    """Number of passes of online rules through the training part."""
    blocks: int = 1
    """Number of blocks that the test part is divided into. For each block, new networks
    are trained on all steps before the block. Baselines and online rules are trained
    only once."""
    seeds: int = 3
    """Number of networks of each kind, with different initial weights, trained under
    vmap."""

    def check(self) -> None:
        """Check the methods, and that options for a file are given with a file."""
        for method in self.methods or ():
            _check_method(method)
        for name, known_values in {"decimal": DECIMALS, "dates": DATES}.items():
            if (value := getattr(self, name)) is not None:
                check_known(name, value, known_values)
        own.check(self)


def _check_method(method: str) -> None:
    """Check that a method is a gradient rule and an update rule that fit together."""
    rule, colon, update = method.partition(":")
    if not colon:
        raise ValueError(
            f"methods must be like rule:update, such as bptt:adam; got {method!r}."
        )
    check_known("methods: the rule", rule, (*choices.RULES, "snap_1", "snap_2"))
    check_known("methods: the update", update, choices.UPDATES)
    if online.is_online(rule) and learn.is_whole(update):
        raise ValueError(
            f"methods: {update} is for full batches, and {rule} learns at every step; "
            f"choose {rule}:forgetting_normalised, or bptt:{update}."
        )


def main(config: Config) -> report.Result:
    """Forecast all series by all methods; print and write tables and pictures."""
    load = cache(_load)
    jobs, finish = partial(_all_jobs, load=load), partial(_finish, load=load)
    return run_study("forecast", config, jobs, finish, check=load)


def _all_jobs(config: Config, load) -> list[Job]:
    found, _ = load(config)
    return [job for series in found.values() for job in _jobs(config, series)]


def _finish(folder: Path, config: Config, rows: list[Row], load) -> None:
    found, left_out = load(config)
    answer = ""  # of a user's file: first on the page, and last in the terminal
    if own.is_own(config):
        answer = own.finish(folder, config, found["csv"], rows)
    for name, series in found.items():
        mine = [row for row in rows if row["set"] == name]
        if mine:
            forecast_report.show(series, mine)
            pictures.save(folder, series, mine)
    for name, why in left_out.items():
        report.show_table(f"{name} is left out", ["", "why"], [[name, why]])
    if answer and report.writes():
        told = f"[bold]{escape(answer)}\n"
        report.wide_console(recorded=False).print(told, highlight=False)


def _load(config: Config) -> tuple[dict[str, Series], dict[str, str]]:
    """Return series that could be loaded, and error messages for all other series."""
    if config.csv is not None:
        return {"csv": own.read(config)}, {}
    found, left_out = {}, {}
    for name in config.sets:
        try:
            found[name] = SERIES[name]()
        except DataError as problem:  # neither cached nor downloadable
            left_out[name] = str(problem)
    if not found:
        raise DataError("\n".join(left_out.values()))
    return found, left_out


def _jobs(config: Config, series: Series) -> list[Job]:
    """Return the jobs of a series: first the baselines, then the networks."""
    prepared = cache(partial(prepare, series))
    jobs = [
        Job(f"{series.name}-{name}", 1, partial(_baseline, name, series, prepared))
        for name in baselines.names(series)
    ]
    default = own.METHODS if own.is_own(config) else METHODS
    for method in config.methods or default:
        rule, _, update = method.partition(":")
        whole = learn.is_whole(update)
        steps = config.full_batch_steps if whole else config.steps
        train = partial(_network, config, rule, update, series, prepared)
        job = f"{series.name}-{rule}-{update}"
        jobs.append(Job(job, 1 if online.is_online(rule) else steps, train))
    return jobs


def _baseline(name: str, series: Series, prepared, way: Way) -> Row:
    """Score a baseline on the validation and the test part."""
    said, fitted = baselines.walk(name, series, prepared())
    way.advance(1)
    row = {"set": series.name, "method": name}
    return row | _scores(series, prepared(), said[None], fitted.arrays)


def _network(config: Config, rule: str, update: str, series, prepared, way: Way) -> Row:
    """Train networks from all seeds, and score their forecasts.

    For a CSV file, the mean of the forecasts of all seeds is scored.
    """
    given = rule, update, series, prepared()
    if online.is_online(rule):
        learned = online.at_every_step(config, *given, way)
    else:
        learned = learn.by_windows(config, *given, way)
    said = scores.in_units(prepared(), learned.said, learned.first)
    if own.is_own(config):
        said = said.mean(axis=0, keepdims=True)
    row = {"set": series.name, "method": f"{rule}:{update}", "cell": config.cell}
    row |= {"units": config.units, **learned.row}
    return row | _scores(series, prepared(), said, learned.params)


def _scores(series: Series, prepared: Prepared, said: np.ndarray, arrays: Any) -> Row:
    """Return the scores of forecasts, and for a CSV file what the contest needs."""
    first = series.validation - 1
    row = scores.score(series, prepared, said, first)
    if series.name == "csv":
        row |= own.fields(series, prepared, said, first, arrays)
    return row
