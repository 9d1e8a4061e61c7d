"""Study `forecast`: sunspots, weather, prices, or the column of a CSV file.

At each step a network forecasts a value and a 90 % interval for several horizons. The
network that forecasts from a step has seen no value after this step. Baselines are
persistence, seasonal and linear forecasts. On prices, the test of Diebold and Mariano
decides whether a forecast is better than a trivial reference forecast.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path

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
from experiments.data.tables import DECIMALS
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
from experiments.harness.study import run_study, Study

METHODS = (
    "bptt:adam",
    "truncated_bptt:adam",
    "bptt:irprop_minus",
    "rtrl:forgetting_normalised",
    "snap_1:forgetting_normalised",
)


@dataclasses.dataclass(frozen=True)
class Config(Study):
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
    as rtrl, learn at every time step. By default five pairs; for a CSV file, only
    bptt:adam."""
    csv: str | None = None
    """A CSV file with a column to forecast; the series in `sets` are then not used."""
    column: str | None = None
    """Name of the column to forecast or, if the file has no names of columns, its
    position, counted from 1."""
    inputs: tuple[str, ...] = ()
    """Other columns of the file to add to the inputs of the networks."""
    delimiter: str | None = None
    """Character between fields of the file; by default inferred from the file."""
    decimal: str | None = None
    """Decimal mark in the file, . or , (by default inferred from the file)."""
    encoding: str | None = None
    """Encoding of the file, such as utf-8 or cp1252 (by default inferred)."""
    horizon: int = 12
    """The column of the CSV file is forecast from 1 to this many rows ahead."""
    season: int | None = None
    """Period of the column's season in rows, if it has one."""
    cell: str = "gru"
    """Kind of the recurrent layer: gru, lstm, rtu or tanh."""
    units: int = 12
    """Number of units of the recurrent layer."""
    lookback: int = 8
    """Number of time steps that gradients are propagated back, for rules that
    truncate."""
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
    """Number of time steps with a loss in a window, after those without a loss."""
    learning_rate: float | None = None
    """Learning rate of gradient rules that train on windows; the default depends on the
    update rule."""
    rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    """Learning rates to try for online rules; the one with the lowest validation loss
    is used."""
    decay: float = 0.9
    """Forgetting factor for past gradients, for online rules."""
    passes: int = 5
    """Number of passes of online rules through the training part."""
    blocks: int = 1
    """Number of blocks that the test part is divided into. For each block, networks are
    trained anew on all steps before the block; baselines and online rules are not."""
    seeds: int = 3
    """Number of networks of each kind, with different initial weights, trained under
    vmap."""

    def check(self) -> None:
        """Check the methods, and that the options csv and column are given together."""
        for method in self.methods or ():
            _check_method(method)
        if (self.csv is None) != (self.column is None):
            raise ValueError(
                f"csv and column go together: a file and the name of a column in it; "
                f"got csv={self.csv!r} and column={self.column!r}."
            )
        if self.decimal is not None:
            check_known("decimal", self.decimal, DECIMALS)
        if self.csv is None:
            for name in ("inputs", "delimiter", "decimal", "encoding"):
                if value := getattr(self, name):
                    raise ValueError(
                        f"{name} is for a file given by csv, got {value!r} without one."
                    )


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
    for name, series in found.items():
        mine = [row for row in rows if row["set"] == name]
        if mine:
            forecast_report.show(series, mine)
            pictures.save(folder, series, mine)
    for name, why in left_out.items():
        report.show_table(f"{name} is left out", ["", "why"], [[name, why]])
    if "csv" in found:
        _write_own(folder, found["csv"], rows)


def _own(config: Config) -> Series:
    """Return the series of the CSV file.

    Raises:
      DataError: if the file has no such column, or the column cannot be forecast.
    """
    assert config.csv is not None
    assert config.column is not None
    given = Path(config.csv), config.column, config.horizon, config.season
    how = {
        name: getattr(config, name)
        for name in ("inputs", "delimiter", "decimal", "encoding")
    }
    try:
        series = user_csv.read_series(*given, **how)
        prepare(series)
        learn.check_known(series, config.blocks)
    except ValueError as error:
        raise DataError(f"--csv: {error}") from error
    for note in series.notes:
        print(f"--csv: {note}")
    return series


def _load(config: Config) -> tuple[dict[str, Series], dict[str, str]]:
    """Return series that could be loaded, and error messages for all other series."""
    if config.csv is not None:
        return {"csv": _own(config)}, {}
    found, left_out = {}, {}
    for name in config.sets:
        try:
            found[name] = SERIES[name]()
        except DataError as problem:  # not in the cache, and not downloadable
            left_out[name] = str(problem)
    if not found:
        raise DataError("\n".join(left_out.values()))
    return found, left_out


def _jobs(config: Config, series: Series) -> list[Job]:
    """Return the jobs of a series: first the baselines, then the networks."""
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


def _baseline(name: str, series: Series, prepared, way: Way) -> Row:
    """Score a baseline on the test part."""
    said = baselines.forecast(name, series, prepared())
    first = series.test - 1
    way.advance(1)
    row = {"set": series.name, "method": name}
    return row | scores.score(series, prepared(), said[None, first:], first)


def _network(config: Config, rule: str, update: str, series, prepared, way: Way) -> Row:
    """Train networks from all seeds, and score their forecasts of the test part."""
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


def _write_own(folder: Path, series: Series, rows: list[Row]) -> None:
    """Draw the forecast of the first network method, and write it as a CSV file."""
    said = next((row["forecast"] for row in rows if "forecast" in row), None)
    if said is not None and report.writes():
        path = folder / "forecast.csv"
        user_csv.write_forecast(path, len(series.values), np.array(said))
        figure = pictures.draw_own(series, np.array(said))
        report.save_picture(folder, "forecast", figure)
