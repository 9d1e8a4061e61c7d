"""Which gradient rule for what: many rules, tasks and cells, compared with intervals.

Small networks learn short sequences. Every rule makes one update of Adam per
mini-batch, from the gradient of the whole sequence at constant parameters, so only the
gradients differ; learning on the way through a sequence is not compared. Each rule has
the same number of learning rates and of tuning seeds. The rate is the one with the
lowest mean validation loss. With this rate, networks with other seeds are trained, and
their test losses are computed once.

For each combination of a task, a cell and a rule, the study measures the test losses,
the cosine of the rule's gradient to the exact gradient before, during and after the
training, its bias and its spread over random draws, and its time and memory.

The study may be run in parts, with different --tasks, --cells or --rules. The command
`python -m docs.atlas --enter FOLDER …` enters the parts into the committed table and
writes the page docs/atlas.md from it.
"""

import dataclasses
from functools import partial
from pathlib import Path

from experiments import report
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, all_of, at_least, given, known
from experiments.harness.study import run_study, Study
from experiments.online import _atlas_report, _atlas_rules, _atlas_training
from experiments.online._atlas_tasks import NEEDED


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Which gradient rules are best for which task and cell, and what do they cost?"""

    QUICK = {
        "tasks": ("copy", "yin_yang"),
        "cells": ("tanh",),
        "rules": ("bptt", "tbptt_1_1", "snap_1", "uoro", "backprop", "fa"),
        "units": 6,
        "updates": 60,
        "rates": (0.01, 0.1),
        "trials": 1,
        "seeds": 4,
        "draws": 8,
    }
    CHECKS = {
        "tasks": all_of(given, known(_atlas_rules.TASKS)),
        "cells": all_of(given, known(_atlas_rules.CELLS)),
        "rules": all_of(given, known(_atlas_rules.RULES)),
        "units batch trials": at_least(1),
        "updates": at_least(4),
        "seeds draws": at_least(2),
        "rates": all_of(given, above(0)),
    }

    tasks: tuple[str, ...] = _atlas_rules.TASKS
    """Tasks: copy, adding, mackey_glass, breathing, spoken_digits, influence (with a
    network of its own), yin_yang (for static rules). The tasks breathing and
    spoken_digits are left out if their data cannot be found or downloaded."""
    cells: tuple[str, ...] = _atlas_rules.CELLS
    """Recurrent cells, in the order in which they are run: gru, tanh, lstm, lru."""
    rules: tuple[str, ...] = _atlas_rules.RULES
    """Gradient rules; those of yin_yang are backprop, fa, dfa, usf, brsf, frsf and
    frozen. tbptt_8_4 is truncated_bptt with lookback 8, once in 4 steps."""
    units: int = 8
    """Number of hidden units of each cell."""
    batch: int = 8
    """Number of sequences in a mini-batch."""
    updates: int = 500
    """Number of updates of a training."""
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    """Learning rates of Adam to choose from."""
    trials: int = 2
    """Number of tuning seeds with which each learning rate is tried."""
    seeds: int = 10
    """Number of networks trained with the chosen rate; their seeds are not those of
    the trials."""
    draws: int = 40
    """Number of random draws by which bias and spread of a random rule are measured."""

    @property
    def sizes(self) -> _atlas_training.Sizes:
        """The sizes that determine the compiled programs."""
        names = _atlas_training.Sizes._fields
        return _atlas_training.Sizes(*(getattr(self, name) for name in names))


def main(config: Config) -> report.Result:
    """Train and measure all combinations; write and show the results."""
    return run_study("atlas", config, _jobs, _finish, free=("tasks", "cells", "rules"))


def _jobs(config: Config) -> list[Job]:
    missing = without_data(config.tasks)
    for name, reason in missing.items():
        report.log(f"The task {name} is left out: {reason}")
    tasks = tuple(name for name in config.tasks if name not in missing)
    return [
        Job(" ".join(names), 2 * config.updates, partial(_row, config, names))
        for names in _atlas_rules.combinations(tasks, config.cells, config.rules)
    ]


def without_data(tasks: tuple[str, ...]) -> dict[str, str]:
    """Return {task whose data are neither here nor can be downloaded: the reason}."""
    missing = {}
    for name in tasks:
        try:
            NEEDED.get(name, lambda: None)()
        except DataError as error:
            missing[name] = str(error).splitlines()[0]
    return missing


def _row(config: Config, names: tuple[str, str, str], way: Way) -> Row:
    return _atlas_training.run(*names, config.sizes, config.first_seed, way.advance)


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    _atlas_report.show(rows)
    report.save_picture(
        folder, "atlas", _atlas_report.draw(rows), alt=_atlas_report.describe(rows),
        caption=_atlas_report.CAPTION,
    )  # fmt: skip
