"""Rprop and its variants, compared with the Rprops of optax and torch, Adam and L-BFGS.

All gradients are of full batches. There are three problems: to minimise a quadratic
function and Rosenbrock's function, both in float64, and to train a small network on
handwritten digits, in float32.
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import report
from experiments.harness import precision
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.study import run_study, Study
from experiments.resilient import _rprop_vs_problems, _rprop_vs_report
from experiments.resilient._rprop_vs_methods import find_torch, Method, methods, Trace
from experiments.resilient._rprop_vs_problems import Problem

POINTS = 200  # a curve in results.jsonl has at most POINTS + 1 points
NAMES = ("quadratic", "rosenbrock", "digits")


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """How fast do Rprop, its variants, other Rprops, Adam and L-BFGS reduce a loss?

    All gradients are of full batches. All kinds of Rprop start with the same initial
    step size. Adam uses the best of several learning rates. L-BFGS uses the line search
    of optax.
    """

    QUICK = {
        "seeds": 2,
        "quadratic_steps": 400,
        "rosenbrock_steps": 400,
        "digits_steps": 40,
        "adam_rates": (0.03, 0.1),
    }
    CHECKS = {
        "only": known(NAMES),
        "quadratic_steps rosenbrock_steps digits_steps": at_least(1),
        "first_step adam_rates digits_targets": all_of(given, above(0)),
    }

    only: tuple[Literal["quadratic", "rosenbrock", "digits"], ...] = ()
    """Problems to run; by default all problems."""
    seeds: int = 10
    """Number of runs, with different rotations (quadratic) or initial weights
    (digits)."""
    quadratic_steps: int = 4000
    """Number of iterations on the quadratic function."""
    rosenbrock_steps: int = 2000
    """Number of iterations on Rosenbrock's function."""
    digits_steps: int = 300
    """Number of iterations on the digits."""
    digits_targets: tuple[float, ...] = (0.1, 0.01, 0.001)
    """Training losses to reach; the table shows the first iteration below each of
    them."""
    first_step: float = 0.1
    """Initial step size Δ₀ of every kind of Rprop; 0.1 is the published default."""
    adam_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """Learning rates of Adam to try; the table shows the best one for each problem."""


def main(config: Config) -> report.Result:
    """Run all methods on all problems; print a table for each problem."""
    return run_study("rprop_vs", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    return [
        Job(f"{name}: {method.label}", 1, partial(_row, config, name, method))
        for name in NAMES
        if name in (config.only or NAMES)
        for method in methods(config.first_step, config.adam_rates)
    ]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    problems = []
    for name in dict.fromkeys(row["problem"] for row in rows):
        with _precision(name):
            problems.append(_problem(name, config))
    missing = [] if find_torch() else ["torch is not installed: its row is left out."]
    for problem in problems:
        _rprop_vs_report.show(problem, rows, missing)
    _rprop_vs_report.draw(folder, problems, rows)


def _precision(name: str) -> AbstractContextManager[Any]:
    """Return a context manager that sets the precision for solving a problem."""
    return nullcontext() if name == "digits" else precision.double_precision()


def _problem(name: str, config: Config) -> Problem:
    """Return a problem; call this function within the context `_precision(name)`."""
    key = jax.random.key(config.first_seed)
    if name == "quadratic":
        return _rprop_vs_problems.quadratic(key, config.seeds, config.quadratic_steps)
    if name == "rosenbrock":
        return _rprop_vs_problems.rosenbrock(config.rosenbrock_steps)
    return _rprop_vs_problems.digits(
        key, config.seeds, config.digits_steps, config.digits_targets
    )


def _row(config: Config, name: str, method: Method, way: Way) -> Row:
    """Run a method on a problem; return its row of results."""
    with _precision(name):
        problem = _problem(name, config)
        return _summary(problem, method, method.run(problem))


def _summary(problem: Problem, method: Method, trace: Trace) -> Row:
    """Return a method's row of results on a problem.

    The row has the number of iterations to each target, and the curve of the loss.
    """
    reached = {f"{target:g}": _reached(trace, target) for target in problem.targets}
    last = reached[f"{problem.targets[-1]:g}"]
    shown = np.unique(np.linspace(0, problem.steps, POINTS + 1).astype(int))
    row = {
        "problem": problem.name,
        "method": method.name,
        "label": method.label,
        "rate": method.rate,
        "steps": problem.steps,
        "reached": reached,
        "evaluations_to_last": _at(trace.evaluations, last),
        "values": trace.values[:, -1].tolist(),
        "reference": problem.reference.get(method.name),
        "curve_steps": shown.tolist(),
        "curve": trace.values[:, shown].tolist(),
        "curve_evaluations": trace.evaluations[:, shown].mean(axis=0).tolist(),
    }
    if trace.accuracies is not None:
        row["accuracies"] = trace.accuracies[:, -1].tolist()
        row["accuracy_at_last"] = _at(trace.accuracies, last)
    return row


def _reached(trace: Trace, target: float) -> list[int | None]:
    """Return each run's first iteration with a loss below the target, or else None."""
    below = trace.values < target
    return [int(np.argmax(run)) if run.any() else None for run in below]


def _at(numbers: np.ndarray, indices: list[int | None]) -> list[Any]:
    pairs = zip(numbers, indices, strict=True)
    return [None if i is None else run[i].item() for run, i in pairs]
