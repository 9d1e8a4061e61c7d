"""Tests of training on full disks and with damaged files."""

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import optax
import pytest

from bpvariants import training

pytestmark = pytest.mark.slow

# Train 9 steps with a checkpoint after each; from step 5 on, the disk is full.
PROGRAM = """
import os, resource, sys
import jax, jax.numpy as jnp, numpy as np, optax
from bpvariants import training

folder, full = sys.argv[1:]
rule = lambda w, x: ((jnp.sum((w - x) ** 2), None), 2 * (w - x))

def log(step, metrics):
    if step != 5:
        return
    if full == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
    if full == "disk":
        with open(folder + "/other", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

result = training.fit(
    rule, optax.sgd(0.1, momentum=0.9), jax.random.normal(jax.random.key(0), (5000,)),
    (3.0,), steps=9, chunk=1, log=[training.JsonLog(folder + "/log.jsonl"), log],
    checkpoint=training.Checkpoint(folder + "/checkpoints"),
)
print(result.resumed_from)
np.savez(sys.argv[1] + "/result.npz", *jax.tree.leaves(result[:4]))
"""


def run(folder, full="no"):
    command = [sys.executable, "-c", PROGRAM, str(folder), full]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@contextlib.contextmanager
def small_disk(folder):
    """Mount a disk of 1 MB in memory, on which not all checkpoints fit."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("a file system in memory may not be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder).stdout == "None\n"
    return folder


def check_same(folder, whole):
    assert (folder / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    want = np.load(whole / "result.npz")
    got = np.load(folder / "result.npz")
    assert sorted(got) == sorted(want)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize("full", ["limit", "disk"])
def test_a_full_disk_ends_a_training_that_then_resumes(tmp_path, whole, full):
    disk = small_disk(tmp_path) if full == "disk" else contextlib.nullcontext()
    with disk:
        ended = run(tmp_path, full)
        assert ended.returncode == 1
        reason = "No space left" if full == "disk" else "File too large"
        assert reason in ended.stderr
        (tmp_path / "other").unlink(missing_ok=True)
        again = run(tmp_path)
        assert again.stdout.strip() in {"3", "4", "5"}, again.stderr
        check_same(tmp_path, whole)


def test_a_training_killed_at_any_time_resumes(tmp_path, whole):
    """Kill a training by kill -9 and resume it, each time after a longer delay."""
    for tenth in range(30, 200, 6):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), "no"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(tenth / 10)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
    assert process.returncode == 0, said
    check_same(tmp_path, whole)


@pytest.fixture
def unfinished_reads():
    """Run the garbage collector now, because it warns of unfinished reads by orbax."""
    yield
    gc.collect()


@pytest.mark.usefixtures("unfinished_reads")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine .* was never awaited:RuntimeWarning",
)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "zeros"])
def test_a_damaged_file_costs_a_checkpoint_and_gives_no_wrong_number(
    tmp_path, whole, damage
):
    """Damage each file of the last checkpoint in turn; resume from what is left.

    Some files are never read, so a checkpoint with such a damaged file may still be
    used.
    """
    folder, like = whole / "checkpoints", np.zeros(5000, np.float32)
    before = shutil.copytree(folder, tmp_path / "before")
    shutil.rmtree(before / "9")
    want = dict(training.read_checkpoint(each, like) for each in (folder, before))
    assert list(want) == [9, 8]
    steps = []
    for i, file in enumerate(sorted((folder / "9").rglob("*"))):
        if file.is_dir():
            continue
        copy = shutil.copytree(folder, tmp_path / str(i))
        spoil(copy / file.relative_to(folder), damage)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            step, params = training.read_checkpoint(copy, like)
        np.testing.assert_array_equal(params, want[step])
        skipped = any("cannot be read and is skipped" in str(w.message) for w in told)
        assert skipped == (step == 8), file
        steps.append(step)
    assert steps.count(8) >= 3


def test_a_folder_that_cannot_be_written_to_is_named_at_once(tmp_path):
    """Use a folder under Linux's /proc, where even root cannot create a folder."""
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc")
    folder, never = "/proc/bpvariants", lambda *_: pytest.fail("it began to train")
    fit = lambda **given: training.fit(never, optax.sgd(0.1), 0.0, (), steps=1, **given)
    with pytest.raises(ValueError, match=r"directory /proc/.* cannot be written to"):
        fit(checkpoint=training.Checkpoint(folder))
    with pytest.raises(ValueError, match=r"path /proc/.* cannot be written to"):
        fit(log=training.JsonLog(folder + "/log.jsonl"))
    with pytest.raises(ValueError, match=r"path /proc/.* cannot be written to"):
        training.sweep(never, [{}], [0], steps=1, path=folder + "/table.jsonl")
    with pytest.raises(ValueError, match="/proc/bpvariants holds no checkpoint"):
        training.read_checkpoint(folder, 0.0)


def spoil(file, damage):
    content = bytearray(file.read_bytes())
    if damage == "flipped" and content:
        content[len(content) // 2] ^= 0x10
    if damage == "truncated":
        content = content[: len(content) // 2]
    if damage == "emptied":
        content = b""
    if damage == "zeros":
        content = bytes(len(content))
    file.write_bytes(content)
