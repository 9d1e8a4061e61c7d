"""Tests of the study identify: the simulated tanks, and learning against a loop."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

import experiments
from experiments import asking
from experiments.applications.identify import methods, study as identify, tanks
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def test_tanks_obey_torricelli():
    """Compare water tanks, simulated in small steps, with Torricelli's equation."""
    k, u, h = np.array(tanks.BEFORE), jnp.array(1.7), 1 / 200

    def slope(_, x):
        upper, lower = np.sqrt(x)
        return k[2] * u - k[0] * upper, k[0] * upper - k[1] * lower

    want = solve_ivp(slope, (0, 10), [1.0, 3.0], rtol=1e-9, atol=1e-9).y[:, -1]
    step = lambda x, _: (tanks.flow(h * jnp.array(k), x, u), None)
    got, _ = jax.lax.scan(step, jnp.array([1.0, 3.0]), length=2000)
    np.testing.assert_allclose(got, want, rtol=2e-3)
    settled = (k[2] * u / k[:2]) ** 2
    np.testing.assert_allclose(tanks.flow(jnp.array(k), settled, u), settled, rtol=1e-5)


def test_a_record_is_what_it_says():
    record = tanks.simulate(jax.random.key(0), 4000, jump=1000)
    error = np.asarray(record.targets - record.levels)
    assert error.std() == pytest.approx(tanks.MEASUREMENT, rel=0.05)
    np.testing.assert_allclose(record.xs[1:, 1], record.targets[:-1], rtol=1e-6)
    np.testing.assert_allclose(record.k[999], tanks.BEFORE)
    np.testing.assert_allclose(record.k[1000], tanks.AFTER)
    # A method that knows the true parameters predicts the water levels with errors
    # below the measurement noise.
    course = methods.informed(
        jax.tree.map(lambda leaf: leaf[None], record), ((0.05, 0.3),)
    )
    off = course.predictions[0, 0] - np.asarray(record.levels)
    assert np.sqrt(np.mean(off[100:] ** 2)) < tanks.MEASUREMENT


@pytest.mark.parametrize("kind", ["descend", "solve"])
def test_learning_is_that_of_a_loop_by_hand(kind):
    """Compare online learning with a loop that calls `jax.grad` at each prediction.

    The loop differentiates each prediction through all earlier time steps.
    """
    record = jax.vmap(partial(tanks.simulate, steps=12, jump=6))(
        jax.random.split(jax.random.key(2), 1)
    )
    model = methods.observer()
    adapt: Any = methods.solve
    if kind == "descend":
        adapt = partial(methods.descend, "sgd", 0.9)
    key = jax.random.key(0)
    given = record, model, "rtrl", adapt, {"setting": (0.0, 0.97)}
    course = methods.learn(*given, key)
    xs, targets = record.xs[0], record.targets[0]

    def first(params):
        """Return the first two predictions, both made with the initial parameters."""
        levels, one = model.step(params, model.carry(params), xs[0])
        return one, model.step(params, levels, xs[1])[1]

    params = model.init(key)
    follow = adapt(0.97)
    one, two = first(params)
    assert course.predictions[1, 0, 0] == pytest.approx(float(one), rel=1e-5)
    psi = jax.grad(lambda params: first(params)[0])(params)
    new, _ = follow.update(params, follow.init(params), psi, one, targets[0])
    if kind == "descend":
        step = jax.tree.map(lambda g: -0.97 * (one - targets[0]) * g, psi)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
            new, optax.apply_updates(params, step),
        )  # fmt: skip
        # The run with a learning rate of 0 does not change its parameters.
        frozen = course.predictions[0, 0, 1]
        assert frozen == pytest.approx(float(two), rel=1e-5)
    levels, _ = model.step(params, model.carry(params), xs[0])
    want = model.step(new, levels, xs[1])[1]
    assert course.predictions[1, 0, 1] == pytest.approx(float(want), rel=1e-5)
    assert course.k is not None
    np.testing.assert_allclose(course.k[1, 0, 0], np.exp(new["log_k"]), rtol=1e-5)


def test_identify_quick(check_run, tmp_path, capsys):
    config = identify.Config(
        quick=True, updates=("adam", "least_squares"), rates=(1e-2,), seeds=1,
        steps=2400, out=tmp_path,
    )  # fmt: skip
    result = identify.main(config)
    check_run(result, tmp_path, ["identify"])
    rows = {row["job"]: row for row in result.rows}
    persistence, told = rows["persistence"], rows["observer that is told k"]
    for name in "observer, rtrl × adam", "gru-8, rtrl × least_squares":
        assert rows[name]["before"] < persistence["before"]
        assert rows[name]["end"] < persistence["end"]
        assert told["after"] < rows[name]["after"]
    row = rows["observer, rtrl × adam"]
    assert row["after"][0] > 2 * row["before"][0]
    assert row["recovery"][0] > 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "told k" in shown
    assert "One seed: no statement about differences in error at the end" in shown
    check_resumed(identify.main, identify.Config(out=tmp_path), result)
    # A plant that the model has not seen; its parameters are those after the change.
    record = tanks.simulate(jax.random.key(9), 400, 0)
    xs, targets = np.asarray(record.xs), np.asarray(record.targets)
    model, ends = experiments.load(tmp_path), range(100, 400, 10)
    answers = [model.predict(xs[end - 100 : end]) for end in ends]
    errors = [
        found.value - targets[end - 1] for found, end in zip(answers, ends, strict=True)
    ]
    repeated = [xs[end - 1, 1] - targets[end - 1] for end in ends]
    assert np.sqrt(np.mean(np.square(errors))) < 0.8 * np.sqrt(
        np.mean(np.square(repeated))
    )
    assert np.mean([found.unlike for found in answers]) < 0.3
    assert model.predict(xs[:50]).distance is None
    assert model.predict(5 * xs).unlike
    path = tmp_path / "tanks.csv"
    lines = [f"{u:.6f},{y:.6f}" for u, y in xs]
    path.write_text("\n".join(["u,y", *lines]))
    capsys.readouterr()
    assert asking.main([str(tmp_path), "--csv", str(path)]) == 0
    found = float(capsys.readouterr().out.split()[0])
    assert found == pytest.approx(model.predict(xs).value, abs=1e-3)
    path.write_text("a,b\n1,2\n")
    assert asking.main([str(tmp_path), "--csv", str(path)]) == 1
    assert "a header with the columns u" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (identify.Config, {"rules": ("bptt",)}, "rules must be some of rtrl"),
        (identify.Config, {"updates": ("rls",)}, "updates must be some of"),
        (identify.Config, {"rates": (0.0,)}, "rates must be positive"),
        (identify.Config, {"decays": (1.1,)}, r"decays must be in \(0, 1\], got"),
        (identify.Config, {"steps": 100}, "steps must be at least 2000, got 100"),
    ],
)
def test_options_are_checked(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
