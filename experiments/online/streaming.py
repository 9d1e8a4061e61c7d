"""Online learning on sensor streams: predict, score the prediction, update.

A network is updated after every time step, by gradients of online rules or of truncated
BPTT. Each prediction is scored before the network sees the target (prequential error),
so one pass over a stream is enough, and no test set is needed. In the stream "robot", a
robot's action is predicted from 24 distances. In the stream "weather", the temperature
of the next hour is predicted from the weather of the current hour. The learning rates
of networks, and the forgetting factors of least squares, are chosen on the first part
of a stream.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpvariants import gradients
from experiments import report
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Way
from experiments.harness.options import above, all_of, at_least, given, known, within
from experiments.harness.study import run_study, Study
from experiments.networks import online
from experiments.online import (
    _rules,
    _sensor_streams,
    _streaming_methods,
    _streaming_report,
)

POINTS = 60  # number of points of a curve in the picture


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which online rule predicts sensor streams best?"""

    QUICK = {
        "rules": ("rtrl", "snap_1"),
        "lookbacks": (10,),
        "units": 8,
        "rates": (1e-2, 3e-2),
        "decays": (0.9995, 1.0),
        "seeds": 2,
        "steps": 1500,
    }
    CHECKS = {
        "units steps": at_least(1),
        "streams": known(_sensor_streams.STREAMS),
        "lookbacks": at_least(1),
        "rates": all_of(given, above(0)),
        "decays": all_of(given, within(0, 1, ends="(]")),
        "chosen_on": within(0, 1, ends="()"),
    }

    streams: tuple[Literal["robot", "weather"], ...] = ("robot", "weather")
    """Streams: robot (predict its next action) and weather (the temperature in one
    hour)."""
    rules: tuple[str, ...] = tuple(_rules.RULES)
    """Online rules: rtrl, snap_1, rflo, kf_rtrl, uoro; eprop too if cell is lstm."""
    lookbacks: tuple[int, ...] = (1, 10)
    """Lookbacks of truncated BPTT, which updates after every step: numbers of steps
    that gradients are propagated back."""
    cell: Literal["tanh", "gru", "lstm", "rtu"] = "gru"
    """Recurrent cell of the network."""
    units: int = 16
    """Number of hidden units of the cell."""
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    """Learning rates of Adam to choose from; all rates run together under vmap."""
    decays: tuple[float, ...] = (0.998, 0.9995, 1.0)
    """Forgetting factors of recursive least squares to choose from."""
    chosen_on: float = 0.2
    """Fraction of the stream, at its start, on which rates and decays are chosen."""
    seeds: int = 3
    """Number of networks with different initial weights, run together under vmap."""
    steps: int | None = None
    """Number of steps to read of each stream; by default all steps."""

    def check(self) -> None:
        """Check that all online rules work with the cell."""
        _rules.check_rules(self.rules, _rules.of_cells([self.cell]))


def main(config: Config) -> report.Result:
    """Run each method along each stream; write and print the prediction errors."""
    streams = cache(_streams)  # the data are loaded once, not twice
    return run_study(
        "streaming",
        config,
        lambda config: _jobs(config, *streams(config)),
        lambda folder, config, rows: _finish(folder, config, rows, streams(config)[0]),
    )


def _jobs(
    config: Config,
    streams: dict[str, _sensor_streams.Stream],
    left_out: dict[str, str],
) -> list[Job]:
    """Return one job for each pair of a stream and a method.

    Print which streams are left out, and why.
    """
    _streaming_report.show_left_out(left_out)
    return [
        Job(f"{name}, {label}", 1, partial(_row, config, name, stream, label, method))
        for name, stream in streams.items()
        for label, method in methods(config, name, stream).items()
    ]


def _finish(
    folder: Path,
    config: Config,
    rows: list[dict[str, Any]],
    streams: dict[str, _sensor_streams.Stream],
) -> None:
    _streaming_report.show(rows, config, streams)
    picture = _streaming_report.draw(rows, config, streams)
    report.save_picture(folder, "streaming", picture)
    _streaming_report.conclude(rows, config)


