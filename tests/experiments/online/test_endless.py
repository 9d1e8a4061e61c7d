"""Tests of a learner on a stream: a real pipe, a kill, and a file that grows."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.harness.errors import DataError
from experiments.online import endless
from experiments.online._endless_learner import Learner, load, save

ROOT = pathlib.Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "experiments.online.endless"]


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def lines(count):
    """Return rows of a noisy oscillation, with its quarter-period copy."""
    rng = np.random.default_rng(0)
    t = np.arange(count) * 2 * np.pi / 17
    rows = np.stack([10 + np.sin(t), 500 * np.cos(t)], axis=1)
    rows += rng.normal(size=rows.shape) * [0.02, 10]
    return [f"{a:.5f},{b:.3f}\n" for a, b in rows]


def begin(state, *options):
    pipe = subprocess.PIPE
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    given = [*COMMAND, "--state", str(state), "--units", "6", *options]
    return subprocess.Popen(
        given,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        cwd=ROOT,
    )


@pytest.mark.slow
def test_a_pipe_is_learned_killed_and_resumed(tmp_path):
    rows = lines(600)
    whole = begin(tmp_path / "whole.npz")
    said, told = whole.communicate("".join(rows))
    assert whole.returncode == 0, told
    expected = said.splitlines()
    assert len(expected) == 600
    # Each row is scored before it is learned: a prediction depends on earlier rows
    # only, and the network is better than the row before on this stream.
    own, other = (
        np.sqrt(np.mean((np.array(pairs) - truth) ** 2, axis=0))
        for pairs, truth in (
            (_numbers(expected[300:-1]), _numbers(rows[301:])),
            (_numbers(rows[300:-1]), _numbers(rows[301:])),
        )
    )
    assert (own < 0.7 * other).all()

    cut = begin(tmp_path / "cut.npz", "--every", "100")
    for number, row in enumerate(rows[:350]):
        cut.stdin.write(row)
        cut.stdin.flush()
        # The answer comes at once, while the pipe is open.
        assert cut.stdout.readline() == expected[number] + "\n"
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    *_, place = load(tmp_path / "cut.npz")
    assert place["lines"] == 300
    resumed = begin(tmp_path / "cut.npz", "--again")
    said, told = resumed.communicate("".join(rows))
    assert "resumed after 300 lines" in told
    assert said.splitlines() == expected[300:]
    states = [load(tmp_path / name)[1] for name in ("whole.npz", "cut.npz")]
    jax.tree.map(np.testing.assert_array_equal, *states)


def _numbers(texts):
    return np.array([[*map(float, text.split(","))] for text in texts])


@pytest.mark.slow
def test_a_file_that_grows_is_followed(tmp_path):
    rows, log = lines(40), tmp_path / "log.csv"
    log.write_text("a,b\n" + "".join(rows[:20]) + rows[20][:4])
    follows = begin(tmp_path / "state.npz", "--file", str(log), "--follow")
    first = [follows.stdout.readline() for _ in range(20)]
    with log.open("a") as file:
        file.write(rows[20][4:] + "1,2,3\n" + "nan,1\n" + "".join(rows[21:30]))
    first += [follows.stdout.readline() for _ in range(10)]
    time.sleep(0.3)
    follows.send_signal(signal.SIGTERM)
    _, told = follows.communicate(timeout=60)
    assert follows.returncode == 0
    assert "line 1 is skipped: 'a,b" in told
    assert "line 23 is skipped: '1,2,3" in told
    assert "line 24 is skipped: 'nan,1" in told
    with log.open("a") as file:
        file.write("".join(rows[30:]))
    goes_on = begin(tmp_path / "state.npz", "--file", str(log))
    said, _ = goes_on.communicate()
    alone = begin(tmp_path / "alone.npz", "--file", str(log))
    everything, _ = alone.communicate()
    assert "".join(first) + said == everything
    log.write_text("1,2\n")
    shorter = begin(tmp_path / "state.npz", "--file", str(log))
    _, told = shorter.communicate()
    assert shorter.returncode == 1
    assert "is shorter than what the learner in" in told


def test_what_is_no_learner_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    for content in (b"", b"PK", b"1,2\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is no learner of this version"):
            endless.main(endless.Config(path, file=tmp_path / "log.csv"))
    learner = Learner(2, 3, 1e-3)
    save(path, learner, learner.init(), {"lines": 0, "bytes": 0})
    assert load(path)[0] == learner
    with pytest.raises(ValueError, match="follow needs file"):
        endless.Config(path, follow=True)
    with pytest.raises(DataError, match=r"--file: .*: No such file"):
        endless.main(endless.Config(path, file=tmp_path / "no.csv"))
