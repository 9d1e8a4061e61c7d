"""Tests of the study rprop_robustness: its problems, and its choice of settings."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates
from experiments import data
from experiments.harness.errors import DataError
from experiments.resilient import _rprop_robustness_report, rprop_robustness as study
from experiments.resilient._digits_mlp import digits_mlp


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


SMALL: Any = {
    "updates": ("irprop_minus", "adam"), "rates": (0.01, 0.1), "noise": (1.0,),
    "scales": (2.0,), "copies": (), "steps": 8, "seeds": 1,
}  # fmt: skip


def test_it_runs_and_goes_on(tmp_path, capsys):
    result = study.main(study.Config(out=tmp_path, **SMALL))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert (tmp_path / "robustness.png").stat().st_size > 10_000
    assert len(result.rows) == 2 * 2 * 2
    for row in result.rows:
        assert row["tuned_loss"][0] <= row["kept_loss"][0]
        if not row["level"]:
            assert row["tuned_rate"] == row["kept_rate"]
            assert row["kept_error"][0] < 60
    assert "rates kept: irprop_minus loses" in capsys.readouterr().out
    assert "rates kept: irprop_minus loses" in (tmp_path / "report.html").read_text()
    with pytest.raises(DataError, match="add --resume to go on"):
        study.main(study.Config(out=tmp_path, **SMALL))
    before = (tmp_path / "config.json").read_text()
    other = study.Config(out=tmp_path, resume=True, **(SMALL | {"steps": 9}))
    with pytest.raises(DataError, match="steps=9 differs from the run in"):
        study.main(other)
    assert (tmp_path / "config.json").read_text() == before
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines
    with pytest.raises(DataError, match="holds no run to resume"):
        study.main(study.Config(out=tmp_path / "new", resume=True))
    runs = tmp_path / study.RUNS
    kept = runs.read_text().splitlines(keepends=True)[:-3]
    runs.write_text("".join(kept))
    (tmp_path / "results.jsonl").unlink()  # written only at the end of a run
    again = study.main(study.Config(out=tmp_path, resume=True, **SMALL))
    for one, other in zip(result.rows, again.rows, strict=True):
        assert one["update"] == other["update"]
        np.testing.assert_allclose(one["kept_loss"], other["kept_loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("rprop", updates.irprop_minus(0.03)), ("sgd", optax.sgd(0.03))],
)
def test_without_a_difficulty_it_is_a_plain_loop(name, rule):
    setting = study.Setting(name, 0.03)
    key, constant = jax.random.key(3), name == "sgd"
    state, advance, evaluate = study.make_run(4, constant)(setting, key)
    (pixels, labels), _ = data.digits()
    seen = jnp.asarray((pixels - pixels.mean()) / pixels.std())
    np.testing.assert_allclose(state[2], seen, atol=1e-5)
    weights, slope = state[0], jax.jit(jax.value_and_grad(digits_mlp().loss))
    opt_state, follow = rule.init(weights), jax.jit(rule.update)
    step, losses = jax.jit(advance), []
    for t in range(4):
        state, metrics = step(state, t)
        losses.append(float(metrics["loss"]))
        value, grad = slope(weights, seen, labels)
        assert losses[-1] == pytest.approx(float(value), rel=1e-4)
        change, opt_state = follow(grad, opt_state, weights)
        weights = optax.apply_updates(weights, change)
    assert losses[-1] < losses[0]
    assert float(jax.jit(evaluate)(state)["train_loss"]) < losses[-1]


def test_difficulties_are_what_they_say():
    key, plain = jax.random.key(0), study.Setting("sgd", 1.0)
    (weights, _, images), advance, _ = study.make_run(1)(plain, key)
    scaled = study.make_run(1)(plain._replace(scales=3.0), key)[0][2]
    factors = jnp.median(scaled / images, axis=0)
    assert 1e-3 <= factors.min() < 1e-2
    assert 1e2 < factors.max() <= 1e3
    np.testing.assert_allclose(scaled, images * factors, rtol=1e-5, atol=1e-6)
    copied = study.make_run(1)(plain._replace(copies=2), key)[0][2]
    assert copied.shape == (1347, 3 * 64)
    own = np.asarray(copied).reshape(1347, 3, 64) - np.asarray(images)[:, None]
    assert not own[:, 0].any()
    assert own[:, 1:].std() == pytest.approx(study.OWN_NOISE, rel=0.02)
    loud = study.make_run(1)(plain._replace(noise=2.0), key)[1]
    labels = data.digits().train[1]
    gradient = jax.jit(jax.grad(digits_mlp().loss))(weights, images, labels)
    state = study.make_run(1)(plain, key)[0]
    quiet, noisy = (jax.jit(one)(state, 0)[0][0] - weights for one in (advance, loud))
    np.testing.assert_allclose(quiet, -gradient, rtol=1e-5, atol=1e-7)
    noise = noisy - quiet
    ratio = float(jnp.sqrt(jnp.mean(noise**2) / jnp.mean(gradient**2)))
    assert ratio == pytest.approx(2, rel=0.05)


def test_verdicts_compare_costs_beyond_their_spread():
    def rows(update, *errors):
        return [
            {"update": update, "axis": "noise", "level": level, "kept_error": error,
             "tuned_error": error}
            for level, error in zip((0, 1), errors, strict=True)
        ]  # fmt: skip

    given = rows("rprop", [5.0, 5.0], [7.0, 8.0])
    given += rows("adam", [5.0, 5.0], [9.0, 9.5]) + rows("sgd", [5.0, 5.0], [7.5, 8.5])
    given += rows("momentum", [5.0, 5.0], [5.0, 5.2])
    kept, _ = _rprop_robustness_report.verdicts(given)
    assert "rates kept: rprop loses +2.5 points" in kept
    assert "less than adam (+4.2)" in kept
    assert "about as sgd (+3.0)" in kept
    assert "more than momentum (+0.1)" in kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": ("addam",)}, "Did you mean 'adam'"),
        ({"updates": ()}, "updates must have one value at least"),
        ({"noise": (-1.0,)}, "noise must be positive"),
        ({"rates": ()}, "rates must have one value at least"),
        ({"resume": True}, "resume needs out"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
