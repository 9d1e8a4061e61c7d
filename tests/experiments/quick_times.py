"""Program that measures the time of every study, or of named studies, with `--quick`.

`python -m tests.experiments.quick_times [STUDY …]` prints a Markdown table of
wall-clock and CPU seconds. Each study runs once in its own process, so the machine
should be idle. The program fails if a study fails or takes more than a minute.

With the first argument `--whole`, the studies run in full, without a limit of time.
Without names, these are all studies whose time is missing in `experiments/studies.py`.
The seconds, divided by 60, are the `minutes` to write there. If a study takes too long
to run whole, stop it after some minutes, and scale the time by the jobs that its log
says are done; a comment beside the minutes says which part was run.
"""

import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from experiments.__main__ import STUDIES

LIMIT = 60  # limit of a study's wall-clock time in seconds


def main(names: list[str]) -> int:
    """Time the named studies, or all studies; return 0 if none takes too long."""
    whole = names[:1] == ["--whole"]
    names = names[1:] or unmeasured() if whole else names
    print("| study | seconds | CPU seconds |", "|---|---|---|", sep="\n", flush=True)
    slow = []
    for name in names or STUDIES:
        with tempfile.TemporaryDirectory() as folder:
            seconds, cpu = _run(name, pathlib.Path(folder) / "out", whole)
        print(f"| `{name}` | {seconds:.0f} | {cpu:.0f} |", flush=True)
        if seconds > LIMIT and not whole:
            slow.append(name)
    if slow:
        print(f"more than {LIMIT} s: {', '.join(slow)}")
    return 1 if slow else 0


def unmeasured() -> list[str]:
    """Return the studies that have no time in the list of studies."""
    return [name for name, entry in STUDIES.items() if entry.minutes is None]


def _run(name: str, out: pathlib.Path, whole: bool) -> tuple[float, float]:
    size = [] if whole else ["--quick"]
    command = [sys.executable, "-m", "experiments", name, *size, "--out", str(out)]
    before, start = _cpu(), time.perf_counter()
    run = subprocess.run(
        command, env=os.environ | {"MPLBACKEND": "agg"}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if run.returncode:
        raise RuntimeError(f"{name} failed: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    return seconds, _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
