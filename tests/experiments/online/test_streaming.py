"""Tests of the study streaming, which predicts each target before learning from it."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients
from experiments import data
from experiments.data import _nyc_weather, _wall_following
from experiments.harness.errors import DataError
from experiments.networks.online import recurrent
from experiments.online import (
    _sensor_streams as sensor_streams,
    _streaming_methods as methods,
    streaming,
)
from tests.experiments.resuming import check_resumed

GAP = range(10, 13)  # These hours have no line in the weather file.


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def robot_file(steps):
    """Return the text of a robot file in the format of the data set.

    Each action lasts five steps.
    """
    readings = np.random.default_rng(0).uniform(0.3, 5, size=(steps, 24))
    names = [_wall_following.ACTIONS[t // 5 % 4] for t in range(steps)]
    lines = [",".join(f"{x:.3f}" for x in row) for row in readings]
    return "".join(f"{a},{b}\n" for a, b in zip(lines, names, strict=True))


def weather_file(hours):
    """Return the text of a weather file in the format of the data set.

    Some values and some hours are missing.
    """
    columns = ["origin", "time_hour", *_nyc_weather.COLUMNS.values()]
    lines = [",".join(columns)]
    for origin in ("EWR", "JFK"):
        numbers = np.random.default_rng(1).normal(size=(hours, 6)).round(2)
        for t in range(hours):
            hour = np.datetime64("2013-01-01T06") + np.timedelta64(t, "h")
            values = ["NA" if t % 7 == 3 else f"{x}" for x in numbers[t, 1:]]
            temperature = f"{40 + t % 24 + numbers[t, 0]:.2f}"
            line = [origin, f"{hour}:00:00Z", temperature, *values]
            lines += [] if t in GAP else [",".join(line)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Replace the data sets by generated files."""
    for module, text in [
        (_wall_following, robot_file(60)),
        (_nyc_weather, weather_file(60)),
    ]:
        path = tmp_path / module.__name__
        path.write_text(text, "ascii")
        monkeypatch.setattr(module, "find", lambda *_, path=path: path)


def tiny(**options):
    defaults = {"units": 2, "seeds": 2, "rates": (0.01, 0.1), "lookbacks": (2,)}
    defaults |= {"rules": ("rtrl",), "decays": (0.9, 1.0), "cell": "tanh"}
    return streaming.Config(**(defaults | options))


def test_the_study_runs_and_writes_what_it_shows(tmp_path, files, capsys):
    config = tiny(out=tmp_path / "out")
    result = streaming.main(config)
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert [row["stream"] for row in result.rows] == 7 * ["robot"] + 5 * ["weather"]
    for row in result.rows:
        assert np.isfinite([row["all"], row["after"]]).all()
        assert np.shape(row["curve"]) == (len(row["all"]), len(row["times"]))
        assert len(row["all"]) == (2 if row["method"].startswith("tanh") else 1)
    assert (result.folder / "streaming.png").stat().st_size > 10_000
    shown = " ".join(capsys.readouterr().out.split())
    assert "An action equals the one before in 81.4 %" in shown
    assert "tanh, truncated_bptt, lookback 2, every 1" in shown
    assert "left out" not in shown
    check_resumed(streaming.main, config, result, lost=2, pictures=["streaming.png"])


def test_of_an_lstm_eprop_is_among_the_rules(tmp_path, files):
    options = {"cell": "lstm", "rules": ("eprop",), "lookbacks": (), "decays": (1.0,)}
    options |= {"streams": ("weather",), "rates": (0.01,), "seeds": 1}
    rows = streaming.main(tiny(**options, out=tmp_path / "out")).rows
    assert rows[-1]["method"] == "lstm, eprop"
    assert np.isfinite(rows[-1]["all"]).all()


def test_a_stream_that_cannot_be_had_is_left_out(tmp_path, monkeypatch, capsys):
    def no_network(*args):
        raise DataError("no network here")

    monkeypatch.setattr(_wall_following, "find", lambda *_: None)
    monkeypatch.setattr(_wall_following, "fetch", no_network)
    result = streaming.main(tiny(streams=("robot",), out=tmp_path / "out"))
    assert result.rows == []
    assert "no network here" in capsys.readouterr().out


def test_an_interruption_keeps_what_is_done(tmp_path, files, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "least_squares", interrupt)
    result = streaming.main(tiny(streams=("weather",), out=tmp_path / "out"))
    assert result.interrupted
    assert [row["method"] for row in result.rows] == ["persistence"]
    assert json.loads((result.folder / "results.jsonl").read_text()) == result.rows[0]


def test_weather_has_its_gaps(files):
    stream, weather = sensor_streams.weather(), data.nyc_weather("JFK")
    hours = (weather.hours - weather.hours[0]).astype(int)
    assert hours.tolist() == [t for t in range(60) if t not in GAP]
    missing = [t for t in range(59) if not stream.mask[t]]
    assert missing == [9, *GAP]  # hour 9: its target is missing
    assert np.flatnonzero(stream.reset).tolist() == [13]
    where = {hour: i for i, hour in enumerate(hours)}
    for t in np.flatnonzero(stream.mask):
        change = weather.temperature[where[t + 1]] - weather.temperature[where[t]]
        assert stream.targets[t] == pytest.approx(change / 2, abs=1e-6)
    assert np.isfinite(stream.xs).all()
    known = max(t for t in range(18) if t % 7 != 3 and t not in GAP)
    want = (weather.humidity[where[known]] - 60) / 20
    # The value at hour 17 is missing, so the last known value is the input.
    assert stream.xs[17, 2] == pytest.approx(want, abs=1e-6)
    lagged = sensor_streams.lagged(stream, "weather")
    assert lagged.shape == (59, 8 + 47 + 1)
    np.testing.assert_array_equal(lagged[50, 8:-1], stream.xs[49:2:-1, 0])
    with pytest.raises(ValueError, match="airport must be EWR, JFK or LGA, got 'SFO'"):
        data.nyc_weather("SFO")


