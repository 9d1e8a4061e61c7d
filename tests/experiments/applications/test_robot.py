"""Tests of the study robot, such as the windows of sensor values."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from experiments import asking, data
from experiments.applications.robot import baselines, networks, study as robot
from experiments.networks import windows as windowing
from tests.experiments.resuming import check_resumed


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
    # Test accuracy of logistic regression on four frames, measured without this library
    assert known == pytest.approx(71.5, abs=0.3)
    shown = capsys.readouterr().out
    assert "90.1" in shown
    assert "Front and left. One seed: no statement about differences in" in shown
    model = experiments.load(tmp_path)
    readings = data.wall_following().readings[4092:]
    (row,) = (row for row in result.rows if row["model"] == "gru-16")
    for last in (700, 1363):  # the network has forgotten the frames before these
        answer = model.predict(readings[last - 300 : last + 1])
        assert answer.value == data.ACTIONS[row["said"][last]]
    path = tmp_path / "frames.csv"
    np.savetxt(path, readings[1063:], delimiter=",", fmt="%.4f")
    capsys.readouterr()
    assert asking.main([str(tmp_path), "--csv", str(path)]) == 0
    assert capsys.readouterr().out.startswith(answer.value)
    for strange in np.zeros((1, 24)), np.full((2, 24), 50.0):
        assert model.predict(strange).unlike
    for message, frames in {
        r"frames must be \[T, 24\], got \[24\]": readings[0],
        "frames must have finite distances": np.full((1, 24), np.nan),
    }.items():
        with pytest.raises(ValueError, match=message):
            model.predict(frames)
    path.write_text("1,2\n")
    assert asking.main([str(tmp_path), "--csv", str(path)]) == 1
    assert "It must have 24 numbers in each row" in capsys.readouterr().err
    again = robot.main(robot.Config(out=tmp_path, resume=True))
    assert again.rows == result.rows
    check_resumed(robot.main, robot.Config(out=tmp_path), result)


@pytest.mark.data
def test_a_network_says_at_each_frame_what_it_has_seen_until_then():
    frames = networks.load("two", tune=True)
    found = data.wall_following()
    assert len(frames.xs) == 4092
    front = found.readings[:, 10:15].min(axis=1)[:4092]
    # The tolerance is needed because the study computes mean and deviation in float32.
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


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (robot.Config, {"networks": ("gru",)}, "such as gru-8; kinds are mlp"),
        (robot.Config, {"networks": ("gru-0",)}, "got 'gru-0'"),
        (robot.Config, {"inputs": ("camera",)}, "inputs must be some of sensors, two"),
        (robot.Config, {"streams": 100}, "take fewer streams or a shorter window"),
        (robot.Config, {"resume": True}, "resume needs out"),
    ],
)
def test_options_are_checked(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
