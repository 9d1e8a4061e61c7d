"""Options of all studies, and a function that runs the jobs of a study."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import jax

from experiments import report
from experiments.harness.jobs import Job, open_run, Row, run_jobs
from experiments.harness.options import at_least, at_quick_size, Check, known
from experiments.harness.placement import local_devices
from experiments.harness.precision import PRODUCTS, products_in

Config = TypeVar("Config", bound="Study")


@dataclasses.dataclass(frozen=True)
class Study:
    """Options that every study has; a subclass for each study adds its own options.

    A subclass is also a frozen dataclass. A subclass sets the class attributes `QUICK`,
    `CHECKS`, `FILES` and `ENDINGS`, without type annotations so that these attributes
    do not become options:

    - `QUICK`: {option: value for `--quick`}. With these values, the study takes at most
      60 s on two cores.
    - `CHECKS`: {"option another_option …": check of each of these options}. The checks
      are from `harness.options`.
    - `FILES`: names of the options that are paths of the user's files or folders. A run
      cannot be resumed if one of them has changed. In a folder, only files with one of
      the endings in `ENDINGS`, in lower case, count; by default all files.

    The method `check` of a subclass checks conditions that concern several options.
    """

    QUICK: ClassVar[Mapping[str, Any]] = {}
    CHECKS: ClassVar[Mapping[str, Check]] = {}
    FILES: ClassVar[tuple[str, ...]] = ()
    ENDINGS: ClassVar[tuple[str, ...]] = ()

    seeds: int = 1
    """Number of runs of each job, with different initial weights or random numbers."""
    first_seed: int = 0
    """Seed of the first run; seeds of all other runs are derived from it."""
    quick: bool = False
    """Small sizes, for a run of less than a minute."""
    resume: bool = False
    """Continuation of the stopped run in --out; finished jobs are not repeated."""
    overwrite: bool = False
    """Deletion of the earlier run in --out, before this run starts there."""
    out: Path | None = None
    """Folder for results; by default runs/<study>-<time>."""

    def __post_init__(self):
        """Run the checks in `CHECKS`, then the method `check`."""
        for names, check in ({"seeds": at_least(1)} | dict(self.CHECKS)).items():
            for name in names.split():
                check(name, getattr(self, name))
        if self.resume and self.out is None:
            raise ValueError("resume needs out, the folder of the run to continue.")
        if self.resume and self.overwrite:
            raise ValueError(
                "resume and overwrite exclude each other: resume goes on with the run "
                "in out, overwrite deletes it."
            )
        self.check()

    def check(self) -> None:
        """Check conditions that concern several options; by default there are none."""


@dataclasses.dataclass(frozen=True)
class TrainingStudy(Study):
    """Options of a study that trains by `training.fit` or `training.sweep`."""

    devices: int | None = None
    """Number of devices to train on: accelerators or, if there are none, parts of the
    CPU. Networks that train together are divided over them, otherwise batches. By
    default, one device; a sweep of settings uses all devices."""
    precision: Literal["default", "float32", "tensorfloat32", "bfloat16"] = "default"
    """Precision to which the factors of matrix products may be rounded; parameters and
    sums are float32. The default of JAX is float32 on CPUs, TF32 on recent GPUs, and
    bfloat16 on TPUs. CPUs always compute in float32."""

    def __post_init__(self):
        """Check the options of all studies, then those of this class."""
        super().__post_init__()
        at_least(1)("devices", self.devices)
        known(PRODUCTS)("precision", self.precision)


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
    `quick` is set, opens the folder of the run, runs the jobs with a progress bar,
    prints the results, and writes report.html from the tables and pictures. After
    Ctrl-C, the results so far are printed, with the command that continues the run.

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
    devices, precision = None, "default"
    if isinstance(config, TrainingStudy):
        devices, precision = config.devices, config.precision
    if devices is not None:
        local_devices(devices)  # raises an error before the folder is made
    free = {"devices", *free} & {field.name for field in dataclasses.fields(config)}
    with (
        products_in(precision),
        open_run(name, config, free, check) as (config, folder),
        telling(name, folder),
    ):
        start = time.perf_counter()
        rows, interrupted = run_jobs(folder, make_jobs(config), devices)
        if rows:
            with report.recording() as blocks:
                finish(folder, config, rows)
            report.write_page(
                folder, blocks, study=name, config=config, interrupted=interrupted,
                seconds=sum({row["job"]: row["wall_seconds"] for row in rows}.values()),
            )  # fmt: skip
        report.say_where(folder, time.perf_counter() - start, interrupted, name)
    return report.Result(rows, folder, interrupted)


@contextmanager
def telling(study: str, folder: Path) -> Iterator[None]:
    """Say how to continue a run: at its beginning, and after SIGTERM.

    Nothing can be said after SIGKILL, therefore the log says it at the beginning. After
    SIGTERM, which `kill` and job schedulers send, the process ends as it would without
    this function.
    """
    how = report.how_to_continue(study, folder)
    report.log(f"Results go to {folder}. If the run is stopped:\n{how}")
    main = threading.current_thread() is threading.main_thread()
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not main or not default or jax.process_count() > 1:  # JAX stops all processes
        yield
        return

    def tell(number, frame):
        if report.writes():
            os.write(2, f"\nStopped by a signal. {how}\n".encode())
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
