"""Tests of the study alignment: its results, network and feedback rules."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.static import _alignment_report, _lenet, alignment
from experiments.static._feedback_rules import alignment_weights, make_rule


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def check(result, pictures):
    """Check that results.jsonl has the rows of a run and that no picture is empty."""
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for picture in pictures:
        assert (result.folder / f"{picture}.png").stat().st_size > 10_000


@pytest.fixture
def enlarged(monkeypatch):
    """Replace MNIST by the digits of scikit-learn, enlarged to MNIST's size."""

    def enlarge(images, labels):
        images = np.kron(images.reshape(-1, 8, 8), np.ones((1, 3, 3), np.float32))
        return np.pad(images, ((0, 0), (2, 2), (2, 2))), labels

    small = data.digits()
    digits = data.MNIST(enlarge(*small.train), enlarge(*small.test))
    monkeypatch.setattr(data, "mnist", lambda: digits)


def test_alignment(enlarged, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(alignment, "LOOKS", 2)
    config = alignment.Config(
        rules=("bp", "usf"), images=800, epochs=2, batch=16, test=200, seeds=2,
        out=tmp_path,
    )  # fmt: skip
    result = alignment.main(config)
    check(result, ["errors", "angles"])
    for row in result.rows:
        assert np.shape(row["errors"]) == (2, 3)
        assert np.shape(row["grads"]) == (2, 3, 5)
        assert row["epochs"] == [0, 1, 2]
        assert max(row["error"]) < 45  # the error without training is 90 %
    exact, signs = (np.array(row["grads"]) for row in result.rows)
    np.testing.assert_allclose(exact, 0, atol=0.05)
    np.testing.assert_allclose(signs[..., -1], 0, atol=0.05)
    assert (signs[..., :-1] > 10).all()
    assert (signs[:, -1, :-1] < 80).all()
    # The table also prints the published value.
    shown = capsys.readouterr().out
    assert "0.94" in shown
    assert "No difference in test error" in shown or "Lowest test error" in shown
    check_resume(config, result)


def check_resume(config, result):
    """Resume a run that was killed between its last checkpoint and its row."""
    path = result.folder / "results.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    again = alignment.main(dataclasses.replace(config, resume=True))
    for name in ("rule", "error", "best", "epochs", "errors", "deltas", "grads"):
        assert [row[name] for row in again.rows] == [row[name] for row in result.rows]


@pytest.mark.parametrize("rule", alignment.RULES)
def test_rules_are_called_alike(rule):
    params = _lenet.init(jax.random.key(0))
    feedback = alignment_weights(rule, jax.random.key(1), params)
    shapes = [None if B is None else jax.tree.map(jnp.shape, B) for B in feedback or ()]
    kernels = [{"b": None, "w": shape} for shape in _lenet.SHAPES[1:]]
    nothing = {"b": None, "w": None}
    want = {"fa": [nothing, *kernels], "frsf": [nothing, *kernels]}
    want["dfa"] = [(10, 14, 14, 6), (10, 5, 5, 16), (10, 120), (10, 84), None]
    assert shapes == want.get(rule, [])
    images, labels = jnp.zeros((3, 28, 28, 1)), jnp.zeros(3, int)
    call = make_rule(rule)
    (value, _), grads = jax.eval_shape(
        call, params, feedback, images, labels, jax.random.key(2)
    )
    assert value.shape == ()
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


def test_layers_of_lenet_are_those_of_xla():
    y = jax.random.normal(jax.random.key(0), (3, 14, 14, 6))
    w = jax.random.normal(jax.random.key(1), (5, 5, 6, 4))
    for (convolve, activation), padding in zip(
        _lenet.LAYERS[:2], ("SAME", "VALID"), strict=True
    ):
        want = jax.lax.conv_general_dilated(
            y, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        s = convolve({"w": w, "b": jnp.arange(4.0)}, y)
        np.testing.assert_allclose(s, want + jnp.arange(4.0), rtol=1e-4, atol=1e-4)
        pooled = nn.max_pool(jax.nn.relu(s), (2, 2), (2, 2))
        np.testing.assert_array_equal(activation(s), pooled)


def test_pictures_say_what_they_show():
    angles = [[[30.0] * 5] * 3] * 2
    row = {"rule": "fa", "error": [5.0, 7.0], "epochs": [0, 1, 2], "grads": angles}
    row |= {"errors": [[90.0, 9.0, 5.0], [90.0, 8.0, 7.0]]}
    pictures = {
        "errors": (_alignment_report.draw_errors([row]), "epochs", "test error, %"),
        "angles": (_alignment_report.draw_angles([row]), "epochs", "degrees"),
    }
    for figure, x, y in pictures.values():
        assert all(axis.get_xlabel() == x for axis in figure.axes)
        assert figure.axes[0].get_ylabel().endswith(y)
        assert figure.axes[-1].texts[0].get_text().startswith("FA")
    (line, *_) = pictures["errors"][0].axes[0].lines
    assert line.get_ydata().tolist() == [90, 8.5, 6]
    assert line.get_label() == "FA, 6.00 % (published: 1.7 %)"


def test_an_interruption_keeps_what_was_finished(enlarged, tmp_path, monkeypatch):
    def interrupt(config, rule, *_):
        if rule == "fa":
            raise KeyboardInterrupt
        errors, angles = [[90.0, 5.0]], [[[0.0] * 5] * 2]
        row = {"rule": rule, "error": [5.0], "best": [5.0], "epochs": [0, 1]}
        return row | {"errors": errors, "grads": angles, "ms_per_step": 1.0}

    monkeypatch.setattr(alignment, "_row", interrupt)
    result = alignment.main(alignment.Config(images=10, seeds=1, out=tmp_path))
    assert result.interrupted
    assert [row["rule"] for row in result.rows] == ["bp"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1


def test_quick_is_less(enlarged, tmp_path, monkeypatch):
    asked = []

    def stop(config, *_):
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(alignment, "_row", stop)
    alignment.main(alignment.Config(quick=True, rules=("bp",), out=tmp_path))
    assert (asked[0].images, asked[0].seeds, asked[0].rules) == (2000, 1, ("bp",))


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (alignment, {"seeds": 0}, "seeds must be at least 1, got 0"),
        (alignment, {"rate": 0.0}, "rate must be positive, got 0.0"),
        (alignment, {"rules": ("bp", "sf")}, "rules must be some of bp, fa.*got sf"),
        (alignment, {"rules": ()}, "rules must have one value at least"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
