"""Study `identify`: a plant identified online, before and after its valves change.

Two tanks, of which the lower level is measured, with noise. An observer with unknown
physics and a small network learn at every step by online rules, beside a linear model
that recursive least squares solves at every step. In the middle the plant changes.
Learning rates and forgetting factors are those that were best on the first quarter.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.identify import (
    report as identify_report,
    tanks,
)
from experiments.applications.identify.methods import best, Course, methods, SOLVE
from experiments.harness import options
from experiments.harness.jobs import check_resume, Job, open_run, run_jobs, Way

NEAR = 50  # steps that a level of error is the mean of
SOON = 200  # within which a change is felt
SETTLED = 500  # steps before the change, and before the end, that are looked at
RECOVERED = 1.5  # times the error before the change
POINTS = 200  # of a curve


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn to predict two tanks online, and recover when they change."""

    rules: tuple[str, ...] = ("rtrl",)
    """Where gradients come from: rtrl, snap_1, kf_rtrl, uoro, rflo, …"""
    updates: tuple[str, ...] = ("forgetting", "adam", "least_squares")
    """What is done with gradients: forgetting, adam, sgd, …; least_squares solves for
    weights at every step, recursively, what is linear in these gradients."""
    units: int = 8
    """Of the network."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    """Learning rates to choose from."""
    decay: float = 0.9
    """Forgetting factor of gradients."""
    decays: tuple[float, ...] = (0.98, 0.99, 0.995, 0.998)
    """Forgetting factors of least squares to choose from."""
    steps: int = 6000
    """Samples; the plant changes in the middle."""
    seeds: int = 5
    """Plants, of other noise and inputs, and first weights."""
    seed: int = 0
    """The seed that all random numbers follow from."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not done again."""
    out: Path | None = None
    """Folder to write to; by default runs/identify-<time>."""

    def __post_init__(self):
        """Check the options."""
        options.check_at_least_one(self, "units", "seeds")
        kinds = {rule.split("_")[0] if rule[-1:].isdigit() else rule: rule
                 for rule in self.rules}  # fmt: skip
        options.check_known("rules", kinds, choices.ONLINE)
        known = (*choices.UPDATES, SOLVE)
        options.check_known("updates", self.updates, known)
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates must be positive, got {self.rates}.")
        if not self.decays or not all(0 < decay <= 1 for decay in self.decays):
            raise ValueError(f"decays must be in 0 < decay ≤ 1, got {self.decays}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in 0 ≤ decay < 1, got {self.decay}.")
        if self.steps < 4 * SETTLED:
            raise ValueError(f"steps must be at least {4 * SETTLED}, got {self.steps}.")
        check_resume(self)


def main(config: Config) -> report.Result:
    """Let all methods identify the same plants; show how they did, and write it."""
    small = {"rates": (3e-3, 1e-2)}
    config = options.at_quick_size(config, **small, steps=3000, seeds=2)
    config, folder = open_run("identify", config)
    start = time.perf_counter()
    record = make_record(config)
    compared = methods(record, config)
    jobs = [
        Job(name, 1, partial(_row, config, record, method))
        for name, method in compared.items()
    ]
    rows, interrupted = run_jobs(folder, jobs)
    if rows:
        identify_report.show(rows, config)
        report.save_picture(folder, "identify", identify_report.draw(rows, config))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def make_record(config: Config) -> tanks.Record:
    """Run the plants, [seeds, T]."""
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    simulate = partial(tanks.simulate, steps=config.steps, jump=config.steps // 2)
    return jax.jit(jax.vmap(simulate))(keys)


def _row(config: Config, record: tanks.Record, method, way: Way) -> dict[str, Any]:
    """Return the errors of a method at its best setting, of each seed."""
    course: Course = method()
    setting = best(course, record, config.steps // 4)
    errors = course.predictions[setting] - np.asarray(record.levels)
    jump = config.steps // 2
    near = moving(np.square(errors, dtype=float), NEAR)
    settled = np.mean(np.square(errors[:, jump - SETTLED : jump], dtype=float), axis=1)
    row: dict[str, Any] = {
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
    way.advance(1)
    return row


def moving(values: np.ndarray, steps: int) -> np.ndarray:
    """Return means of the last steps along the last axis, of fewer at its beginning.

    Example:
      >>> moving(np.array([1.0, 3.0, 5.0]), 2).tolist()
      [1.0, 2.0, 4.0]
    """
    sums = np.cumsum(values, axis=-1)
    before = np.zeros_like(sums)
    before[..., steps:] = sums[..., :-steps]
    return (sums - before) / np.minimum(np.arange(1, values.shape[-1] + 1), steps)


def recovery(near: np.ndarray, level: float) -> int | None:
    """Return after how many steps an error is back at a level; None if it never is.

    Args:
      near: moving means of the squared error, from the change on.
      level: that the error rises above within 200 steps, or it needs no recovery, and
        falls below again.

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
    """Return numbers, None for those of what diverged, as JSON has no others."""
    return [float(value) if np.isfinite(value) else None for value in values]
