"""Two processes of two devices each: as one, and after one of them was killed."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from experiments._devices import Machine
from experiments.scale import char_lm

SIZES = {"units": 8, "embedding": 8, "streams": 8, "window": 8, "steps": 50}
SIZES |= {"chunk": 10, "tested": 100}
# What a scheduler does to one process, after the log of step 30, before a checkpoint.
KILLED = """
import os, signal, sys
from bpvariants import training
from experiments import __main__ as command

log = training.JsonLog.__call__

def log_and_die(self, step, metrics):
    log(self, step, metrics)
    if step == 30:
        os.kill(os.getpid(), signal.SIGKILL)

training.JsonLog.__call__ = log_and_die
sys.exit(command.main(sys.argv[1:]))
"""


def start(out, *options, killed=False, cache):
    """Start both processes of a run; one that `killed` names kills itself."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["char_lm", "--distributed", "--processes", "2", *options]
    options += ["--coordinator", f"localhost:{port}", "--devices", "2"]
    options += ["--heartbeat", "10", "--out", str(out)]
    for name, value in SIZES.items():
        options += [f"--{name}", str(value)]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    started = []
    for process in range(2):
        program = ["-c", KILLED] if killed and process else ["-m", "experiments"]
        command = [sys.executable, *program, *options, "--process-id", str(process)]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
    return started


def end(started):
    """Return the exit codes of both processes, and what they said."""
    said = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], said


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, plain_jax):
    """Folders of runs: in one process, in two, in two of which one was killed."""
    folder = tmp_path_factory.mktemp("processes")
    start_ = lambda out, *options, **more: start(
        folder / out, *options, cache=folder / "cache", **more
    )
    whole = end(start_("two"))  # and compiles for those that come after
    unlucky = start_("killed", killed=True)
    with plain_jax():  # while the one that is left waits for the other
        machine = Machine(devices=4)
        char_lm.main(char_lm.Config(**SIZES, machine=machine, out=folder / "one"))
    broken = end(unlucky)
    before = lines(folder / "killed" / "log.jsonl")
    again = end(start_("killed", "--resume"))
    return folder, whole, broken, before, again


def bits(folder, name):
    (run,) = lines(folder / name / "results.jsonl")
    assert len(run["bits"]) == SIZES["steps"]
    return run["bits"]


def test_two_processes_are_as_one(runs):
    folder, (codes, said), *_ = runs
    assert codes == [0, 0], said
    np.testing.assert_allclose(bits(folder, "two"), bits(folder, "one"), rtol=1e-5)
    (run,) = lines(folder / "two" / "results.jsonl")
    assert (run["processes"], run["mesh"]) == (2, {"data": 4, "model": 1})


def test_a_dead_process_ends_the_run_with_a_message(runs):
    _, _, (codes, said), before, _ = runs
    assert codes[0] != 0
    assert codes[1] == -signal.SIGKILL
    for process, message in enumerate(said):
        assert f"process {process} of 2 ended before its work was done" in message
        assert "--resume" in message
    assert [line["step"] for line in before] == [10, 20, 30]


def test_a_run_that_was_killed_goes_on_bit_by_bit(runs):
    folder, *_, (codes, said) = runs
    assert codes == [0, 0], said
    assert bits(folder, "killed") == bits(folder, "two")
    log, want = (lines(folder / name / "log.jsonl") for name in ("killed", "two"))
    assert log == want
    (run,) = lines(folder / "killed" / "results.jsonl")
    assert run["resumed_from"] in (10, 20)