def _streams(
    config: Config,
) -> tuple[dict[str, _sensor_streams.Stream], dict[str, str]]:
    """Return the streams whose data can be loaded, and {name: error} of all others."""
    streams, left_out = {}, {}
    for name in config.streams:
        try:
            streams[name] = _sensor_streams.STREAMS[name](config.steps)
        except DataError as problem:  # no local copy of the data, and no download
            left_out[name] = str(problem)
    return streams, left_out


def methods(
    config: Config, name: str, stream: _sensor_streams.Stream
) -> dict[str, Callable[[], _streaming_methods.Scores]]:
    """Return {name: method} for one stream: first baselines, then networks."""
    lagged = _sensor_streams.lagged(stream, name)
    lags, inputs = _sensor_streams.LAGS[name], stream.xs.shape[1]
    now = np.concatenate([stream.xs, np.ones((len(stream.xs), 1), np.float32)], axis=1)
    shared = {"rates": config.rates, "first_seed": config.first_seed}
    learn = partial(_streaming_methods.learn, stream, **shared)
    linear = lambda xs: _streaming_methods.linear(xs.shape[1], stream.outputs)
    chosen: dict[str, Callable[[], _streaming_methods.Scores]] = {}
    if name == "robot":
        chosen["majority until now"] = partial(_streaming_methods.majority, stream)
        for label, xs in {"this step": now, f"{lags} steps": lagged}.items():
            chosen[f"logistic regression, {label}"] = partial(
                learn, linear(xs), gradients.rtrl, seeds=1, xs=xs
            )
    else:
        chosen["persistence"] = partial(_streaming_methods.persistence, stream)
    for label, xs in {"this step": now, f"{lags} steps": lagged}.items():
        chosen[f"least squares, {label}"] = partial(
            _streaming_methods.least_squares, stream, xs, config.decays
        )
    network = online.recurrent(config.cell, inputs, config.units, stream.outputs)
    rules = {
        f"truncated_bptt, {report.window(lookback, 1)}": _streaming_methods.truncated(
            lookback
        )
        for lookback in config.lookbacks
    } | {rule: _rules.of_cells([config.cell])[rule] for rule in config.rules}
    for label, rule in rules.items():
        chosen[f"{config.cell}, {label}"] = partial(
            learn, network, rule, seeds=config.seeds
        )
    return chosen


def _row(
    config: Config,
    name: str,
    stream: _sensor_streams.Stream,
    label: str,
    method: Callable[[], _streaming_methods.Scores],
    way: Way,
) -> dict[str, Any]:
    """Run a method on a stream; return its row with the errors of all seeds.

    The setting (learning rate or forgetting factor) is chosen on the first part of the
    stream.
    """
    del way
    start = time.perf_counter()
    losses, errors, settings = method()
    seconds = time.perf_counter() - start
    counts = stream.mask
    steps, length = np.arange(len(counts)), len(counts)
    early = counts & (steps < max(1, config.chosen_on * length))
    parts = {"all": counts, "after": counts & ~early}
    parts["held_out"] = counts & (steps >= stream.held_out)
    judged = errors if losses is None else losses
    scores = judged[..., early].mean(axis=(1, 2), dtype=float)
    best = int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))
    row = {"stream": name, "method": label, **settings[best], "seconds": seconds}
    score = partial(_streaming_report.score, name)
    for part, where in parts.items():
        row[part] = [score(e[where]) for e in errors[best]] if where.any() else None
        if losses is not None and name == "robot" and where.any():
            row[f"loss_{part}"] = [_mean(x[where]) for x in losses[best]]
    count = int(counts.sum())
    ends = np.linspace(0, count, 1 + min(POINTS, count))[1:].astype(int)
    until = [steps[counts][:end] for end in ends]
    row["times"] = [float(stream.times[part[-1]]) for part in until]
    row["curve"] = [[score(e[part]) for part in until] for e in errors[best]]
    return row


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=float))
