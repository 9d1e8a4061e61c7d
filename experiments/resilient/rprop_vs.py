"""Rprop and its family against optax's and torch's Rprop, Adam and L-BFGS.

On full batches: a quadratic and Rosenbrock's function in float64, and the training of a
small network on handwritten digits.
"""

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import report
from experiments.harness import precision
from experiments.resilient import _rprop_vs_problems, _rprop_vs_report
from experiments.resilient._rprop_vs_methods import find_torch, Method, methods, Trace
from experiments.resilient._rprop_vs_problems import Problem

POINTS = 200  # of a curve that is written
NAMES = ("quadratic", "rosenbrock", "digits")


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare how fast Rprop, its family, its peers, Adam and L-BFGS descend.

    All gradients are of full batches. Every Rprop has the same first step size, Adam
    the best of several learning rates, L-BFGS optax's own line search.
    """

    only: tuple[Literal["quadratic", "rosenbrock", "digits"], ...] = ()
    """Problems to run; by default all of them."""
    seeds: int = 10
    """Rotations of the quadratic, and initial weights of the digits' network."""
    quadratic_steps: int = 4000
    """Iterations on the quadratic."""
    rosenbrock_steps: int = 2000
    """Iterations on Rosenbrock's function."""
    digits_steps: int = 300
    """Iterations on the digits."""
    digits_targets: tuple[float, ...] = (0.1, 0.01, 0.001)
    """Training losses of which the first iteration below them is told."""
    first_step: float = 0.1
    """First step size Δ₀ of every Rprop; the default is the published one."""
    adam_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """Learning rates of Adam, of which each problem's best is shown."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    out: Path | None = None
    """Folder to write to; by default runs/rprop_vs-<time>."""

    def __post_init__(self):
        """Check the options."""
        for name in ("seeds", "quadratic_steps", "rosenbrock_steps", "digits_steps"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        for name in ("first_step", "adam_rates", "digits_targets"):
            value = getattr(self, name)
            if not np.size(value) or not np.all(np.asarray(value) > 0):
                raise ValueError(f"{name} must be greater than 0, got {value}.")
        if unknown := set(self.only) - set(NAMES):
            raise ValueError(f"only must be of {NAMES}, got {sorted(unknown)}.")


def main(config: Config) -> report.Result:
    """Run the comparison, show it, and write it to a folder."""
    folder = report.make_folder("rprop_vs", config.out)
    report.write_config(folder, config)
    rows, done, interrupted, start = [], [], False, time.perf_counter()
    contestants = methods(config.first_step, config.adam_rates)
    wanted = [name for name in NAMES if name in (config.only or NAMES)]
    try:
        with report.Progress(len(wanted) * len(contestants)) as progress:
            for name in wanted:
                context, make = _maker(name, config)
                with context:
                    problem = make()
                    done.append(problem)
                    for method in contestants:
                        progress.begin(f"{name}: {method.label}", 1)
                        rows.append(_row(problem, method))
                        report.append_row(folder, rows[-1])
                        progress.advance(1)
    except KeyboardInterrupt:
        interrupted = True
    done = [p for p in done if any(row["problem"] == p.name for row in rows)]
    missing = [] if find_torch() else ["torch is not installed: its row is left out."]
    for problem in done:
        _rprop_vs_report.show(problem, rows, missing)
    if done:
        _rprop_vs_report.draw(folder, done, rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _maker(name: str, config: Config) -> tuple[Any, Callable[[], Problem]]:
    """Return the precision that a problem is run in, and what makes it there."""
    key = jax.random.key(config.first_seed)
    if name == "digits":
        return nullcontext(), lambda: _rprop_vs_problems.digits(
            key, config.seeds, config.digits_steps, config.digits_targets
        )
    make = {
        "quadratic": lambda: _rprop_vs_problems.quadratic(
            key, config.seeds, config.quadratic_steps
        ),
        "rosenbrock": lambda: _rprop_vs_problems.rosenbrock(config.rosenbrock_steps),
    }
    return precision.double_precision(), make[name]


def _row(problem: Problem, method: Method) -> dict[str, Any]:
    """Run a method; return a line of results.jsonl."""
    trace = method.run(problem)
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
    """Return after how many iterations each run was first below the target."""
    below = trace.values < target
    return [int(np.argmax(run)) if run.any() else None for run in below]


def _at(numbers: np.ndarray, indices: list[int | None]) -> list[Any]:
    pairs = zip(numbers, indices, strict=True)
    return [None if i is None else run[i].item() for run, i in pairs]
