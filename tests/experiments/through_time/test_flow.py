"""Tests of the study flow: a short run, compared with known gradient flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.through_time import _flow_report, flow


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def test_flow(check_run, check_resumed, tmp_path, monkeypatch, capsys):
    """Compare the measured gradient flow with known Jacobians J.

    For a tanh network with small inputs, J is the recurrent matrix. For an LRU (linear
    recurrent unit), J is the diagonal matrix of the eigenvalues.
    """
    monkeypatch.setattr(flow, "STARTS", ("orthogonal",))
    config = flow.Config(
        cells=("tanh", "lru"), units=3, scale=1e-3, length=6, windows=2, steps=2,
        batch=2, seeds=2, out=tmp_path,
    )  # fmt: skip
    result = flow.main(config)
    check_run(result, tmp_path, ["flow"])
    assert [row["trained"] for row in result.rows] == [0, 2, 0, 2]
    tanh, lru = (row for row in result.rows if not row["trained"])
    # The Lyapunov exponent is about −2e-5 instead of 0, because the slopes 1 − h² of
    # tanh are below 1. The difference is quadratic in the scale of the inputs.
    np.testing.assert_allclose(tanh["exponent"], 0, atol=1e-4)
    assert tanh["verdict"] == ["steady"] * 2
    low, high = np.log(flow.RINGS["orthogonal"])
    assert low < min(lru["exponent"]) <= max(lru["exponent"]) < high
    assert np.shape(lru["curve"]) == (2, 6)
    shown = " ".join(capsys.readouterr().out.split())
    assert "tanh, orthogonal, before" in shown
    said = "Gradients before training. Steady: tanh, orthogonal; lru, orthogonal."
    assert said in shown
    assert "Gradients after 2 updates. " in shown
    check_resumed(flow, result)


def test_what_orthogonal_starts_are():
    config = flow.Config(units=4)
    draw = lambda begin: flow.init(config, "lstm", begin, 7, jax.random.key(0))["cell"]
    gates = jnp.split(draw("orthogonal")["recurrent"], 4, axis=1)
    for i, gate in enumerate(gates):
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-6)
        assert i == 0 or jnp.any(gate != gates[0])
    normal = draw("normal")["recurrent"][:, :4]
    assert jnp.max(jnp.abs(normal.T @ normal - jnp.eye(4))) > 0.1
    assert draw("normal")["bias"].tolist() == [0] * 4 + [1] * 4 + [0] * 8


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (flow, {"length": 2}, "length must be at least 3, got 2"),
        (flow, {"scale": 0.0}, "scale must be positive, got 0.0"),
        (flow, {"cells": ("rnn",)}, "cells must be some of tanh, gru, lstm, lru"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)


def test_pictures_say_what_they_show():
    curve = {"cell": "gru", "start": "normal", "beta": [0.9], "curve": [[1.0, 0.5]]}
    figure = _flow_report.draw([curve | {"trained": steps} for steps in (0, 5)])
    assert all(axis.get_xlabel() == "lag k (steps back)" for axis in figure.axes)
    assert figure.axes[0].get_ylabel().endswith("‖∂ℓₛ/∂hₛ₋ₖ‖")
    assert [text.get_text() for text in figure.axes[-1].texts] == ["gru, β 0.900"]
