"""Tests of training by two processes, also if one is killed or gets Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from experiments.harness.devices import Machine
from experiments.scale import char_lm

SIZES = {"units": 8, "embedding": 8, "streams": 8, "window": 8, "steps": 50}
SIZES |= {"chunk": 10, "tested": 100}
# This program runs one complete training. Then it runs a training whose last process is
# killed after the log of step 30, before the checkpoint. Both are in one program,
# because starting the processes takes most of the time.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from bpvariants import training
from experiments import report
from experiments.harness import devices
from experiments.scale import char_lm

report.save_picture = lambda *_: None  # as test_scale.py sees it drawn
sizes, options, whole, killed = map(json.loads, sys.argv[1:])
machine = devices.Machine(**options)
devices.start(machine)
config = lambda out: char_lm.Config(**sizes, machine=machine, out=Path(out))
devices.run(char_lm.main, config(whole))
log = training.JsonLog.__call__

def log_and_die(self, step, metrics):
    log(self, step, metrics)
    if step == 30 and machine.process_id == 1:
        os.kill(os.getpid(), signal.SIGKILL)

training.JsonLog.__call__ = log_and_die
devices.run(char_lm.main, config(killed))
"""
# This program resumes the killed training. Then it starts a training with too many
# steps to finish, and sends Ctrl-C to the last process only.
AGAIN = """
import json, os, signal, sys
from pathlib import Path
from bpvariants import training
from experiments import __main__ as command
from experiments.harness import devices
from experiments.scale import char_lm

sizes, options, command_line, out = map(json.loads, sys.argv[1:])
assert command.main(command_line) == 0
machine = devices.Machine(**options)
log = training.JsonLog.__call__

def log_and_press(self, step, metrics):
    log(self, step, metrics)
    if step == 20 and machine.process_id == 1:
        os.kill(os.getpid(), signal.SIGINT)

training.JsonLog.__call__ = log_and_press
signal.signal(signal.SIGINT, signal.default_int_handler)
sizes |= {"steps": 10**6}
devices.run(char_lm.main, char_lm.Config(**sizes, machine=machine, out=Path(out)))
"""


def start(folder, make_command):
    """Start both processes of a run, each with its own command."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"devices": 2, "distributed": True, "processes": 2, "heartbeat": 10}
    common |= {"coordinator": f"localhost:{port}"}
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    started = []
    for process in range(2):
        command = [sys.executable, *make_command(common | {"process_id": process})]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
    return started


def as_options(settings):
    """Convert settings to command-line options."""
    options = [(f"--{name.replace('_', '-')}", v) for name, v in settings.items()]
    return [
        word
        for name, value in options
        for word in ([name] if value is True else [name, str(value)])
    ]


def end(started):
    """Return the exit codes and the messages of both processes."""
    said = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], said


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, plain_jax):
    """Return the folders of runs by one process, by two, and by two with one killed."""
    folder = tmp_path_factory.mktemp("processes")
    out = [str(folder / name) for name in ("two", "killed")]
    program = lambda machine: [
        "-c", PROGRAM, *map(json.dumps, (SIZES, machine, *out)),
    ]  # fmt: skip
    unlucky = start(folder, program)
    with plain_jax():
        machine = Machine(devices=4)
        char_lm.main(char_lm.Config(**SIZES, machine=machine, out=folder / "one"))
    broken = end(unlucky)
    before = lines(folder / "killed" / "log.jsonl")
    given = SIZES | {"resume": True, "out": out[1]}

    def command(machine):
        line = ["char_lm", *as_options(given), *as_options(machine)]
        given_on = [SIZES, machine, line, str(folder / "interrupted")]
        return ["-c", AGAIN, *map(json.dumps, given_on)]

    again = end(start(folder, command))
    return folder, broken, before, again


def bits(folder, name):
    (run,) = lines(folder / name / "results.jsonl")
    assert len(run["bits"]) == SIZES["steps"]
    return run["bits"]


def test_two_processes_are_as_one(runs):
    folder, (_, said), *_ = runs
    assert (folder / "two" / "results.jsonl").exists(), said
    np.testing.assert_allclose(bits(folder, "two"), bits(folder, "one"), rtol=1e-5)
    (run,) = lines(folder / "two" / "results.jsonl")
    assert (run["processes"], run["mesh"]) == (2, {"data": 4, "model": 1})


def test_a_dead_process_ends_the_run_with_a_message(runs):
    _, (codes, said), before, _ = runs
    assert codes[0] != 0
    assert codes[1] == -signal.SIGKILL
    for process, message in enumerate(said):
        assert f"process {process} of 2 ended before its work was done" in message
        assert "--resume" in message
    assert [line["step"] for line in before] == [10, 20, 30]


def test_a_run_that_was_killed_goes_on_bit_by_bit(runs):
    folder, *_, (codes, said) = runs
    # Both processes of the interrupted run have exited with 130.
    assert codes == [130, 130], said
    assert bits(folder, "killed") == bits(folder, "two")
    log, want = (lines(folder / name / "log.jsonl") for name in ("killed", "two"))
    assert log == want
    (run,) = lines(folder / "killed" / "results.jsonl")
    assert run["resumed_from"] in (10, 20)


def test_ctrl_c_in_one_process_ends_all_after_the_same_chunk(runs):
    folder, *_, (codes, said) = runs
    assert codes == [130, 130], said
    assert all("interrupted" in message for message in said), said
    steps = [line["step"] for line in lines(folder / "interrupted" / "log.jsonl")]
    saved = (folder / "interrupted" / "checkpoints").glob("[0-9]*")
    assert max(int(path.name) for path in saved) == steps[-1] > 20
    assert steps == list(range(10, steps[-1] + 10, 10))
