"""Runs killed by `kill -9` at random points: does each, resumed, end as if it were not?

What is compared, to the bit: params, the state of the optimizer, of the online rule,
the losses of all steps, and the log, byte by byte.
"""

import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import report
from experiments.harness import options


@dataclasses.dataclass(frozen=True)
class Config:
    """Kill a training with SIGKILL at random points, resume it, and compare."""

    kills: int = 20
    """How many runs to kill, each once."""
    steps: int = 4000
    """Steps of a run."""
    chunk: int = 100
    """Steps between two checkpoints."""
    units: int = 16
    """Size of the network."""
    seed: int = 0
    """Of the moments at which to kill."""
    out: Path | None = None
    """Folder to write to; by default runs/kill_resume-<time>."""

    def __post_init__(self):
        """Check the options."""
        options.check_at_least_one(self, "kills", "steps", "chunk", "units")


def main(config: Config) -> report.Result:
    """Run, kill, resume and compare; show a table, and write it to a folder."""
    folder, start = report.make_folder("kill_resume", config.out), time.perf_counter()
    report.write_config(folder, config)
    rows, interrupted, draw = [], False, random.Random(config.seed)
    try:
        with report.Progress(config.kills + 1) as progress:
            progress.begin("uninterrupted", 1)
            whole = folder / "whole"
            _finish(whole, config)
            seconds = _seconds_per_chunk(whole, config)
            for i in range(config.kills):
                progress.begin(f"kill {i + 1} of {config.kills}", 1)
                row = _one(folder / f"killed-{i}", whole, config, draw, seconds)
                rows.append(row)
                report.append_row(folder, row)
    except KeyboardInterrupt:
        interrupted = True
    _show(rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _one(
    folder: Path, whole: Path, config: Config, draw: random.Random, seconds: float
) -> dict[str, Any]:
    """Kill one run and resume it; tell where, and whether it ended as the whole one."""
    chunks = -(-config.steps // config.chunk)
    process = _start(folder, config)
    after = draw.randrange(chunks)
    while process.poll() is None and _lines(folder) < after:
        time.sleep(seconds / 20)
    time.sleep(draw.random() * seconds)
    process.kill()
    process.wait()
    row = {"after": _lines(folder) * config.chunk}
    row |= {"finished": (folder / "reached.npz").exists()}
    unfinished = [*(folder / "checkpoints").glob("*tmp*")]
    row |= {"while_writing": bool(unfinished)}
    _finish(folder, config)
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


def _finish(folder: Path, config: Config) -> None:
    if _start(folder, config).wait():
        errors = (folder / "errors.txt").read_text()
        raise RuntimeError(f"the run in {folder} failed:\n{errors[-2000:]}")


def _seconds_per_chunk(whole: Path, config: Config) -> float:
    """Return how long a chunk and its checkpoint took, by the times of two of them."""
    steps = sorted(int(path.name) for path in (whole / "checkpoints").glob("[0-9]*"))
    first, last = (
        (whole / "checkpoints" / str(step)).stat().st_mtime
        for step in (steps[0], steps[-1])
    )
    return (last - first) / max(1, (steps[-1] - steps[0]) // config.chunk)


def _lines(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _show(rows: list[dict[str, Any]]) -> None:
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
    note = "Writing: a checkpoint was, when the process was killed. Equal: to the bit."
    report.show_table("Killed and resumed", header, table, note)
