"""Study `identify`: online identification of a plant that changes.

The plant is two tanks; the level of the lower tank is measured with noise. Two models
learn at every step by online rules: an observer, which knows the physics of the plant
but not its parameters, and a small GRU. The baseline is a linear model fitted by
recursive least squares. The plant changes after half of the steps. Each method uses the
learning rate or forgetting factor with the lowest error on the first quarter of the
steps.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.identify import (
    ask,
    report as identify_report,
    tanks,
)
from experiments.applications.identify.methods import best, Course, methods, SOLVE
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

NEAR = 50  # number of time steps in a moving mean of squared errors
SOON = 200  # if errors stay low for this many steps, no recovery is needed
SETTLED = 500  # errors before the change and at the end are means over 500 steps
RECOVERED = 1.5  # errors up to 1.5 times the error before the change count as recovered
POINTS = 200  # number of points of a drawn curve


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which methods predict two tanks online, and recover when the tanks change?"""

    QUICK = {"rates": (3e-3, 1e-2), "steps": 3000, "seeds": 2}
    CHECKS = {
        "units": at_least(1),
        "updates": known((*choices.UPDATES, SOLVE)),
        "rates": all_of(given, above(0)),
        "decays": all_of(given, within(0, 1, ends="(]")),
        "decay": within(0, 1, ends="[)"),
        "steps": at_least(4 * SETTLED),
    }

    rules: tuple[str, ...] = ("rtrl",)
    """Gradient rules: rtrl, snap_1, kf_rtrl, uoro, rflo, …"""
    updates: tuple[str, ...] = ("forgetting", "adam", "least_squares")
    """Update rules: forgetting, adam, sgd, …; least_squares is recursive least squares
    at every time step, on the linearised prediction of the model."""
    units: int = 8
    """Number of units of the GRU."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    """Learning rates to try with each update rule; the rate with the lowest error on
    the first quarter of the steps is used."""
    decay: float = 0.9
    """Forgetting factor for past gradients, for the update rule forgetting."""
    decays: tuple[float, ...] = (0.98, 0.99, 0.995, 0.998)
    """Forgetting factors to try with recursive least squares; the factor with the
    lowest error on the first quarter of the steps is used."""
    steps: int = 6000
    """Number of time steps; the plant changes after half of them."""
    seeds: int = 5
    """Number of plants. Each plant has its own inputs and noise, and its models have
    their own initial weights."""

    def check(self) -> None:
        """Check the names of gradient rules; some end with a number, such as snap_1."""
        names = [each.split("_")[0] if each[-1:].isdigit() else each
                 for each in self.rules]  # fmt: skip
        check_known("rules", names, choices.ONLINE)


def main(config: Config) -> report.Result:
    """Run all methods on the same plants; print and write the prediction errors."""
    return run_study("identify", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    record = make_record(config)
    return [
        Job(name, 1, partial(_row, config, record, method))
        for name, method in methods(record, config).items()
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    identify_report.show(rows, config)
    report.save_picture(folder, "identify", identify_report.draw(rows, config))
    estimates = identify_report.draw_estimates(rows, config)
    report.save_picture(folder, "estimates", estimates)
    ask.save(config, folder, rows)


def make_record(config: Config) -> tanks.Record:
    """Simulate a plant for each seed; arrays of the record are [seeds, T, …]."""
    keys = jax.random.split(jax.random.key(config.first_seed), config.seeds)
    simulate = partial(tanks.simulate, steps=config.steps, jump=config.steps // 2)
    return jax.jit(jax.vmap(simulate))(keys)


def _row(config: Config, record: tanks.Record, method, way: Way) -> Row:
    """Return a method's row of results: each plant's errors with the best setting."""
    course: Course = method()
    setting = best(course, record, config.steps // 4)
    errors = course.predictions[setting] - np.asarray(record.levels)
    jump = config.steps // 2
    near = moving(np.square(errors, dtype=float), NEAR)
    settled = np.mean(np.square(errors[:, jump - SETTLED : jump], dtype=float), axis=1)
    row: Row = {
        **course.settings[setting],
        "before": _finite(np.sqrt(settled)),
        "after": _rms(errors[:, jump : jump + NEAR]),
        "end": _rms(errors[:, -SETTLED:]),
        "recovery": [
            recovery(one[jump:], RECOVERED**2 * level)
            for one, level in zip(near, settled, strict=True)
        ],
    }
    times = np.linspace(NEAR, config.steps - 1, POINTS).astype(int)
    row["times"] = times.tolist()
    row["curve"] = [_finite(one) for one in np.sqrt(near[:, times])]
    if course.k is not None:
        row["k"] = [_finite(one) for one in course.k[setting, 0, times]]
    if course.params is not None:
        first = jax.tree.map(lambda leaf: leaf[setting, 0].tolist(), course.params)
        row["learned"] = first
    way.advance(1)
    return row


def moving(values: np.ndarray, steps: int) -> np.ndarray:
    """Return moving means along the last axis, each over the last `steps` values.

    The first means are over fewer values, because fewer values precede them.

    Example:
      >>> moving(np.array([1.0, 3.0, 5.0]), 2).tolist()
      [1.0, 2.0, 4.0]
    """
    sums = np.cumsum(values, axis=-1)
    before = np.zeros_like(sums)
    before[..., steps:] = sums[..., :-steps]
    return (sums - before) / np.minimum(np.arange(1, values.shape[-1] + 1), steps)


def recovery(near: np.ndarray, level: float) -> int | None:
    """Return the number of time steps until the error is at most `level` again.

    The result is None if the error never returns to the level. The result is 0 if the
    error does not exceed the level in the first 200 steps.

    Args:
      near: moving means of the squared prediction error, from the plant's change on.
      level: largest mean squared error that counts as recovered.

    Example:
      >>> recovery(np.array([1.0, 5.0, 9.0, 2.0, 9.0]), 3.0)
      3
      >>> recovery(np.array([1.0, 1.0]), 3.0)
      0
    """
    above = ~(near <= level)
    if not above[:SOON].any():
        return 0
    left = int(np.argmax(above))
    back = np.flatnonzero(~above[left:])
    return left + int(back[0]) if back.size else None


def _rms(errors: np.ndarray) -> list[float | None]:
    return _finite(np.sqrt(np.mean(np.square(errors, dtype=float), axis=1)))


def _finite(values: np.ndarray) -> list[float | None]:
    """Return a list of floats for JSON; values that are not finite become None."""
    return [float(value) if np.isfinite(value) else None for value in values]
