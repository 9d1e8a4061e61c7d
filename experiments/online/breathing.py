"""Online forecasts of breathing: where do markers on the chest move within 2.1 s?

Nine sequences of three markers on the chest and abdomen of breathing people are
forecast from 0.1 to 2.1 s ahead, by networks that learn after every sample and by
linear models. The first minute is for training, and its second half for the choice of
the settings of each sequence and horizon. Learning goes on while the rest is forecast
and scored. The score is the nRMSE: the root of the squared error divided by the squared
distance from the mean position.

The study answers a question about published results, too. The published program updates
its weights with the target of a forecast right after this forecast, when the target
still lies in the future. So the study has two protocols:

- measured: a target is learned from when its sample has been measured. Only this is a
  forecast.
- at once: the weights learn from the target at once, as in the published program. The
  forecast for time t + h is made with weights that know the samples up to t + h − 1.

Published: M. Pohl et al., arXiv 2403.01607.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpvariants import gradients
from bpvariants.types import OnlineRule
from experiments import report
from experiments.choices import make_online
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given, known, within
from experiments.harness.study import run_study, Study
from experiments.networks.cells import visible
from experiments.online import (
    _breathing_methods as methods,
    _breathing_networks as networks,
    _breathing_report,
    _breathing_series as breathing_series,
)
from experiments.online._breathing_methods import Forecasts
from experiments.online._breathing_series import Series
from experiments.online._streaming_methods import truncated

LOOKBACK = 5  # of truncated BPTT
PRIOR = 0.01  # of recursive least squares
# {name: (cell, online rule)}. The leaky units give RFLO a path through time; e-prop
# needs a cell with an internal state.
RULES: dict[str, tuple[str, Callable[..., OnlineRule]]] = {
    "lms": ("linear", gradients.rtrl),
    "snap_1": ("tanh", partial(make_online, "snap_1")),
    "uoro": ("tanh", gradients.uoro),
    "truncated_bptt": ("tanh", truncated(LOOKBACK)),
    "rflo": ("leaky", gradients.rflo),
    "rtrl": ("tanh", gradients.rtrl),
    "eprop": ("lstm", partial(make_online, "eprop", visible=visible("lstm"))),
}
SLOW = ("rtrl", "eprop")  # rules whose networks have `few` units
HERE = 10.0  # the rate at which all methods run
# Methods at the other rates, and on smoothed series.
AT_RATES = ("ridge", "rls", "known targets", "snap_1", "uoro")
SMOOTHED = ("rls", "snap_1")
PROTOCOLS = ("measured", "at once")
SHOWN = 300  # samples in the picture of forecasts


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Do networks that learn online forecast breathing better than linear models?"""

    QUICK = {"rules": ("lms", "snap_1"), "rates": (HERE,), "smoothing": ()}
    QUICK |= {"sequences": 2, "units": 8, "learning_rates": (0.01, 0.04), "seeds": 1}
    CHECKS = {
        "rules": all_of(given, known(RULES)),
        "rates": all_of(given, above(1)),
        "smoothing": known(("causal", "centred")),
        "learning_rates": all_of(given, above(0)),
        "decays": all_of(given, within(0, 1, ends="(]")),
        "penalties": all_of(given, above(0)),
        "lags units few": at_least(1),
        "sequences": all_of(at_least(1), within(1, 9)),
    }

    rules: tuple[str, ...] = tuple(RULES)
    """Online rules: lms (a linear model), snap_1, uoro, truncated_bptt and rtrl (tanh),
    rflo (leaky tanh units) and eprop (LSTM)."""
    rates: tuple[float, ...] = (10 / 3, HERE, 30.0)
    """Samples per second. At 10, all methods run; at other rates, ridge,
    recursive least squares, snap_1 and uoro."""
    smoothing: tuple[str, ...] = ("causal", "centred")
    """Smoothed series to forecast at 10 samples per second, besides the series as it
    is: means of five samples, all earlier (causal) or two of them later (centred)."""
    sequences: int = 9
    """Number of sequences, the shortest first."""
    horizons: Literal[7, 21] = 7
    """Number of horizons. The 7 horizons are the middles of three of the 21 each."""
    lags: int = 12
    """Number of samples that a method reads, 0.1 s apart; at 3.33 samples per second, a
    third of this number."""
    units: int = 40
    """Number of hidden units."""
    few: int = 8
    """Number of hidden units for rtrl and eprop, which need more time."""
    learning_rates: tuple[float, ...] = (0.002, 0.005, 0.01, 0.03, 0.08, 0.2)
    """Learning rates to choose from; those of lms are a tenth."""
    decays: tuple[float, ...] = (0.97, 0.99, 1.0)
    """Forgetting factors per 0.1 s of recursive least squares to choose from."""
    penalties: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Penalties of ridge regression to choose from."""
    seeds: int = 1
    """Number of networks with different initial weights."""


def main(config: Config) -> report.Result:
    """Run all methods on all series; print errors beside published errors."""
    return run_study("breathing", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    """Return a job for each series, protocol and method."""
    load = cache(partial(breathing_series.series, sequences=config.sequences))
    jobs = []
    for rate, smoothing, protocol, name in plan(config):
        label = f"{rate:.3g} Hz, {smoothing}, {protocol}, {name}"
        arguments = rate, smoothing, protocol, name
        jobs.append(Job(label, 1, partial(_row, config, load, *arguments)))
    return jobs


def plan(config: Config) -> list[tuple[float, str, str, str]]:
    """Return (rate, smoothing, protocol, method) of all jobs."""
    linear = {"measured": ("persistence", "ridge", "rls")}
    linear["at once"] = ("last target", "known targets", "rls")
    found = []
    series = [(rate, "none") for rate in config.rates]
    series += [(HERE, each) for each in config.smoothing]
    for rate, smoothing in sorted(series, key=lambda pair: pair[0] != HERE):
        for protocol in PROTOCOLS:
            for name in (*linear[protocol], *config.rules):
                always = name in ("persistence", "last target")
                if smoothing != "none":
                    wanted = always or name in SMOOTHED
                else:
                    wanted = always or rate == HERE or name in AT_RATES
                if wanted:
                    found.append((rate, smoothing, protocol, name))
    return found


def _row(
    config: Config, load: Callable[[float, str], Series], rate: float, smoothing: str,
    protocol: str, name: str, way: Way,
) -> Row:  # fmt: skip
    """Run a method; return its nRMSE of each sequence and of each horizon."""
    del way
    found, began = load(rate, smoothing), time.perf_counter()
    horizons = breathing_series.horizons(rate, config.horizons)
    chosen, settings = forecast(config, found, horizons, name, protocol == "measured")
    scores = breathing_series.nrmse(chosen.errors, found, found.test)  # [S, H, seeds]
    row = {"rate": rate, "smoothing": smoothing, "protocol": protocol, "method": name}
    row |= {"sequences": list(found.names), "nrmse": scores.mean(axis=(1, 2)).tolist()}
    row |= {"horizons": (horizons / rate).tolist(), "settings": settings}
    row["by_horizon"] = scores.mean(axis=(0, 2)).tolist()
    row["by_seed"] = scores.mean(axis=(0, 1)).tolist()
    if rate == HERE and smoothing == "none":
        row |= _shown(found, chosen)
    return row | {"seconds": time.perf_counter() - began}


def forecast(
    config: Config, found: Series, horizons: np.ndarray, name: str, delayed: bool
) -> tuple[Forecasts, list[float]]:
    """Return forecasts [S, T, H, seeds] with the chosen settings, and these settings.

    The setting of each sequence and horizon has the lowest error in the second half of
    the first minute.
    """
    every, factor = breathing_series.spacing(found.rate), min(1.0, found.rate / HERE)
    lags = max(1, round(config.lags * factor))
    if name in ("persistence", "last target"):
        of = methods.persistence if name == "persistence" else methods.last_target
        return _with_seeds(of(found, horizons)), []
    if name == "ridge":
        fit = partial(methods.ridge, found, horizons, lags, config.penalties)
        early = fit(found.minute // 2, every)
        best = _best(early.errors, found)
        settings = np.asarray(config.penalties)[best].ravel().tolist()
        return _with_seeds(_picked(fit(found.minute, every), best)), settings
    if name in ("rls", "known targets"):
        decays = tuple(decay ** (HERE / found.rate) for decay in config.decays)
        more = decays, PRIOR, every
        if name == "rls":
            all_of = methods.least_squares(found, horizons, lags, delayed, *more)
        else:
            all_of = methods.known_targets(found, lags, *more)
        best = _best(all_of.errors, found)
        settings = np.asarray(config.decays)[best].ravel().tolist()
        return _with_seeds(_picked(all_of, best)), settings
    cell, rule = RULES[name]
    units = config.few if name in SLOW else config.units
    inputs = 1 + lags * breathing_series.COORDINATES
    net = networks.network(cell, inputs, units)
    rates = np.asarray(config.learning_rates) * (0.1 if cell == "linear" else 1)
    shape = (len(found.names), len(horizons), len(rates))
    run = partial(
        networks.learn, found, horizons, lags, net, rule, delayed=delayed, every=every,
        first_seed=config.first_seed,
    )  # fmt: skip
    seeds = 1 if cell == "linear" else config.seeds
    early = run(rates=np.broadcast_to(rates, shape), seeds=1, steps=found.minute)
    best = _best(early.errors[..., 0], found)
    every_sample = run(rates=rates[best][..., None], seeds=seeds)
    only = Forecasts(every_sample.errors[..., 0, :], every_sample.values[..., 0, :, :])
    return only, rates[best].ravel().tolist()


def _best(errors: np.ndarray, found: Series) -> np.ndarray:
    """Return the best setting [S, H] for errors [S, T, H, settings]."""
    scores = breathing_series.nrmse(errors, found, found.validation)
    return np.argmin(np.where(np.isfinite(scores), scores, np.inf), axis=-1)


def _picked(forecasts: Forecasts, best: np.ndarray) -> Forecasts:
    """Return the forecasts of the setting `best` [S, H]."""
    at = best[:, None, :, None]
    errors = np.take_along_axis(forecasts.errors, at, axis=3)[..., 0]
    values = np.take_along_axis(forecasts.values, at[..., None], axis=3)[..., 0, :]
    return Forecasts(errors, values)


def _with_seeds(forecasts: Forecasts) -> Forecasts:
    return Forecasts(forecasts.errors[..., None], forecasts.values[..., None, :])


def _shown(found: Series, forecasts: Forecasts) -> dict[str, Any]:
    """Return 30 s of one coordinate of the last sequence, and its forecasts."""
    scales = found.scales[-1]
    of = int(np.argmax(scales))
    part = slice(found.minute, min(found.minute + SHOWN, found.lengths[-1]))
    truth = found.values[-1, part, of] * scales[of]
    shown = forecasts.values[-1, part, -1, 0, of] * scales[of]
    tidy = lambda values: np.round(values, 2).tolist()
    return {"truth": tidy(truth), "forecast": tidy(shown)}


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _breathing_report.show(rows, config)
    _breathing_report.save(folder, rows)
