"""Tests of the study encoders, with numbers of epochs from the paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resilient import encoders


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def test_clipped_logistic_keeps_its_slope():
    s = jnp.array([-20.0, 0.3, 20.0])
    y, slope = jax.vmap(
        lambda s: jax.value_and_grad(encoders.clipped_logistic)(s, 0.01)
    )(s)
    np.testing.assert_allclose(y, np.clip(1 / (1 + np.exp(-s)), 0.01, 0.99), rtol=1e-6)
    np.testing.assert_allclose(slope, y * (1 - y), rtol=1e-6)


def test_encoders_study_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(encoders, "VARIANTS", ("rprop_plus", "irprop_plus"))
    config = encoders.Config(
        seeds=2, weights=(0.5,), clip=(0.001,), max_epochs=20, out=tmp_path
    )
    result = encoders.main(config)
    assert len(result.rows) == 4 * len(encoders.VARIANTS)
    assert (tmp_path / "encoders.png").stat().st_size > 10_000
    shown = " ".join(capsys.readouterr().out.split())
    assert "322 ± 112" in shown
    assert (
        "12-2-12 with Δ₀ = 1. Left out, as runs were stuck: 2 of 2 settings." in shown
    )
    path = tmp_path / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    again = encoders.main(dataclasses.replace(config, resume=True))
    assert len(again.rows) == len(result.rows)
    assert [row["epochs"] for row in again.rows] == [
        row["epochs"] for row in result.rows
    ]
    with pytest.raises(ValueError, match=r"clip must be in \[0, 0.4\), got \(0.5,\)"):
        encoders.Config(clip=(0.5,))


@pytest.mark.slow
def test_the_encoder_is_learned_as_fast_as_in_the_paper(tmp_path):
    """Compare the mean number of training epochs with the numbers in the paper.

    The paper reports 30 epochs with default settings, and 19 with the best settings.
    """
    config = encoders.Config(seeds=20, weights=(0.5,), clip=(0.001,))
    epochs = encoders._epochs(config, "10-5-10", 0.1, "rprop_plus", 0.5, 0.001)
    assert epochs.max() < config.max_epochs
    # The tolerances are standard deviations of the mean number of epochs.
    assert abs(epochs.mean() - 30) < 4.6
    epochs = encoders._epochs(config, "10-5-10", 2.0, "rprop_plus", 1.0, 0.001)
    assert abs(epochs.mean() - 19) < 4.3
    stuck = encoders._epochs(config, "12-2-12", 0.1, "rprop_plus", 0.5, 0.0)
    # If output errors are not clipped, more than half of the runs never reach the
    # target error.
    assert (stuck == config.max_epochs).mean() > 0.5
