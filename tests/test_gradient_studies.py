"""The studies that look into gradients run, and show what is known otherwise."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.static import _alignment_report, _lenet, alignment, chain_rule
from experiments.static._feedback_rules import alignment_weights, make_rule
from experiments.through_time import _flow_report, flow


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def check(result, pictures):
    """The file has the rows, and pictures are no empty ones."""
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for picture in pictures:
        assert (result.folder / f"{picture}.png").stat().st_size > 10_000


def test_chain_rule(tmp_path, capsys):
    result = chain_rule.main(chain_rule.Config(hidden=3, out=tmp_path))
    check(result, ["chain", "factors"])
    assert jnp.zeros(1).dtype == jnp.float32  # the setting is what it was
    of = lambda kind: [row for row in result.rows if row["row"] == kind]
    assert len(of("layer")) == len(of("weight")) == 2
    for row in of("layer"):
        assert row["by hand"] < 1e-14
        assert row["jax.grad"] < 1e-14
        assert 0 < row["differences"] < 1e-8
    for row in of("weight"):
        product = row["error"] * row["slope"] * row["input"]
        assert abs(product) > 1e-3
        for way in ("by hand", "backprop", "jax.grad"):
            assert row[way] == pytest.approx(product, rel=1e-12)
        assert row["differences"] == pytest.approx(product, rel=1e-7)
    (total,) = of("paths")
    assert total["error"] == pytest.approx(total["sum"], rel=1e-12)
    assert total["unit"] == of("weight")[0]["to"]
    printed = capsys.readouterr().out
    assert "layer shapes   ‖y‖" in printed
    numbers = ["24.7041", "138.8338", "645.5773"]
    for way in ("backprop", "jax.grad", "published"):
        assert [f"{row[way]:.4f}" for row in of("micrograd")] == numbers
    assert all(number in printed for number in numbers)


def test_chain_rule_in_float32():
    config = chain_rule.Config(hidden=3, precision="float32")
    params, x, target = chain_rule._problem(config)
    others = chain_rule._other_gradients(params, x, target)
    assert {leaf.dtype for leaf in jax.tree.leaves(others)} == {jnp.dtype("float32")}
    for layer in range(2):
        pair = (others[name][layer] for name in ("differences", "jax.grad"))
        assert 1e-7 < chain_rule._apart(*pair) < 0.1


def test_chain_rule_takes_digits_that_there_are(tmp_path):
    with pytest.raises(SystemExit, match="example must be less than the 1347 digits"):
        chain_rule.main(chain_rule.Config(example=1347, out=tmp_path))


def test_flow(tmp_path, monkeypatch, capsys):
    """Of tanh with small inputs, J is its matrix; of an LRU, its eigenvalues."""
    monkeypatch.setattr(flow, "CELLS", ("tanh", "lru"))
    monkeypatch.setattr(flow, "STARTS", ("orthogonal",))
    config = flow.Config(
        units=3, scale=1e-3, length=6, windows=2, steps=2, batch=2, seeds=2,
        out=tmp_path,
    )  # fmt: skip
    result = flow.main(config)
    check(result, ["flow"])
    assert [row["trained"] for row in result.rows] == [0, 2, 0, 2]
    tanh, lru = (row for row in result.rows if not row["trained"])
    # Not 0, as tanh has slopes of 1 − h²: 2e-5 here, and with the square of the scale.
    np.testing.assert_allclose(tanh["exponent"], 0, atol=1e-4)
    assert tanh["verdict"] == ["steady"] * 2
    low, high = np.log(flow.RINGS["orthogonal"])
    assert low < min(lru["exponent"]) <= max(lru["exponent"]) < high
    assert np.shape(lru["curve"]) == (2, 6)
    assert "tanh, orthogonal, before" in capsys.readouterr().out


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


@pytest.fixture
def enlarged(monkeypatch):
    """The digits of scikit-learn in the place of those that are not committed."""

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
        assert max(row["error"]) < 45  # 90 by chance
    exact, signs = (np.array(row["grads"]) for row in result.rows)
    np.testing.assert_allclose(exact, 0, atol=0.05)
    np.testing.assert_allclose(signs[..., -1], 0, atol=0.05)
    assert (signs[..., :-1] > 10).all()
    assert (signs[:, -1, :-1] < 80).all()
    assert "0.94" in capsys.readouterr().out  # published


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
    curve = {"cell": "gru", "start": "normal", "beta": [0.9], "curve": [[1.0, 0.5]]}
    curves = [curve | {"trained": steps} for steps in (0, 5)]
    pictures = {
        "errors": (_alignment_report.draw_errors([row]), "epochs", "test error, %"),
        "angles": (_alignment_report.draw_angles([row]), "epochs", "degrees"),
        "flow": (_flow_report.draw(curves), "lag k (steps back)", "‖∂ℓ_s/∂h_{s−k}‖"),
    }
    for figure, x, y in pictures.values():
        assert all(axis.get_xlabel() == x for axis in figure.axes)
        assert figure.axes[0].get_ylabel().endswith(y)
        assert figure.axes[-1].get_legend() is not None
    (line, *_) = pictures["errors"][0].axes[0].lines
    assert line.get_ydata().tolist() == [90, 8.5, 6]
    assert line.get_label() == "FA, 6.00 %"


def test_an_interruption_keeps_what_was_finished(enlarged, tmp_path, monkeypatch):
    def interrupt(config, rule, *_):
        if rule == "fa":
            raise KeyboardInterrupt
        errors, angles = [[90.0, 5.0]], [[[0.0] * 5] * 2]
        row = {"rule": rule, "error": [5.0], "best": [5.0], "epochs": [0, 1]}
        return row | {"errors": errors, "grads": angles, "ms_per_step": 1.0}, False

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
    assert (asked[0].images, asked[0].seeds, asked[0].rules) == (4000, 1, ("bp",))


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (chain_rule, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (chain_rule, {"example": -1}, "example must be at least 0, got -1"),
        (flow, {"length": 2}, "length must be at least 3, got 2"),
        (flow, {"scale": 0.0}, "scale must be positive, got 0.0"),
        (alignment, {"seeds": 0}, "seeds must be at least 1, got 0"),
        (alignment, {"rate": 0.0}, "rate must be positive, got 0.0"),
        (alignment, {"rules": ("bp", "sf")}, "rules must be some of bp, fa.*got sf"),
        (alignment, {"rules": ()}, "got none"),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
