"""Tests of the study add_task: its data, and the lowest possible losses."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients
from experiments import report
from experiments.networks import online
from experiments.online import (
    _add_task_report,
    _rules,
    add_task,
)
from tests.experiments.resuming import check_resumed, without_times


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


def test_floors_of_the_add_task_are_the_published_ones():
    found = add_task.floors()
    assert list(found) == ["nothing", "x_{t−t₂}", "x_{t−t₁}", "both"]
    want = [0.66156, 0.62774, 0.51917, 0.45445]
    np.testing.assert_allclose(list(found.values()), want, rtol=0, atol=5e-6)
    assert dict(zip(found, want, strict=True)) == _add_task_report.FLOORS


def test_streams_of_the_add_task_have_its_probabilities():
    xs, targets = add_task.stream(jax.random.key(0), 40_000, (2, 5))
    assert xs.shape == (40_000, 1)
    x, y = np.asarray(xs)[:, 0], np.asarray(targets)
    assert x.mean() == pytest.approx(0.5, abs=0.01)
    for a, b in itertools.product((0, 1), (0, 1)):
        chosen = (x[3:-2] == a) & (x[:-5] == b)
        want = 0.5 + 0.5 * a - 0.25 * b
        assert y[5:][chosen].mean() == pytest.approx(want, abs=0.02)


def test_add_task(tmp_path, capsys):
    config = add_task.Config(
        delays=((1, 2), (2, 3)), rules=("rtrl",), truncations=((5, 5),),
        units=3, steps=40, chunk=20, seeds=2, out=tmp_path,
    )  # fmt: skip
    result = add_task.main(config)
    check(result, tmp_path, 4, "add_task")
    curves = {(row["rule"], *row["delays"]): row["curve"] for row in result.rows}
    assert np.shape(curves["rtrl", 1, 2]) == (2, 2)
    assert np.isfinite(list(curves.values())).all()
    assert curves["rtrl", 1, 2][0] != curves["rtrl", 1, 2][1]
    assert curves["rtrl", 1, 2] != curves["rtrl", 2, 3]
    # Both rules start from equal parameters, so their losses are close in the first
    # chunk of training steps.
    begun = {name: np.array(curve)[:, 0] for name, curve in curves.items()}
    np.testing.assert_allclose(
        begun["truncated_bptt, lookback 5, every 5", 1, 2],
        begun["rtrl", 1, 2],
        rtol=0.02,
    )
    shown = capsys.readouterr().out
    assert "0.45445" in shown
    for about in ("t₁, t₂ = 1, 2", "t₁, t₂ = 2, 3"):
        said = (f"{about}: No difference in cross", f"{about}: Lowest cross-entropy")
        assert any(each in shown for each in said)
    check_resumed(add_task.main, config, result, lost=2, pictures=["add_task.png"])


def test_another_first_seed_makes_another_run(tmp_path):
    config = add_task.Config(
        delays=((1, 2),), rules=(), truncations=((1, 1),), units=2, steps=5, chunk=5,
        seeds=1, out=tmp_path / "0",
    )  # fmt: skip
    other = dataclasses.replace(config, first_seed=1, out=tmp_path / "1")
    (row,), (another,) = (add_task.main(each).rows for each in (config, other))
    assert row["loss"] != another["loss"]


def test_an_interruption_keeps_what_there_is(tmp_path, monkeypatch, capsys):
    def advance(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(report.Progress, "advance", advance)
    config = add_task.Config(
        rules=(), truncations=((1, 1), (1, 2)), units=2, steps=20, seeds=1, chunk=5,
        out=tmp_path,
    )  # fmt: skip
    result = add_task.main(config)
    assert result.interrupted
    assert [row["steps"] for row in result.rows] == [5]
    assert "Interrupted" in capsys.readouterr().out
    monkeypatch.undo()
    resumed = add_task.main(dataclasses.replace(config, resume=True))
    assert [row["steps"] for row in resumed.rows] == 4 * [20]
    whole = add_task.main(dataclasses.replace(config, out=tmp_path / "whole"))
    assert without_times(resumed.rows) == without_times(whole.rows)


def test_learning_online_is_rtrl_and_adam_step_by_step():
    network = online.network("tanh", 1, 2, 1, leak=0.5)
    params = network.init(jax.random.key(0))
    rule, adam = gradients.rtrl(network.step, add_task.loss), optax.adam(0.1)
    xs, targets = add_task.stream(jax.random.key(1), 4, (1, 2))
    state = rule.init(params, network.carry(params), (xs[0], targets[0]))
    pair = params, adam.init(params)
    learn = jax.jit(online.learn_online(rule, adam))
    (got, _), losses = learn(pair, state, xs, targets, jax.random.key(2))
    # At the first time step, the carry contains no past inputs, so the gradient is that
    # of a network with one time step.
    first = lambda params: add_task.loss(
        network.step(params, jnp.zeros(2), xs[0])[1], targets[0]
    )
    assert float(losses[0]) == pytest.approx(float(first(params)), rel=1e-5)
    want, opt_state = pair
    for x, target in zip(xs, targets, strict=True):
        _, grads, state = rule.update(want, state, x, target)
        change, opt_state = adam.update(grads, opt_state)
        want = optax.apply_updates(want, change)
    for a, b in zip(jax.tree.leaves(got[0]), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    h, _ = network.step(params, jnp.array([0.2, -0.4]), xs[0])
    inner = jnp.tanh(
        xs[0] @ params["cell"]["inputs"]
        + jnp.array([0.2, -0.4]) @ params["cell"]["recurrent"]
    )
    np.testing.assert_allclose(h, jnp.array([0.1, -0.2]) + inner / 2, rtol=1e-5)


def test_every_rule_is_begun_and_learns():
    network = online.network("tanh", 1, 2, 1)
    params = network.init(jax.random.key(0))
    sgd = optax.sgd(0.1)
    xs, targets = add_task.stream(jax.random.key(1), 9, (1, 2))
    for name, make in _rules.RULES.items():
        rule = make(network.step, add_task.loss)
        example = xs[0], targets[0]
        state = rule.init(params, network.carry(params), example)
        learn = jax.jit(online.learn_online(rule, sgd))
        pair = params, sgd.init(params)
        ((got, _), _), _ = learn(pair, state, xs, targets, jax.random.key(2))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(params), strict=True):
            assert not np.array_equal(a, b), name


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (add_task, {"delays": ((2, 2),)}, r"two different numbers ≥ 0, got \(2, 2\)"),
        (add_task, {"truncations": ((3, 3),)}, "must divide chunk=200; got"),
        (add_task, {"steps": 100}, "steps must be at least chunk=200, got 100"),
        (add_task, {"leak": 0.0}, r"leak must be in \(0, 1\], got 0.0"),
        (add_task, {"rules": ("rtlr",)}, "rules must be some of rtrl, .*; got rtlr"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
