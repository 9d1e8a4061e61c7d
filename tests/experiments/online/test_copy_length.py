"""Tests of the study copy_length: a short run, and the sequences that it generates."""

import dataclasses
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import report
from experiments.online import (
    _copy_task,
    copy_length,
)
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def check(result, folder, rows, picture):
    assert not result.interrupted
    assert len(result.rows) == rows
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert (folder / f"{picture}.png").stat().st_size > 10_000


def test_sequences_to_copy_ask_for_what_they_showed():
    draw = jax.jit(partial(_copy_task.draw_sequence, batch=50, longest=5))
    xs, targets, weights, mask = draw(jax.random.key(0), jnp.array(3))
    assert xs.shape == (10, 50, 3)
    shown = np.argmax(xs, axis=-1)
    assert set(np.unique(shown[:3])) == {0, 1}
    assert (shown[3:6] == 2).all()
    np.testing.assert_array_equal(targets[3:6], shown[:3])
    np.testing.assert_array_equal(weights[:, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(mask[:, 0], [True] * 6 + [False] * 4)
    guess = _copy_task.loss(jnp.zeros((1, 1)), jnp.ones(1))
    assert float(guess[0]) == pytest.approx(math.log(2))


def test_strings_grow_when_they_are_known_and_until_the_steps_are_taken():
    config = copy_length.Config(steps=30, share=0.5)
    known = lambda pair, *_: (jnp.array(0.0), pair)
    start = copy_length.Course(
        (), jnp.array(1), jnp.array(_copy_task.GUESS), jnp.array(0)
    )
    body = partial(copy_length.follow, config, known, (), 3)
    keys = jax.random.split(jax.random.key(0), 20)
    course, (steps, lengths, _) = jax.lax.scan(body, start, keys)
    # If every loss is 0, the moving average of the loss falls below half of its first
    # value after seven sequences, because 0.9^7 < 1/2. The strings then become longer.
    # All sequences together have 7·2 + 4·4 = 30 time steps.
    assert lengths.tolist() == [1] * 6 + [2] * 14
    assert steps.tolist() == [2, 4, 6, 8, 10, 12, 14, 18, 22, 26] + [30] * 10
    assert int(course.length) == 2
    guesses = lambda pair, *_: (jnp.array(_copy_task.GUESS), pair)
    body = partial(copy_length.follow, config, guesses, (), 3)
    _, (_, lengths, _) = jax.lax.scan(body, start, keys)
    assert (lengths == 1).all()


def test_copy_length(tmp_path, capsys):
    config = copy_length.Config(
        cells=("tanh",), rules=("rtrl",), truncations=((2, 2),), units=3,
        batch=2, steps=24, seeds=2, chunk=6, out=tmp_path,
    )  # fmt: skip
    result = copy_length.main(config)
    check(result, tmp_path, 3, "copy_length")
    rows = {row["rule"]: row for row in result.rows}
    assert list(rows) == ["bptt", "truncated_bptt, lookback 2, every 2", "rtrl"]
    for row in rows.values():
        assert row["length"] == [1, 1]
        assert row["steps"] == [[12, 24]] * 2
    # Each string has one bit, so each rule makes one update per string, and error
    # signals travel back to the start of the string.
    for row in rows.values():
        np.testing.assert_allclose(row["losses"], rows["bptt"]["losses"], rtol=1e-4)
    shown = " ".join(capsys.readouterr().out.split())
    assert "0.104 nats" in shown
    assert "tanh: No difference in length: the 95 % intervals of bptt;" in shown
    check_resumed(copy_length.main, config, result, pictures=["copy_length.png"])


@pytest.mark.slow
def test_stacks_of_lrus_learn_strings_of_a_fixed_length(tmp_path, capsys):
    config = copy_length.Config(
        cells=("lru",), layers=2, rules=("layerwise_rtrl",), truncations=((1, 1),),
        units=2, batch=2, shortest=3, longest=3, updates="sequence", steps=24,
        seeds=2, chunk=2, out=tmp_path,
    )  # fmt: skip
    result = copy_length.main(config)
    check(result, tmp_path, 3, "copy_length")
    rows = {row["rule"]: row for row in result.rows}
    assert all(row["length"] == [3, 3] for row in rows.values())
    np.testing.assert_allclose(rows["bptt"]["cosine"], 1, rtol=1e-5)
    biased = rows["layerwise_rtrl"]["cosine"]
    assert all(0 < cosine < 0.9999 for cosine in biased)
    assert rows["truncated_bptt, lookback 1, every 1"]["cosine"] != biased
    shown = " ".join(capsys.readouterr().out.split())
    assert "rtrl must equal bptt" in shown
    assert "lru: No difference in loss" in shown


def test_an_interruption_keeps_what_there_is(tmp_path, monkeypatch, capsys):
    def advance(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(report.Progress, "advance", advance)
    config = copy_length.Config(
        cells=("tanh",), rules=(), truncations=(), units=2, batch=1, seeds=1, chunk=5,
        steps=20, out=tmp_path,
    )  # fmt: skip
    result = copy_length.main(config)
    assert result.interrupted
    assert [row["steps"] for row in result.rows] == [[[10]]]
    assert "Interrupted" in capsys.readouterr().out
    monkeypatch.undo()
    resumed = copy_length.main(dataclasses.replace(config, resume=True))
    assert [row["steps"] for row in resumed.rows] == [[[10, 20]]]
    other = dataclasses.replace(config, first_seed=1, out=tmp_path / "other")
    (row,), (another,) = resumed.rows, copy_length.main(other).rows
    assert row["losses"] != another["losses"]


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (copy_length, {"cells": ("rnn",)}, "cells must be some of tanh, gru, lstm"),
        (copy_length, {"share": 1.0}, r"share must be in \(0, 1\), got 1.0"),
        (
            copy_length,
            {"truncations": ((5, 4),)},
            r"1 ≤ every ≤ lookback; got \(5, 4\)",
        ),
        (copy_length, {"cells": ("lru", "gru")}, "cells must be lru alone, or without"),
        (copy_length, {"layers": 2}, "layers must be 1 unless cells are lru alone"),
        (copy_length, {"cells": ("lru",)}, "rules must be .* got kf_rtrl|kf_rtrl"),
        (copy_length, {"shortest": 33}, "shortest must be at most longest"),
        (copy_length, {"updates": "never"}, "updates must be"),
        (copy_length, {"longest": 0}, "longest must be at least 1, got 0"),
        (copy_length, {"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
