"""Tests of the study copy_adding: its tasks, cells and gradient flow."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from experiments.networks import cells
from experiments.through_time import (
    _copy_adding_report,
    _memory_tasks,
    copy_adding,
)


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def test_copy_adding(check_run, check_resumed, tmp_path, monkeypatch, capsys):
    trained = copy_adding._trained(copy_adding.Config(lookbacks=(8,)))
    names = [(cell, rule) for cell, rule, _ in trained]
    assert names == [(cell, "bptt") for cell in cells.DENSE] + [
        ("lstm", "truncated_bptt, lookback 8, every 4")
    ]
    monkeypatch.setattr(copy_adding, "_trained", lambda config: trained[:1])
    config = copy_adding.Config(
        copy_length=2, adding_length=4, units=3, batch=2, steps=2, out=tmp_path
    )
    result = copy_adding.main(config)
    assert len(result.rows) == 2
    check_run(result, tmp_path, ["loss", "flow"])
    for row in result.rows:
        assert np.shape(row["curve"]) == (2, 2)
        assert np.shape(row["flow_after"]) == (2, 22 if row["task"] == "copy" else 4)
        assert np.isfinite(row["curve"]).all()
        assert (np.array(row["flow_before"]) > 0).all()
    # Loss of an RNN, published by Bai et al.
    printed = capsys.readouterr().out
    assert ".0202" in printed
    assert "Adding: Lowest loss: tanh by bptt (" in printed
    assert "the floor (" in printed
    truncated = {
        "rule": "truncated_bptt, lookback 8, every 4",
        "cell": "lstm",
        "below": [None, 1],
    }
    _copy_adding_report.show([row | truncated for row in result.rows], config)
    printed = capsys.readouterr().out
    assert "never, 1" in printed
    assert ".164" not in printed  # published loss of full BPTT
    check_resumed(copy_adding, result)


def test_tasks_have_the_losses_without_memory_that_they_state():
    copying = _memory_tasks.copy_memory(7)
    xs, targets, weights = copying.draw(jax.random.key(0), 500)
    assert xs.shape == (27, 500, 10)
    symbols = np.argmax(xs, axis=-1)
    np.testing.assert_array_equal(targets[-10:], symbols[:10])
    assert set(np.unique(symbols[:10])) == set(range(1, 9))
    assert (symbols[10:16] == 0).all()
    assert (symbols[16:] == 9).all()
    assert not targets[:17].any()
    guess = jnp.where(jnp.arange(9) == 0, -jnp.inf, 0.0)
    known = jnp.where(jnp.arange(9) == 0, 0.0, -jnp.inf)
    says = jnp.where(jnp.arange(27)[:, None] < 17, known, guess)[:, None]
    losses = copying.loss(jnp.broadcast_to(says, (27, 500, 9)), targets)
    mean = float(jnp.sum(weights * losses) / weights.sum())
    assert mean == pytest.approx(copying.floor) == pytest.approx(10 * math.log(8) / 27)
    for length, floor in {1000: 0.020387, 500: 0.03999, 100: 0.17329}.items():
        digits = 0.5 * 10.0 ** -len(str(floor).partition(".")[2])
        assert abs(_memory_tasks.copy_memory(length).floor - floor) < digits

    adding = _memory_tasks.adding(9)
    xs, targets, weights = adding.draw(jax.random.key(1), 20_000)
    values, marks = xs[..., 0], xs[..., 1]
    assert (marks[:4].sum(axis=0) == 1).all()
    assert (marks[4:].sum(axis=0) == 1).all()
    np.testing.assert_allclose(targets[-1], (values * marks).sum(axis=0), rtol=1e-6)
    assert (weights[:-1] == 0).all()
    assert (weights[-1] == 1).all()
    losses = adding.loss(jnp.ones((20_000, 1)), targets[-1])
    assert float(losses.mean()) == pytest.approx(adding.floor, abs=0.004)
    assert adding.floor == pytest.approx(0.16667, abs=5e-6)


@pytest.mark.parametrize(
    ("name", "flax_cell"), [("gru", nn.GRUCell(3)), ("lstm", nn.LSTMCell(3))]
)
def test_cells_are_those_of_flax(name, flax_cell):
    params = cells.init(jax.random.key(0), name, 2, 3, 5)
    ours = params["cell"]
    h, x = jax.random.normal(jax.random.key(1), (2, 3)), jnp.ones((2, 2))
    carry = (h, h / 2) if name == "lstm" else h
    theirs = flax_cell.init(jax.random.key(2), carry, x)["params"]
    gates = "ifgo" if name == "lstm" else "rzn"
    inner = ours.get("candidate_bias")
    for i, gate in enumerate(gates):
        part = slice(3 * i, 3 * (i + 1))
        theirs[f"i{gate}"]["kernel"] = ours["inputs"][:, part]
        theirs[f"h{gate}"]["kernel"] = ours["recurrent"][:, part]
        to = f"h{gate}" if name == "lstm" else f"i{gate}"
        theirs[to]["bias"] = ours["bias"][part]
    if inner is not None:
        ours["candidate_bias"] = theirs["hn"]["bias"] = jnp.array([0.1, -0.2, 0.3])
    want, _ = flax_cell.apply({"params": theirs}, carry, x)
    got, y = cells.make_step(name)(params, carry, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert y.shape == (2, 5)


def test_gradient_flow_is_the_derivative_in_each_state():
    task = _memory_tasks.adding(5)
    params = cells.init(jax.random.key(0), "lstm", 2, 3, 1)
    got = copy_adding.gradient_flow(task, "lstm", params)
    step, zeros = cells.make_step("lstm"), cells.CELLS["lstm"].carry
    xs, targets, _ = task.draw(jax.random.key(2), copy_adding.SHOWN)
    carry, want = zeros(params["cell"], (copy_adding.SHOWN,)), []
    for t in range(5):
        carry, y = step(params, carry, xs[t])
        if t == 4:
            break

        def rest(carry, t=t):
            _, ys = gradients.unroll(step, params, carry, xs[t + 1 :])
            return jnp.sum(task.loss(ys[-1], targets[-1]))

        parts = jax.grad(rest)(carry)
        want.append(np.linalg.norm(np.concatenate(parts, axis=1), axis=1).mean())
    # The last carry h_T affects the loss ℓ only through the readout y = V h_T, so
    # ∂ℓ/∂h_T = 2 (y − target) V.
    size = np.linalg.norm(params["readout"])
    want.append(np.mean(2 * np.abs(y[:, 0] - targets[-1]) * size))
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (copy_adding, {"tasks": ("sort",)}, "tasks must be some of copy, adding"),
        (copy_adding, {"copy_length": 0}, "copy_length must be at least 1, got 0"),
        (copy_adding, {"lookbacks": (3, 0)}, r"lookbacks must be .* got \(3, 0\)"),
        (copy_adding, {"truncated_cell": "rnn"}, "truncated_cell must be one of tanh"),
        (copy_adding, {"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
