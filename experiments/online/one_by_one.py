"""Learners with the interface of river, on streams of breathing and weather.

    python -m experiments.online.one_by_one

exports a GRU of 16 units that learns online by SnAp-1 and Adam, reads it from its file,
and lets it predict two streams, one step at a time: each prediction is scored before
the learner sees the target. It prints a table of root mean square errors, beside
persistence (no change), and beside a linear model of river if river is installed. The
learning rates of both are chosen on the first fifth of each stream, and all errors are
of the rest.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpvariants import training
from experiments import data
from experiments.benchmarks._learner import export
from experiments.online import _sensor_streams

Pair = tuple[dict[str, float], float | None]  # features, and a target or None
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
CHOSEN_ON = 0.2
MARKERS = [f"{marker}_{axis}" for marker in (1, 2, 3) for axis in "xyz"]
WEATHER = ["temperature", "dew_point", "humidity", "wind", "rain", "pressure"]
WEATHER += ["sine", "cosine"]


class Stream(NamedTuple):
    """Parts of a stream, each a sequence in time; targets are changes in `unit`s."""

    parts: list[list[Pair]]
    unit: str
    scale: float  # what one unit of a target is, in `unit`s


def breathing() -> Stream:
    """Return nine sequences: the next change of marker 1 along z, 0.1 s ahead.

    The features are the positions, relative to the first position, in units of 5 mm,
    and their last changes in mm.
    """
    parts = []
    for positions in data.breathing().values():
        change = np.diff(positions, axis=0, prepend=positions[:1])
        shown = np.concatenate([(positions - positions[0]) / 5, change], axis=1)
        names = MARKERS + [f"{name}_change" for name in MARKERS]
        targets = change[1:, 2].tolist()
        rows = [dict(zip(names, row, strict=True)) for row in shown[:-1].tolist()]
        parts.append(list(zip(rows, targets, strict=True)))
    return Stream(parts, "mm", 1.0)


def weather() -> Stream:
    """Return the change of temperature at JFK until the next hour; None if missing."""
    found = _sensor_streams.weather()
    rows = [dict(zip(WEATHER, row, strict=True)) for row in found.xs.tolist()]
    known = zip(found.targets.tolist(), found.mask.tolist(), strict=True)
    targets = [target if is_known else None for target, is_known in known]
    pairs = list(zip(rows, targets, strict=True))
    return Stream([pairs], "°F", _sensor_streams.CHANGE)


STREAMS = {"breathing": breathing, "weather": weather}


class Still:
    """Persistence, with the interface of river: what is predicted does not change."""

    def predict_one(self, x: dict[str, float]) -> float:
        """Return 0, because the targets of streams are changes."""
        del x
        return 0.0

    def learn_one(self, x: dict[str, float], y: float) -> None:
        """Learn nothing."""


def errors_of(model: Any, pairs: list[Pair]) -> Iterator[float]:
    """Yield the squared error of each prediction; then let the model learn."""
    for x, y in pairs:
        if y is not None:
            yield (model.predict_one(x) - y) ** 2
            model.learn_one(x, y)


def recurrent(
    learner: training.Learner, features: list[str]
) -> Callable[[float], training.DictLearner]:
    """Return a function from a learning rate to the learner in its state of now."""
    start = learner.state
    (name,) = [name for name in start if name.endswith("['learning_rate']")]

    def make(rate):
        learner.state = start | {name: rate}
        return training.DictLearner(learner, features)

    row = dict.fromkeys(features, 0.0)
    make(0.0).predict_one(row)  # compiles both programs, which is not timed
    make(0.0).learn_one(row, 0.0)
    return make


def linear(rate: float) -> Any:
    """Return river's linear regression with scaled features."""
    from river import (  # pyright: ignore[reportMissingImports]
        linear_model,
        optim,
        preprocessing,
    )

    model = linear_model.LinearRegression(optim.SGD(rate))
    return preprocessing.StandardScaler() | model


def row(name: str, stream: Stream, make: Callable[[float], Any] | None) -> list[str]:
    """Run a model along a stream; return its rate, its error, and its time per step.

    Args:
      name: name of the model.
      stream: the stream.
      make: function from a learning rate to a model; None for persistence.
    """
    tried = {}
    start, count = time.perf_counter(), 0
    for rate in RATES if make else [None]:
        errors = []
        for part in stream.parts:
            model = Still() if make is None or rate is None else make(rate)
            errors.append(list(errors_of(model, part)))
            count += len(errors[-1])
        cuts = [int(CHOSEN_ON * len(part)) for part in errors]
        first = [e for part, cut in zip(errors, cuts, strict=True) for e in part[:cut]]
        rest = [e for part, cut in zip(errors, cuts, strict=True) for e in part[cut:]]
        score = np.mean(first)
        tried[score if np.isfinite(score) else np.inf] = rate, np.mean(rest)
    micros = 1e6 * (time.perf_counter() - start) / count
    rate, error = tried[min(tried)]
    error = f"{stream.scale * np.sqrt(error):.3f}"
    return [name, "" if rate is None else f"{rate:g}", error, f"{micros:.0f}"]


def main() -> None:
    """Print the table, as Markdown."""
    for name, make_stream in STREAMS.items():
        stream = make_stream()
        features = list(stream.parts[0][0][0])
        steps = sum(y is not None for part in stream.parts for _, y in part)
        rows = [row("persistence", stream, None)]
        try:
            rows.append(row("river: StandardScaler, LinearRegression", stream, linear))
        except ImportError:
            print("(river is not installed: pip install river)")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gru.learner"
            export("snap, order 1", path, len(features))
            make = recurrent(training.load_learner(path), features)
            rows.append(row("GRU 16, SnAp-1, Adam: DictLearner", stream, make))
        print(f"\n{name}, {steps} steps, {len(features)} features\n")
        header = ["model", "learning rate", f"RMSE, {stream.unit}", "µs per step"]
        for line in [header, ["---"] * len(header), *rows]:
            print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
