"""Study `benchmarks`: times of computations in bpvariants and in other libraries."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from experiments import report
from experiments.benchmarks._bptt import bptt
from experiments.benchmarks._fit import fit
from experiments.benchmarks._fixed_point import fixed_point
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._kernels import kernels
from experiments.benchmarks._learner import learner
from experiments.benchmarks._online import online
from experiments.benchmarks._parallel import parallel
from experiments.benchmarks._proben1 import proben1
from experiments.benchmarks._records import changes, read, show_changes, write
from experiments.benchmarks._rprop import rprop
from experiments.benchmarks._sweep import sweep
from experiments.benchmarks._tables import ratio, sentence, share, write_tables
from experiments.benchmarks._torch import waiting
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import at_least, known
from experiments.harness.study import run_study, Study

BENCHMARKS: dict[str, Callable[..., Groups]] = {
    "bptt": bptt,
    "fit": fit,
    "fixed_point": fixed_point,
    "kernels": kernels,
    "learner": learner,
    "online": online,
    "parallel": parallel,
    "rprop": rprop,
    "proben1": proben1,
    "sweep": sweep,
}


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """How fast is bpvariants compared with similar libraries?

    All libraries run the same computations. `pip install -e ".[peers]"` installs the
    other libraries. Notes in the table name the libraries that are not installed. The
    run also writes benchmarks.json, with the versions of all packages and the commit.
    """

    QUICK = {
        "only": ("bptt", "fixed_point", "online", "parallel", "rprop"),
        "groups": 1, "repeats": 3, "parameters": 1_000_000,
    }  # fmt: skip
    CHECKS = {
        "only": known(BENCHMARKS),
        "groups parameters": at_least(1),
        "repeats": at_least(2),
    }

    only: tuple[
        Literal[
            "bptt",
            "fit",
            "fixed_point",
            "kernels",
            "learner",
            "online",
            "parallel",
            "rprop",
            "proben1",
            "sweep",
        ],
        ...,
    ] = ()
    """Benchmarks to run; by default all benchmarks."""
    groups: int | None = None
    """Number of groups to time in each benchmark; by default all groups."""
    repeats: int = 30
    """Number of times that each implementation is timed; slow implementations are timed
    less often. The table shows the median time."""
    parameters: int = 4_000_000
    """Number of float32 parameters in the rprop benchmark. Use 100000000 or 1000000000
    on a GPU."""
    compare: Path | None = None
    """File benchmarks.json of an earlier run, or its folder: ratios that have changed
    beyond noise since then are shown."""
    tables: Path | None = None
    """Markdown page whose tables of benchmarks are replaced, such as docs/speed.md."""

    seeds: int = 1
    """Must be 1; the number of timings is set by --repeats."""
    first_seed: int = 0
    """Must be 0, because the timed computation does not depend on a seed."""

    def check(self) -> None:
        """Check that `seeds` and `first_seed` have their default values."""
        if (self.seeds, self.first_seed) != (1, 0):
            raise ValueError(
                "seeds must be 1 and first_seed 0, because the work is fixed; got "
                f"{self.seeds} and {self.first_seed}. To time it more often, set "
                "repeats."
            )


def main(config: Config) -> report.Result:
    """Run the benchmarks; print the measured times, and write them to a folder."""
    free = ("compare", "tables")
    return run_study("benchmarks", config, _jobs, _finish, free=free, check=_check)


def _check(config: Config) -> None:
    """Check before the run that the earlier run can be read."""
    if config.compare is not None:
        read(config.compare)


def _jobs(config: Config) -> list[Job]:
    jobs = []
    for name in config.only or tuple(BENCHMARKS):
        options = {"size": config.parameters} if name == "rprop" else {}
        groups = BENCHMARKS[name](**options).items()
        for group, race in itertools.islice(groups, config.groups):
            time_group = partial(_time, race, config.repeats)
            jobs.append(Job(f"{name}: {group}", 1, time_group))
    return jobs


def _time(race, repeats: int, way: Way) -> list[Row]:
    return [measured._asdict() for measured in race(repeats)]


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    """Show all timings by group, compare them with earlier ones, and write tables."""
    earlier = None if config.compare is None else read(config.compare)
    header = ["", "ms", "quartiles", "ratio", "cold ms", "floor", "compile s"]
    header += ["temp MiB", "note"]
    known = lambda number, form: "" if math.isnan(number) else format(number, form)
    lines, group = [], None
    for row in rows:
        if row["group"] != group:
            lines.append([row["group"]])
        group = row["group"]
        numbers = f"{row['ms']:.3g}", f"± {row['spread']:.0%}", ratio(row)
        cold = known(row["cold_ms"], ".3g"), share(row)
        more = known(row["compile_seconds"], ".1f"), known(row["temp_mib"], ".2f")
        lines.append([f"  {row['name']}", *numbers, *cold, *more, row["note"]])
    report.show_table(
        "Time of a call, lower is better",
        header,
        lines,
        "Median over calls in turns, with warm caches: each implementation is called "
        "twice in a round, and the first call (cold) is shown apart. Quartiles: half "
        "the interquartile range, relative to the median. Ratio: the time divided by "
        "the time of the first row in the group, with its 95 % bootstrap interval over "
        "rounds. Floor: the least time of this work on this machine, measured in the "
        f"same rounds, as a share of the time. {waiting()}",
    )
    report.conclude(sentence(rows))
    write(folder, rows)
    if config.compare is not None and earlier is not None:
        show_changes(changes(earlier, rows), config.compare)
    if config.tables is not None:
        done = write_tables(config.tables, rows)
        report.log(f"Tables written to {config.tables}: {', '.join(done) or 'none'}.")
