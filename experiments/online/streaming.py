"""Streams of real sensors, once through: predict, be told, learn, for ever.

A network updates after every step, by gradients of online rules. Each step is scored
before the network is told the answer (prequential error), so nothing need be held out,
and there are no epochs. A robot's 24 distances say which way it turns; the weather of
an hour, how warm the next will be. Learning rates, and what least squares forgets, are
those that were best on the beginning of the stream.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpvariants import gradients
from experiments import report
from experiments.harness.errors import DataError
from experiments.harness.options import check_at_least_one
from experiments.networks import online
from experiments.online import (
    _rules,
    _sensor_streams,
    _streaming_methods,
    _streaming_report,
)

POINTS = 60  # of a curve


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn from streams of sensors at every step, each of them seen once."""

    streams: tuple[Literal["robot", "weather"], ...] = ("robot", "weather")
    """What to predict: the way a robot turns, the temperature an hour ahead."""
    rules: tuple[str, ...] = tuple(_rules.RULES)
    """Online rules, of those in experiments/online/_rules.py; of an LSTM also eprop."""
    lookbacks: tuple[int, ...] = (1, 10)
    """Of truncated BPTT after every step: how many steps errors travel back."""
    cell: Literal["tanh", "gru", "lstm", "rtu"] = "gru"
    """The recurrent cell."""
    units: int = 16
    """Of the cell."""
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    """Learning rates of Adam to choose from, together."""
    decays: tuple[float, ...] = (0.998, 0.9995, 1.0)
    """Forgetting factors of recursive least squares to choose from."""
    chosen_on: float = 0.2
    """The part of the stream, its beginning, on which these are chosen."""
    seeds: int = 3
    """Initial networks, together."""
    steps: int | None = None
    """Of each stream; by default all."""
    out: Path | None = None
    """Folder to write to; by default runs/streaming-<time>."""

    def __post_init__(self):
        """Check the options."""
        check_at_least_one(self, "units", "seeds", "steps")
        if not all(lookback >= 1 for lookback in self.lookbacks):
            raise ValueError(f"lookbacks must be at least 1, got {self.lookbacks}.")
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be positive, got {self.rates}.")
        if not self.decays or not all(0 < decay <= 1 for decay in self.decays):
            raise ValueError(f"decays must be in 0 < decay ≤ 1, got {self.decays}.")
        if not 0 < self.chosen_on < 1:
            raise ValueError(
                f"chosen_on must be within 0 < chosen_on < 1, got {self.chosen_on}."
            )
        _rules.check_rules(self.rules, _rules.of_cells([self.cell]))


def main(config: Config) -> report.Result:
    """Go through each stream by each method, show the errors, and write them."""
    folder = report.make_folder("streaming", config.out)
    report.write_config(folder, config)
    rows, interrupted, start = [], False, time.perf_counter()
    streams, left_out = _streams(config)
    work = [
        (name, stream, *method)
        for name, stream in streams.items()
        for method in jobs(config, name, stream).items()
    ]
    try:
        with report.Progress(len(work)) as progress:
            for name, stream, method, job in work:
                progress.begin(f"{name}, {method}", 1)
                rows.append(_row(config, name, stream, method, job))
                report.append_row(folder, rows[-1])
                progress.advance(1)
    except KeyboardInterrupt:
        interrupted = True
    _streaming_report.show(rows, config, streams, left_out)
    if rows:
        picture = _streaming_report.draw(rows, config, streams)
        report.save_picture(folder, "streaming", picture)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _streams(
    config: Config,
) -> tuple[dict[str, _sensor_streams.Stream], dict[str, str]]:
    """Return the streams that are there, and why others are not."""
    streams, left_out = {}, {}
    for name in config.streams:
        try:
            streams[name] = _sensor_streams.STREAMS[name](config.steps)
        except DataError as problem:  # no network, and no copy at hand
            left_out[name] = str(problem)
    return streams, left_out


def jobs(
    config: Config, name: str, stream: _sensor_streams.Stream
) -> dict[str, Callable[[], _streaming_methods.Scores]]:
    """Return who is to predict a stream: the simplest first, then networks."""
    lagged = _sensor_streams.lagged(stream, name)
    lags, inputs = _sensor_streams.LAGS[name], stream.xs.shape[1]
    now = np.concatenate([stream.xs, np.ones((len(stream.xs), 1), np.float32)], axis=1)
    learn = partial(_streaming_methods.learn, stream, rates=config.rates)
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
        f"truncated_bptt, {lookback} back": _streaming_methods.truncated(lookback)
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
    method: str,
    job: Callable[[], _streaming_methods.Scores],
) -> dict[str, Any]:
    """Return errors of each seed, at the setting that was best at the beginning."""
    start = time.perf_counter()
    losses, errors, settings = job()
    seconds = time.perf_counter() - start
    counts = stream.mask
    steps, length = np.arange(len(counts)), len(counts)
    early = counts & (steps < max(1, config.chosen_on * length))
    parts = {"all": counts, "after": counts & ~early}
    parts["held_out"] = counts & (steps >= stream.held_out)
    judged = errors if losses is None else losses
    scores = judged[..., early].mean(axis=(1, 2), dtype=float)
    best = int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))
    row = {"stream": name, "method": method, **settings[best], "seconds": seconds}
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
