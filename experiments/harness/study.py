"""Options of all studies, and a function that runs the jobs of a study."""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from experiments import report
from experiments.harness.jobs import Job, open_run, Row, run_jobs
from experiments.harness.options import at_least, at_quick_size, Check

Config = TypeVar("Config", bound="Study")


@dataclasses.dataclass(frozen=True)
class Study:
    """Options that every study has; a subclass for each study adds its own options.

    A subclass is also a frozen dataclass. A subclass sets the class attributes `QUICK`,
    `CHECKS` and `FILES`, without type annotations so that these attributes do not
    become options:

    - `QUICK`: {option: value for `--quick`}. With these values, the study takes at most
      60 s on two cores.
    - `CHECKS`: {"option another_option …": check of each of these options}. The checks
      are from `harness.options`.
    - `FILES`: names of the options that are paths of the user's files. A run cannot be
      resumed if one of these files has changed.

    The method `check` of a subclass checks conditions that concern several options.
    """

    QUICK: ClassVar[Mapping[str, Any]] = {}
    CHECKS: ClassVar[Mapping[str, Check]] = {}
    FILES: ClassVar[tuple[str, ...]] = ()

    seeds: int = 1
    """Number of runs of each kind, with different initial weights or random numbers."""
    first_seed: int = 0
    """Seed of the first run; seeds of all other runs are derived from it."""
    quick: bool = False
    """Run the study with small sizes, in less than a minute."""
    resume: bool = False
    """Continue the run in --out; finished jobs are skipped."""
    out: Path | None = None
    """Folder to write to; by default runs/<study>-<time>."""

    def __post_init__(self):
        """Check each option alone, then conditions that concern several options."""
        for names, check in ({"seeds": at_least(1)} | dict(self.CHECKS)).items():
            for name in names.split():
                check(name, getattr(self, name))
        if self.resume and self.out is None:
            raise ValueError("resume needs out, the folder of the run to continue.")
        self.check()

    def check(self) -> None:
        """Check conditions that concern several options; by default there are none."""


def run_study(
    name: str,
    config: Config,
    make_jobs: Callable[[Config], Sequence[Job]],
    finish: Callable[[Path, Config, list[Row]], None],
    *,
    free: Collection[str] = (),
    check: Callable[[Config], Any] | None = None,
) -> report.Result:
    """Run the unfinished jobs of a study; print and write the results.

    Most studies call this function in `main`. The function applies small sizes if
    `quick` is set, opens the folder of the run, runs the jobs with a progress bar, and
    prints the results. After Ctrl-C, the results so far are printed.

    Args:
      name: name of the study, also used for the default folder.
      config: the study's options.
      make_jobs: function (config) -> jobs; the jobs must have different names.
      finish: function (folder, config, rows) -> None that prints tables and saves
        pictures; it is called only if there are result rows.
      free: names of options that may have new values when a run is resumed.
      check: function (config) -> None that raises a `DataError` if data or files are
        missing; it is called before any file is written.
    """
    config = at_quick_size(config, **config.QUICK)
    with open_run(name, config, free, check) as (config, folder):
        start = time.perf_counter()
        rows, interrupted = run_jobs(folder, make_jobs(config))
        if rows:
            finish(folder, config, rows)
        report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)
