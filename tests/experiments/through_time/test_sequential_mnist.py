"""Tests of the study sequential_mnist: a short run, and images read as sequences."""

import numpy as np
import pytest

from experiments import data
from experiments.through_time import sequential_mnist


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture
def small(monkeypatch):
    """Replace MNIST by twenty images of noise."""
    images = np.random.default_rng(0).uniform(size=(20, 28, 28)).astype(np.float32)
    noise = images, np.arange(20, dtype=np.int32) % 10
    monkeypatch.setattr(data, "mnist", lambda: data.MNIST(noise, noise))


def test_sequential_mnist(small, check_run, check_resumed, tmp_path, capsys):
    short = {"units": 3, "epochs": 0.4, "batch": 4, "test": 15}
    config = sequential_mnist.Config(
        side=4, cells=("tanh", "lstm"), out=tmp_path, **short
    )
    result = sequential_mnist.main(config)
    assert len(result.rows) == 2
    check_run(result, tmp_path, ["sequential_mnist"])
    assert all(row["steps"] == 2 for row in result.rows)
    shown = " ".join(capsys.readouterr().out.split())
    assert "our task is another" in shown
    assert "One seed: no statement about differences in test accuracy" in shown
    check_resumed(sequential_mnist, result)
    one = {"side": 28, "rows": True, "permuted": True, "cells": ("gru",)} | short
    losses = []
    for name, options in {
        "whole": {"remat": "step"},
        "all": {"lookback": 28},
        "windows": {"lookback": 2},
    }.items():
        config = sequential_mnist.Config(out=tmp_path / f"row-{name}", **one, **options)
        losses.append(sequential_mnist.main(config).rows[0]["values"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[2][0] == pytest.approx(losses[0][0])
    assert abs(losses[2][1] - losses[0][1]) > 1e-3


def test_each_seed_is_a_row(small, tmp_path, capsys):
    config = sequential_mnist.Config(
        side=2, cells=("tanh",), units=2, epochs=0.2, batch=4, seeds=2, out=tmp_path
    )
    rows = sequential_mnist.main(config).rows
    assert [row["seed"] for row in rows] == [0, 1]
    assert rows[0]["values"] != rows[1]["values"]
    assert "±" in capsys.readouterr().out


def test_images_are_read_as_sequences():
    images = np.arange(2 * 28 * 28, dtype=np.float32).reshape(2, 28, 28)
    read = lambda **options: sequential_mnist.as_sequences(
        images, sequential_mnist.Config(**options)
    )
    np.testing.assert_array_equal(read(side=28)[:, :, 0], images.reshape(2, -1))
    np.testing.assert_array_equal(read(side=28, rows=True), images)
    pooled = read(side=14)
    assert pooled.shape == (2, 196, 1)
    assert pooled[1, 15, 0] == images[1, 2:4, 2:4].mean()
    mixed = read(side=14, permuted=True)
    np.testing.assert_array_equal(np.sort(mixed, axis=1), np.sort(pooled, axis=1))
    assert (mixed[0, :, 0].argsort() == mixed[1, :, 0].argsort()).all()
    assert (mixed != pooled).any()


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (sequential_mnist, {"side": 5}, "side must be 28, 14, 7, 4 or 2, got 5"),
        (sequential_mnist, {"epochs": 0.0}, "epochs must be positive, got 0.0"),
        (sequential_mnist, {"lookback": -1}, "lookback must be at least 0, got -1"),
        (sequential_mnist, {"cells": ("tcn",)}, "cells must be some of tanh, gru"),
        (
            sequential_mnist,
            {"lookback": 3, "remat": "step"},
            "remat is for BPTT; with truncated BPTT, lookback=3",
        ),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