def test_the_robot_is_read_with_and_without_a_header(monkeypatch, files, tmp_path):
    want = data.wall_following()
    assert want.actions[:11].tolist() == 5 * [0] + 5 * [1] + [2]
    path = tmp_path / "fetched"
    path.write_text("names\n" + robot_file(60), "ascii")
    monkeypatch.setattr(_wall_following, "find", lambda *_: None)
    monkeypatch.setattr(_wall_following, "fetch", lambda *_: path)
    chex.assert_trees_all_equal(data.wall_following(), want)


def test_steps_are_scored_before_they_are_learned_from(files):
    stream = sensor_streams.weather(20)
    network = recurrent("tanh", stream.xs.shape[1], 2, 1)
    got = methods.learn(stream, network, gradients.rtrl, (0.1,), seeds=1)
    assert got.losses is not None
    of_params, _ = jax.random.split(jax.random.split(jax.random.key(0), 1)[0])
    params, adam = network.init(of_params), optax.adam(0.1)
    initial, opt_state = network.carry(params), adam.init(params)
    rule = gradients.rtrl(network.step, stream.loss)
    inputs = stream.xs[0], stream.targets[0]
    state, update = rule.init(params, initial, inputs), jax.jit(rule.update)
    assert got.errors[0, 0, 0] == pytest.approx(4 * stream.targets[0] ** 2)
    for t, (x, target) in enumerate(zip(stream.xs, stream.targets, strict=True)):
        if not stream.mask[t]:
            continue
        if stream.reset[t]:
            state = rule.init(params, initial, inputs)
        _, y = network.step(params, state.carry, x)
        value, grads, state = update(params, state, x, target)
        error = float(y[0] - target) ** 2
        np.testing.assert_allclose(got.errors[0, 0, t], 4 * error, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got.losses[0, 0, t], value, rtol=1e-4, atol=1e-6)
        change, opt_state = adam.update(grads, opt_state, params)
        params = optax.apply_updates(params, change)


def test_truncated_bptt_step_by_step_is_bptt_if_it_looks_back_far_enough(files):
    stream = sensor_streams.weather(16)
    network = recurrent("tanh", stream.xs.shape[1], 2, 1)
    params = network.init(jax.random.key(0)) | {"readout": jnp.ones((2, 1))}
    args = params, network.carry(params), stream.xs, jnp.asarray(stream.targets)
    flags = {"mask": jnp.asarray(stream.mask), "reset": jnp.asarray(stream.reset)}
    online = methods.truncated(16)(network.step, stream.loss)
    got = jax.jit(gradients.over_sequence(online))(*args, **flags)
    want = jax.jit(gradients.bptt(network.step, stream.loss))(*args, **flags)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-6)


def test_what_is_to_be_beaten_is_what_it_says(files):
    stream = sensor_streams.robot()
    losses, errors, _ = methods.majority(stream)
    counts = np.ones(4)
    for t, action in enumerate(stream.targets):
        loss = -np.log(counts[action] / counts.sum())
        assert losses is not None
        assert losses[0, 0, t] == pytest.approx(loss, rel=1e-5)
        assert errors[0, 0, t] == (np.argmax(counts) != action)
        counts[action] += 1
    weather = sensor_streams.weather()
    errors = methods.persistence(weather).errors[0, 0][weather.mask]
    np.testing.assert_allclose(errors, 4 * weather.targets[weather.mask] ** 2)
    xs = sensor_streams.lagged(weather, "weather")[:, :3]
    got = methods.least_squares(weather, xs, (1.0, 0.9)).errors
    for n, t in enumerate(seen := np.flatnonzero(weather.mask)):
        # Weights of earlier errors, discounted by the forgetting factor
        before = 0.9 ** np.arange(n, 0, -1) / 0.9
        x, y = xs[seen[:n]].astype(float), weather.targets[seen[:n]]
        moments = x.T @ (before[:, None] * x) + 0.9**n * np.eye(3)
        w = np.linalg.solve(moments, x.T @ (before * y))
        error = 4 * float(xs[t] @ w - weather.targets[t]) ** 2
        np.testing.assert_allclose(got[1, 0, t], error, rtol=1e-8, atol=1e-10)


@pytest.mark.data
def test_the_data_are_what_is_said_of_them():
    robot, weather = data.wall_following(), data.nyc_weather("JFK")
    assert robot.readings.shape == (5456, 24)
    assert np.bincount(robot.actions).tolist() == [2205, 826, 2097, 328]
    assert len(weather.hours) == 8706
    gaps = np.diff(weather.hours).astype(int)
    assert (np.sum(gaps > 1), gaps.max()) == (14, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lookbacks": (1, 0)}, r"lookbacks must be at least 1, got \(1, 0\)"),
        ({"rates": ()}, "rates must have one value at least"),
        ({"decays": (1.1,)}, r"decays must be in \(0, 1\], got \(1\.1,\)"),
        ({"chosen_on": 1.0}, r"chosen_on must be in \(0, 1\), got 1\.0"),
        ({"rules": ("bptt",)}, "rules must be some of .*; got bptt"),
        ({"rules": ("eprop",), "cell": "gru"}, "rules must be some of .*; got eprop"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        streaming.Config(**options)
