"""Tests of the study online_learning: its time series, and cosines of gradients."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients
from experiments.online import _dynamical_systems, _predictor, online_learning
from experiments.online._online_learning_report import cosines, show
from tests.experiments.resuming import check_resumed

SYSTEMS = _dynamical_systems.SYSTEMS


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def run(name, steps, streams=2):
    ever = SYSTEMS[name].run(np.random.default_rng(0), streams)
    return np.stack([next(ever) for _ in range(steps)])


def test_henon_is_its_recursion():
    u = run("henon", 50)
    np.testing.assert_allclose(u[2:], 1 - 1.4 * u[1:-1] ** 2 + 0.3 * u[:-2], rtol=1e-12)
    # For these parameters, the series of the Hénon map has mean .257 and standard
    # deviation .721.
    long = run("henon", 20_000)[1000:]
    assert long.mean() == pytest.approx(0.257, abs=0.01)
    assert long.std() == pytest.approx(0.721, abs=0.01)


def test_mackey_glass_is_its_equation():
    u = run("mackey_glass", 60)
    now, ago = u[17:-1], u[:-18]
    np.testing.assert_allclose(
        u[18:], now + 0.2 * ago / (1 + ago**10) - 0.1 * now, rtol=1e-12
    )
    # If the Mackey–Glass series starts at 1, production (0.2 / 2) equals decay (0.1),
    # so the series stays at 1.
    still = SYSTEMS["mackey_glass"].run(_Ones(), 1)
    np.testing.assert_allclose([next(still) for _ in range(30)], 1.0)


class _Ones:
    def uniform(self, low, high, shape):
        return np.ones(shape)


def test_lorenz_is_two_steps_of_euler():
    class Start:
        def normal(self, size):
            return np.array([[0.5], [-0.25], [2.0]])

    ever = SYSTEMS["lorenz"].run(Start(), 1)
    u, v, w = 1.5, 0.75, 27.0
    for _ in range(10):
        assert next(ever) == pytest.approx([u], rel=1e-12)
        for _ in range(2):
            u, v, w = (
                u + 0.01 * 10 * (v - u),
                v + 0.01 * (u * (28 - w) - v),
                w + 0.01 * (u * v - 8 / 3 * w),
            )


@pytest.mark.parametrize("name", SYSTEMS)
def test_series_have_unit_variance_and_streams_go_their_own_ways(name):
    u = _dynamical_systems.series(name, 4000, 6)
    assert u.shape == (4000, 6)
    assert u.mean() == pytest.approx(0, abs=1e-12)
    assert u.var() == pytest.approx(1, rel=1e-12)
    between = np.corrcoef(u.T)[np.triu_indices(6, 1)]
    assert np.abs(between).max() < 0.7
    assert (u == _dynamical_systems.series(name, 4000, 6)).all()
    assert (u != _dynamical_systems.series(name, 4000, 6, seed=1)).any()


def test_episodes_are_pieces_of_streams_one_step_apart():
    config = small(steps=30, episode=10, batch=3)
    data = online_learning.episodes(config, "henon")
    assert data.shape == (3, 2, 11, 3)
    u = _dynamical_systems.series("henon", 31, 6).astype(np.float32)
    for seed, stream in [(0, 0), (1, 2)]:
        column = u[:, 3 * seed + stream]
        for i, piece in enumerate(data[:, seed, :, stream]):
            np.testing.assert_array_equal(piece, column[10 * i : 10 * i + 11])


def small(**options):
    given = {"units": 3, "batch": 2, "steps": 12, "episode": 4, "seeds": 2}
    given |= {"truncations": ((2, 4),), "compared": 2, "random_feedback": False}
    return online_learning.Config(**(given | options))


def test_a_cosine_is_that_of_an_approximation_with_rtrl():
    """Check the cosine between the gradients of SnAp-1 and RTRL, against a plain loop.

    The parameters stay fixed during the episode.
    """
    network = _predictor.step, _predictor.loss
    snap = lambda step, loss: gradients.snap(step, loss, order=1)
    update = optax.sgd(0.0)
    learner = _predictor.online(snap(*network), update, gradients.rtrl(*network))
    params = _predictor.init(jax.random.key(0), 3)
    draw = np.random.default_rng(0).normal
    u = jnp.asarray(draw(size=(7, 2)), jnp.float32)
    add_seed = lambda leaf: leaf[None]
    pair = jax.tree.map(add_seed, params), update.init(params)
    _, value, cosine = learner.compare(pair, u[None], keys(1))

    @jax.jit
    def at_steps(weights):  # gradient of a weighted sum of losses
        def of(make):
            rule = gradients.over_sequence(make(*network))
            one = lambda weights: rule(params, start, *xs, weights)[1]["cell"]
            return jax.vmap(lambda w: jax.flatten_util.ravel_pytree(one(w))[0])(weights)

        return of(snap), of(gradients.rtrl)

    start, xs = jnp.zeros((2, 3)), (u[:-1], u[1:])
    weights = jnp.zeros((3, 6, 2)).at[np.arange(3), np.arange(3, 6)].set(1.0)
    a, b = map(np.asarray, at_steps(weights))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    assert cosine[0] == pytest.approx(np.mean((a * b).sum(axis=1) / lengths), rel=1e-4)
    assert cosine[0] < 0.999
    (whole, _), _ = jax.jit(gradients.bptt(*network))(params, start, *xs)
    assert value[0] == pytest.approx(float(whole), rel=1e-5)


def keys(seeds):
    return jax.random.split(jax.random.key(0), seeds)


def test_the_network_is_the_published_one():
    params = _predictor.init(jax.random.key(0), 3)
    h, x = jnp.full((2, 3), 0.5), jnp.array([1.0, -1.0])
    new, y = _predictor.step(params, h, x)
    cell = params["cell"]
    u = x[:, None] * cell["inputs"] + h @ cell["recurrent"] + cell["bias"][None]
    np.testing.assert_allclose(new, jnp.tanh(u), rtol=1e-5)
    want = jnp.tanh(u) @ params["readout"] + params["readout_bias"]
    np.testing.assert_allclose(y, want, rtol=1e-5)
    bound = 1 / 3**0.5
    drawn = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    assert len(drawn) == 3 * 3 + 3 + 3 + 3 + 1
    assert (np.abs(drawn) < bound).all()
    # A uniform distribution has a standard deviation of √⅓ of its bound.
    assert drawn.std() > 0.4 * bound


def test_online_learning(tmp_path, capsys):
    config = small(
        systems=("henon", "lorenz"), rules=("rtrl",), random_feedback=True, out=tmp_path
    )
    result = online_learning.main(config)
    assert not result.interrupted
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for picture in ("errors", "cosines"):
        assert (tmp_path / f"{picture}.png").stat().st_size > 10_000
    names = {(row["rule"], row["system"]) for row in result.rows}
    rules = ("rtrl", "rflo_random", "truncated_bptt, lookback 4, every 2")
    assert names == {(rule, system) for rule in rules for system in config.systems}
    for row in result.rows:
        assert np.shape(row["curve"]) == (2, 3)
        assert np.isfinite(row["curve"]).all()
        np.testing.assert_allclose(row["nmse"], np.mean(row["curve"], axis=1))
        assert row["curve_steps"] == [4, 8, 12]
        assert row["cosine_steps"] == [4, 12]
        if row["rule"] == "rflo_random":
            assert np.shape(row["cosines"]) == (2, 2)
            assert -1 < np.min(row["cosines"]) < np.max(row["cosines"]) < 1
    assert cosines(result.rows)["rtrl"] == 1
    printed = capsys.readouterr().out
    for published in (".0704 (.0163)", ".0051 (.0040)", "0.288"):
        assert published in printed
    for system in ("Hénon", "Lorenz"):
        said = (f"{system}. Lowest NMSE: ", f"{system}. No difference in NMSE: ")
        assert any(each in printed for each in said)
    # Print the table of an interrupted run, which has only the first rows.
    show(result.rows[:1], config)
    assert "rtrl" in capsys.readouterr().out
    pictures = ["errors.png", "cosines.png"]
    check_resumed(online_learning.main, config, result, lost=3, pictures=pictures)


def test_ctrl_c_keeps_what_there_is(tmp_path, monkeypatch):
    config = small(systems=("henon",), rules=(), out=tmp_path)
    (name, learner), *_ = online_learning.learners(config).items()
    calls = []

    def learn(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learner.learn(*args)

    broken = {name: _predictor.Learner(learn, learn)}
    monkeypatch.setattr(online_learning, "learners", lambda config: broken)
    result = online_learning.main(config)
    assert result.interrupted
    (row,) = result.rows
    assert np.shape(row["curve"]) == (2, 2)
    assert row["cosines"] is None
    monkeypatch.undo()
    (resumed,) = online_learning.main(dataclasses.replace(config, resume=True)).rows
    assert np.shape(resumed["curve"]) == (2, 3)
    np.testing.assert_array_equal(np.array(resumed["curve"])[:, :2], row["curve"])
    other = dataclasses.replace(config, first_seed=1, out=tmp_path / "other")
    (another,) = online_learning.main(other).rows
    assert resumed["curve"] != another["curve"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 13}, "steps must be a multiple of episode=4, got 13"),
        ({"truncations": ((3, 4),)}, "every must divide episode=4"),
        ({"systems": ("henon", "x")}, "systems must be some of henon.*got x"),
        ({"rules": ("x",)}, "rules must be some of rtrl.*got x"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
