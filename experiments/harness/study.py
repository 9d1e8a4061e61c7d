"""What every study has: its options, and the course of its `main`."""

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
    """The options that every study has; a study adds its own.

    A subclass is a frozen dataclass, too. Its class attributes `QUICK` and `CHECKS`
    need no type annotation, so that they are no options:

    - `QUICK`: {option: value}, the sizes of the small form, at most 60 s on two cores.
    - `CHECKS`: {"option other_option": check}, with checks of `harness.options`.

    Conditions between several options go into a method `check`.
    """

    QUICK: ClassVar[Mapping[str, Any]] = {}
    CHECKS: ClassVar[Mapping[str, Check]] = {}

    seeds: int = 1
    """How many runs of each kind, from different initial weights or draws."""
    first_seed: int = 0
    """The seed of the first run; the others follow from it."""
    quick: bool = False
    """A small form of the study, in less than a minute."""
    resume: bool = False
    """Continue the run in --out; finished jobs are skipped."""
    out: Path | None = None
    """Folder to write to; by default runs/<study>-<time>."""

    def __post_init__(self):
        """Check the options."""
        for names, check in ({"seeds": at_least(1)} | dict(self.CHECKS)).items():
            for name in names.split():
                check(name, getattr(self, name))
        if self.resume and self.out is None:
            raise ValueError("resume needs out, the folder of the run to go on with.")
        self.check()

    def check(self) -> None:
        """Check conditions between several options; by default there are none."""


def run_study(
    name: str,
    config: Config,
    make_jobs: Callable[[Config], Sequence[Job]],
    finish: Callable[[Path, Config, list[Row]], None],
    *,
    free: Collection[str] = (),
    check: Callable[[Config], Any] | None = None,
) -> report.Result:
    """Run the jobs of a study that are not done yet; show and write what they found.

    This is the course of every study's `main`: small sizes if `quick`, the folder, the
    jobs with progress, and after Ctrl-C too what was finished so far.

    Args:
      name: of the study, and so of its folder.
      config: its options.
      make_jobs: config -> jobs, of different names.
      finish: (folder, config, rows) -> None; prints tables and saves pictures. Called
        if there are rows.
      free: options that may differ from those of the run that is resumed.
      check: config -> None, called before anything is written; raises a `DataError`
        if data or files are missing.
    """
    config = at_quick_size(config, **config.QUICK)
    config, folder = open_run(name, config, free, check)
    start = time.perf_counter()
    rows, interrupted = run_jobs(folder, make_jobs(config))
    if rows:
        finish(folder, config, rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)
