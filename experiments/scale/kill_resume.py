"""Study `kill_resume`: training runs killed by `kill -9` at random times, and resumed.

At the end of training, each resumed run must be bit-identical to a run that was not
killed. The study compares the params, the states of the optimizer and of the online
rule, the losses of all training steps, and the log.
"""

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from experiments import report
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import at_least
from experiments.harness.study import run_study, Study

WHOLE = "uninterrupted"  # name of the job that is not killed


@dataclasses.dataclass(frozen=True)
class Config(Study):
    """Is a run that is killed and resumed bit-identical to an uninterrupted run?"""

    QUICK = {"kills": 2, "steps": 1000, "chunk": 50}
    CHECKS = {"kills steps chunk units": at_least(1)}

    kills: int = 20
    """Number of runs to kill; each run is killed once, at a random time."""
    steps: int = 4000
    """Number of training steps of a run."""
    chunk: int = 100
    """Number of training steps between two checkpoints."""
    units: int = 16
    """Number of units of the network."""

    seeds: int = 1
    """Must be 1, because --kills sets the number of runs."""

    def check(self) -> None:
        """Check that `seeds` is 1; the option `kills` sets the number of runs."""
        if self.seeds != 1:
            raise ValueError(
                f"seeds must be 1, got {self.seeds}; kills is the number of runs."
            )


def main(config: Config) -> report.Result:
    """Kill and resume training runs; show differences from an uninterrupted run."""
    return run_study("kill_resume", config, _jobs, _finish)


def _jobs(config: Config) -> list[Job]:
    draw, chunks = random.Random(config.first_seed), -(-config.steps // config.chunk)
    jobs = [Job(WHOLE, 1, partial(_run_whole, config))]
    for i in range(config.kills):
        moment = draw.randrange(chunks), draw.random()
        jobs.append(Job(f"killed-{i}", 1, partial(_kill_and_resume, config, moment)))
    return jobs


def _run_whole(config: Config, way: Way) -> list[Row]:
    """Train without interruption, unless the result already exists; return no rows."""
    whole = way.folder / "whole"
    if not (whole / "reached.npz").exists():
        _run_to_end(whole, config)
    return []


def _kill_and_resume(config: Config, moment: tuple[int, float], way: Way) -> Row:
    """Kill and resume one run; compare its final state with an uninterrupted run's.

    Args:
      config: options of the study.
      moment: the time at which to kill the run, as a pair: the number of finished
        chunks of training steps, and the fraction of the next chunk.
      way: name and folder of the job.
    """
    folder, whole = way.folder / way.job, way.folder / "whole"
    shutil.rmtree(folder, ignore_errors=True)  # remove files of an interrupted job
    seconds, (after, share) = _seconds_per_chunk(whole, config), moment
    process = _start(folder, config)
    while process.poll() is None and _lines(folder) < after:
        time.sleep(seconds / 20)
    time.sleep(share * seconds)
    process.kill()
    process.wait()
    row: Row = {"after": _lines(folder) * config.chunk}
    row |= {"finished": (folder / "reached.npz").exists()}
    unfinished = [*(folder / "checkpoints").glob("*tmp*")]
    row |= {"while_writing": bool(unfinished)}
    _run_to_end(folder, config)
    reached, expected = (np.load(each / "reached.npz") for each in (folder, whole))
    names = [name for name in expected.files if name != "resumed_from"]
    same = [reached[name].tobytes() == expected[name].tobytes() for name in names]
    logs = [(each / "log.jsonl").read_bytes() for each in (folder, whole)]
    begin = int(reached["resumed_from"])
    row |= {"resumed_from": None if begin < 0 else begin, "arrays": len(same)}
    return row | {"arrays_equal": sum(same), "log_equal": logs[0] == logs[1]}


def _start(folder: Path, config: Config) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    sizes = map(str, (config.steps, config.chunk, config.units))
    with (folder / "errors.txt").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.scale._killed_run", folder, *sizes],
            stderr=errors,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )


def _run_to_end(folder: Path, config: Config) -> None:
    if _start(folder, config).wait():
        errors = (folder / "errors.txt").read_text()
        raise RuntimeError(f"the run in {folder} failed:\n{errors[-2000:]}")


def _seconds_per_chunk(whole: Path, config: Config) -> float:
    """Return the time of a chunk of training steps and its checkpoint, in seconds.

    The time is computed from the times at which checkpoints were written.
    """
    steps = sorted(int(path.name) for path in (whole / "checkpoints").glob("[0-9]*"))
    first, last = (
        (whole / "checkpoints" / str(step)).stat().st_mtime
        for step in (steps[0], steps[-1])
    )
    return (last - first) / max(1, (steps[-1] - steps[0]) // config.chunk)


def _lines(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    header = ["killed after step", "writing", "resumed from", "arrays equal", "log"]
    known = lambda step: "the start" if step is None else str(step)
    table = [
        [
            str(row["after"]) + (" (end)" if row["finished"] else ""),
            "yes" if row["while_writing"] else "no",
            known(row["resumed_from"]),
            f"{row['arrays_equal']} of {row['arrays']}",
            "equal" if row["log_equal"] else "differs",
        ]
        for row in rows
    ]
    note = (
        "Writing: a checkpoint was being written when the process was killed. Equal: "
        "bit-identical to the run that was not killed, as all arrays should be."
    )
    report.show_table("Runs killed and resumed", header, table, note)
    same = [row["arrays_equal"] == row["arrays"] and row["log_equal"] for row in rows]
    if rows:
        report.conclude(
            f"{sum(same)} of {len(rows)} killed and resumed runs ended with the arrays "
            "and the log of the uninterrupted run, bit by bit."
        )
