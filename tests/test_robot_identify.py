"""A robot and two tanks: studies learn, windows and plants are what they say."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from experiments import data
from experiments.applications.identify import methods, study as identify, tanks
from experiments.applications.robot import baselines, networks, study as robot
from experiments.networks import windows as windowing


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.mark.data
def test_robot_quick(check_run, tmp_path, capsys):
    config = robot.Config(quick=True, seeds=1, steps=200, chunk=100, out=tmp_path)
    result = robot.main(config)
    check_run(result, tmp_path, ["robot", "confusion"])
    right = {row["model"]: row["accuracy"][0] for row in result.rows}
    np.testing.assert_allclose(right["majority"], 40.6, atol=0.05)
    assert min(right["mlp-32"], right["gru-16"]) > 85 > right["majority"]
    actions = data.wall_following().actions[4092:]
    for row in result.rows:
        assert row["of"] == len(actions) == 1364
        share = 100 * np.mean(np.array(row["said"]) == actions)
        assert row["accuracy"][0] == pytest.approx(share)
        if "curve" in row:
            assert 100 * (1 - row["curve"][-1][0]) == pytest.approx(share, abs=1e-3)
    sensors = networks.load("sensors", tune=False)
    known = 100 * np.mean(baselines.logistic(sensors) == actions)
    assert known == pytest.approx(71.5, abs=0.3)  # four frames
    assert "90.1" in capsys.readouterr().out
    again = robot.main(robot.Config(out=tmp_path, resume=True))
    assert again.rows == result.rows


@pytest.mark.data
def test_a_network_says_at_each_frame_what_it_has_seen_until_then():
    frames = networks.load("two", tune=True)
    found = data.wall_following()
    assert len(frames.xs) == 4092
    front = found.readings[:, 10:15].min(axis=1)[:4092]
    # The study's mean and deviation are those of float32.
    want = (front - front[:2728].mean(dtype=float)) / front[:2728].std(dtype=float)
    np.testing.assert_allclose(frames.xs[:, 0], want, rtol=1e-5, atol=5e-6)
    few = networks.Frames(frames.xs[:30], frames.actions[:30], 20)
    for name in "mlp-3", "lstm-3":
        network = networks.make_network(name, 2)
        params = jax.vmap(network.init)(jax.random.split(jax.random.key(1), 2))
        said = networks.say(network, params, few.score_window())
        assert said.shape == (2, 10)
        one = jax.tree.map(lambda leaf: leaf[1], params)
        carry = network.zeros(())
        for t, x in enumerate(few.xs):
            carry, y = network.step(one, carry, (jnp.asarray(x), None))
            if t >= 20:
                assert said[1, t - 20] == int(jnp.argmax(y))


def test_windows_hold_frames_beside_their_actions():
    xs, targets = np.arange(100.0).reshape(50, 2), np.arange(50)
    windows = windowing.Windows(xs, targets, 3, 4, keeps=True, seed=0)
    for window in itertools.islice(windows(0), 20):
        np.testing.assert_array_equal(window.xs[..., 0], 2 * window.targets)
        assert window.xs.shape == (4, 3, 2)


def test_logistic_regression_with_a_past_sees_nothing_of_the_future():
    xs = np.random.default_rng(0).normal(size=(20, 2))
    seen = baselines.with_past(xs, 3)
    other = xs.copy()
    other[11:] = 9
    np.testing.assert_array_equal(seen[:11], baselines.with_past(other, 3)[:11])
    np.testing.assert_array_equal(seen[10], xs[[10, 9, 8, 7]].ravel())


def test_tanks_obey_torricelli():
    """In small steps the plant is that of the differential equation."""
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
    # Told the truth, an observer is off by the noise it cannot see, and not by more.
    course = methods.informed(
        jax.tree.map(lambda leaf: leaf[None], record), ((0.05, 0.3),)
    )
    off = course.predictions[0, 0] - np.asarray(record.levels)
    assert np.sqrt(np.mean(off[100:] ** 2)) < tanks.MEASUREMENT


@pytest.mark.parametrize("kind", ["descend", "solve"])
def test_learning_is_that_of_a_loop_by_hand(kind):
    """With the gradient of a prediction by jax.grad through all steps before it."""
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
        """Return the first two predictions, by the same parameters."""
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
        frozen = course.predictions[0, 0, 1]  # at a rate of 0 nothing is learned
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
    assert "told k" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (robot.Config, {"networks": ("gru",)}, "such as gru-8; kinds are mlp"),
        (robot.Config, {"networks": ("gru-0",)}, "got 'gru-0'"),
        (robot.Config, {"inputs": ("camera",)}, "inputs must be some of sensors, two"),
        (robot.Config, {"streams": 100}, "take fewer streams or a shorter window"),
        (robot.Config, {"resume": True}, "resume needs out"),
        (identify.Config, {"rules": ("bptt",)}, "rules must be some of rtrl"),
        (identify.Config, {"updates": ("rls",)}, "updates must be some of"),
        (identify.Config, {"rates": (0.0,)}, "rates must be positive"),
        (identify.Config, {"decays": (1.1,)}, "decays must be in 0 < decay"),
        (identify.Config, {"steps": 100}, "steps must be at least 2000, got 100"),
    ],
)
def test_options_are_checked(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
