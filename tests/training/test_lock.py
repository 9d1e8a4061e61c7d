"""Tests of locks: only one process at a time may use a folder or a file."""

import json
import os
import socket
import subprocess
import sys

import jax
import optax
import pytest

from bpvariants import training

rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
GIVEN = {"steps": 2, "chunk": 1}
# This program acquires the lock, prints a line, and waits for an input line before it
# ends. With "fork", it starts a child process that inherits the lock.
HOLDER = """
import os, sys
from bpvariants import training

with training.locked(sys.argv[1]):
    if sys.argv[2:]:
        child = os.fork()
        if not child:
            sys.stdin.readline()
            os._exit(0)
        print(child, flush=True)
        os._exit(0)
    print("locked", flush=True)
    sys.stdin.readline()
"""


def fit(folder, **options):
    checkpoint = training.Checkpoint(folder)
    given = GIVEN | options
    return training.fit(
        rule, optax.sgd(0.5), 0.0, (3.0,), checkpoint=checkpoint, **given
    )


def hold(folder, *more):
    command = [sys.executable, "-c", HOLDER, str(folder), *more]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen(command, **pipes)
    return holder, holder.stdout.readline()


@pytest.mark.slow
def test_another_process_is_named_and_a_dead_one_gives_way(tmp_path):
    holder, _ = hold(tmp_path)
    who = f"in use by process {holder.pid} on {socket.gethostname()}. Wait until"
    with pytest.raises(ValueError, match=f"directory .* is {who}"):
        fit(tmp_path)
    holder.kill()  # Process.kill has the effect of kill -9.
    holder.communicate()
    assert (tmp_path / ".lock").exists()
    assert fit(tmp_path).steps == 2
    assert not (tmp_path / ".lock").exists()


@pytest.mark.slow
def test_the_child_of_a_dead_process_does_not_keep_its_lock(tmp_path):
    holder, child = hold(tmp_path, "fork")
    holder.wait()
    os.kill(int(child), 0)  # no error: the child process is alive
    assert fit(tmp_path).steps == 2
    holder.communicate("\n")


def test_a_lock_whose_process_number_is_in_use_again_is_taken_over(tmp_path):
    mine = {"pid": os.getpid(), "host": socket.gethostname()}
    # After a crash of the machine, the lock file may consist of zero bytes.
    for text in (json.dumps(mine), "", "\0\0"):
        (tmp_path / ".lock").write_text(text)
        with training.locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_two_trainings_of_one_process_do_not_share_a_folder(tmp_path):
    errors = []

    def log(step, metrics):
        with pytest.raises(ValueError, match=r"is in use by process") as error:
            fit(tmp_path)
        errors.append(error)

    assert fit(tmp_path, log=log).steps == 2
    assert len(errors) == 2
    assert fit(tmp_path).resumed_from == 2


@pytest.mark.parametrize("when", ["log", "opening", "metrics"])
def test_an_error_gives_the_lock_up(tmp_path, when, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("failed")

    if when == "opening":
        monkeypatch.setattr("bpvariants.training.checkpoints._store.open_writer", fail)
    if when == "metrics":
        monkeypatch.setattr("bpvariants.training.loop._loop.Metrics", fail)
    with pytest.raises(RuntimeError, match="failed"):
        fit(tmp_path, log=fail if when == "log" else None)
    monkeypatch.undo()
    assert not (tmp_path / ".lock").exists()
    assert fit(tmp_path).steps == 2


def test_reading_needs_no_lock(tmp_path):
    fit(tmp_path)
    with training.locked(tmp_path):
        assert training.read_checkpoint(tmp_path, 0.0)[0] == 2


def test_two_sweeps_do_not_share_a_file_but_a_folder(tmp_path):
    seen = []
    make_run = lambda config, key: (0.0, lambda state, t: (state, {"loss": state}))

    def sweep(name, progress=None):
        given = {"steps": 1, "path": tmp_path / name, "progress": progress}
        return training.sweep(make_run, [{}], [0], **given)

    def progress(*told):
        sweep("other")
        with pytest.raises(ValueError, match=r"path .*table is in use by process"):
            sweep("table")
        seen.append(told)

    assert len(sweep("table", progress).rows) == 1
    assert seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "table"]


def test_what_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ValueError, match=r"directory .*file.* cannot be written"):
            fit(folder)
    with pytest.raises(ValueError, match=r"path .* cannot be written to: Is a dir"):
        training.sweep(lambda *_: None, [{}], [0], steps=1, path=tmp_path)
