"""Tests of the study proben1, with results from Prechelt's tables."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import updates
from experiments import data
from experiments.benchmarks import _proben1 as benchmark
from experiments.data import _fetch, _proben1
from experiments.harness.errors import DataError
from experiments.resilient import (
    _proben1_report,
    _stopping as stopping,
    proben1,
)
from experiments.resilient._networks import Network


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def problem_text(inputs=3, outputs=2, sizes=(16, 8, 8), seed=0):
    """Return the text of a Proben1 file, with linearly separable classes."""
    rng = np.random.default_rng(seed)
    keys = ("bool_in", "real_in", "bool_out", "real_out")
    lines = [f"{k}={v}" for k, v in zip(keys, (1, inputs - 1, outputs, 0), strict=True)]
    parts = ("training", "validation", "test")
    lines += [f"{k}_examples={v}" for k, v in zip(parts, sizes, strict=True)]
    x = rng.uniform(size=(sum(sizes), inputs))
    label = (x.sum(axis=1) + 0.3 * rng.normal(size=len(x)) > inputs / 2).astype(int)
    table = np.column_stack([x, np.eye(outputs)[label]])
    return "\n".join(lines + [" ".join(map(str, row)) for row in table]) + "\n"


@pytest.fixture
def small(monkeypatch):
    """Replace the data sets by problems with a few examples."""
    make = lambda name: data.parse_proben1(name, problem_text(seed=len(name)))
    monkeypatch.setattr(data, "proben1", make)


def test_files_are_read_in_their_order():
    problem = data.parse_proben1("toy1", problem_text())
    assert problem.classes
    shapes = [part.x.shape for part in problem[2:]]
    assert shapes == [(16, 3), (8, 3), (8, 3)]
    assert all((part.target.sum(axis=1) == 1).all() for part in problem[2:])
    first = problem_text().splitlines()[7].split()
    np.testing.assert_allclose(problem.train.x[0], np.float32(first[:3]))
    with pytest.raises(ValueError, match=r"toy1: expected \(32, 6\), got \(32, 5\)"):
        data.parse_proben1("toy1", problem_text().replace("real_in=2", "real_in=3"))


def test_unknown_and_spoilt_files_are_named(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="unknown problem 'cancer9'; there are: build"):
        data.proben1("cancer9")
    monkeypatch.setenv(_fetch.FOLDER, str(tmp_path))
    spoilt = tmp_path / _proben1.ARCHIVE
    spoilt.parent.mkdir()
    spoilt.write_bytes(b"spoilt")
    with pytest.raises(DataError, match="is not the file that was expected"):
        data.proben1("cancer1")
    spoilt.unlink()

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(_fetch.pooch, "retrieve", no_network)
    with pytest.raises(DataError, match=r"cancer1.dt could not .*no network\nGet it"):
        data.proben1("cancer1")


def test_a_network_counts_its_weights_as_the_report_does():
    inputs = {"cancer1": (9, 2), "card1": (51, 2), "gene1": (120, 3)}
    inputs |= {"soybean1": (82, 19), "thyroid1": (21, 3), "horse1": (58, 3)}
    for name, (first, last) in inputs.items():
        pivot = proben1.PUBLISHED["nets"][name]
        network = Network((first, *pivot["hidden"], last), shortcuts=True)
        assert network.num_weights == pivot["weights"], name


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_network_is_the_sum_over_its_connections(shortcuts):
    network = Network((3, 4, 2), shortcuts, "sigmoid")
    params = network.draw(jax.random.key(0), -1, 1)
    x = jax.random.normal(jax.random.key(1), (3, 5))
    (first, second), squash = params, lambda s: s / (1 + abs(s))
    hidden = squash(first["weights"][0] @ x + first["bias"][:, None])
    s = second["weights"][-1] @ hidden + second["bias"][:, None]
    if shortcuts:
        s = s + second["weights"][0] @ x
    np.testing.assert_allclose(network.apply(params, x), squash(s), rtol=1e-5)


def by_hand(problem, network, settings, key):
    """Train one run with Prechelt's stopping rule in a plain loop, as a reference."""
    weights_key, steps_key = jax.random.split(key)
    params = network.draw(weights_key, -settings.weights, settings.weights)
    steps = network.draw(steps_key, *settings.step_sizes)
    optimizer = getattr(updates, settings.variant)(steps, min_step_size=0.0)
    state = optimizer.init(params)
    parts = jax.tree.map(lambda array: jnp.asarray(array.T), tuple(problem[2:]))
    error = jax.jit(lambda params, part: stopping.error(network, params, part))
    grad = jax.jit(jax.grad(error))
    errors, best = [], (np.inf, None, None)
    for epoch in range(1, settings.max_epochs + 1):
        errors.append(float(error(params, parts[0])))
        change, state = optimizer.update(
            grad(params, parts[0]), state, params, value=errors[-1]
        )
        params = jax.tree.map(jnp.add, params, change)
        if epoch % 5:
            continue
        now = float(error(params, parts[1]))
        best = min(best, (now, epoch, float(error(params, parts[2]))))
        gl, last = 100 * (now / best[0] - 1), errors[-5:]
        if gl > settings.alpha or 1000 * (np.mean(last) / min(last) - 1) < 0.1:
            break
    return min(errors), best[0], best[2], gl, epoch, best[1]


def test_runs_that_train_together_stop_each_by_itself():
    problem = data.parse_proben1("toy1", problem_text())
    network = Network((3, 3, 2), shortcuts=True)
    settings = proben1.PIVOT._replace(variant="irprop_plus", max_epochs=400)
    keys = jax.random.split(jax.random.key(1), 12)
    outcome = stopping.train(problem, network, settings, keys)
    assert len(set(outcome.total)) > 3
    for i in (0, int(np.argmin(outcome.total)), int(np.argmax(outcome.total))):
        want = by_hand(problem, network, settings, keys[i])
        got = [getattr(outcome, name)[i] for name in outcome._fields]
        del got[3]  # `by_hand` returns no classification error
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_lanes_that_have_stopped_are_left_out(monkeypatch):
    """Check that results do not change if stopped runs are removed from `vmap`."""
    problem = data.parse_proben1("toy1", problem_text())
    arguments = problem, Network((3, 2), shortcuts=False), proben1.LINEAR
    keys = jax.random.split(jax.random.key(0), 8)
    want = stopping.train(*arguments, keys)
    # With a huge value of FEWER, runs that have stopped are never removed from `vmap`.
    monkeypatch.setattr(stopping, "FEWER", 10**9)
    got = stopping.train(*arguments, keys)
    for name in want._fields:
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    # Some runs continue after others have stopped and been removed.
    assert want.total.max() > stopping.CHUNK * stopping.STRIP


def test_proben1_study_runs(small, tmp_path, capsys):
    config = proben1.Config(
        tables=("3", "8"), only=("cancer1",), seeds=3, max_epochs=10, out=tmp_path
    )
    result = proben1.main(config)
    assert not result.interrupted
    assert len(result.rows) == 4 + 2
    assert all(len(row["test"]) == 3 for row in result.rows)
    assert all(np.isfinite(row["test"]).all() for row in result.rows)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for table in config.tables:
        assert (tmp_path / f"table{table}.png").stat().st_size > 10_000
    # The table also prints Prechelt's published error.
    shown = " ".join(capsys.readouterr().out.split())
    assert "3.52 ± 0.04" in shown
    assert "rprop_plus: of 1 mean test errors, " in shown
    path = tmp_path / "results.jsonl"
    path.write_text("".join(line + "\n" for line in lines[:-1]))
    again = proben1.main(dataclasses.replace(config, resume=True))
    assert again.rows[:-1] == result.rows[:-1]
    for name in stopping.Outcome._fields:
        assert again.rows[-1][name] == result.rows[-1][name]


def test_proben1_options_are_checked():
    with pytest.raises(
        ValueError, match=r"only must be some of .*got cancer\. Did you mean 'cancer"
    ):
        proben1.Config(only=("cancer",))
    with pytest.raises(ValueError, match="seeds must be at least 2, got 1"):
        proben1.Config(seeds=1)


def test_proben1_benchmark_runs(small, monkeypatch):
    monkeypatch.setattr(benchmark, "RUNS", 2)
    monkeypatch.setattr(benchmark, "REPEATS", 2)
    monkeypatch.setattr(benchmark, "ROWS", [("cancer1", "8")])
    (race,) = benchmark.proben1().values()
    rows = list(race(2))
    assert "test error" in rows[0].note
    assert rows[0].floor_ms > 0


# Test errors in table 3 of Prechelt's report. If ridge regression on the training part
# has the same test errors, then our files, split of the data and error measure are
# those of the report.
RIDGE = {"cancer1": 3.52, "gene1": 9.92, "soybean1": 1.16, "thyroid1": 3.83}
RIDGE |= {"heart1": 14.28, "diabetes1": 17.15}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "want"), RIDGE.items())
def test_ridge_regression_tells_that_the_data_are_right(name, want):
    problem = data.proben1(name)
    design = lambda x: np.column_stack([x, np.ones(len(x))]).astype(float)
    x, target = design(problem.train.x), problem.train.target.astype(float)
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ target)
    error = 100 * np.mean((design(problem.test.x) @ weights - problem.test.target) ** 2)
    assert abs(error - want) < 0.07


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cancer1", "card1", "gene1", "heart1", "thyroid1"])
def test_table_3_is_reproduced(name):
    outcome = _train("3", name, "rprop_plus", runs=10)
    mean, deviation = proben1.PUBLISHED["table3"][name]["test"]
    assert abs(np.mean(outcome.test) - mean) <= 2 * (deviation + 0.005) + 0.005


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "name"),
    [
        *(("8", name) for name in ("cancer1", "card1", "horse1", "gene1")),
        *(("10", name) for name in ("cancer1", "glass1", "heart1", "gene1")),
    ],
)
def test_tables_8_and_10_are_reproduced(table, name):
    """Compare test errors with Prechelt's table, within three standard errors."""
    outcome = _train(table, name, "rprop_minus", runs=60)
    published = proben1.PUBLISHED[f"table{table}"][name]
    row = {"table": table, "published": published, **outcome._asdict()}
    for key in ("test", "classification", "total", "gl"):
        assert abs(_proben1_report.deviation(row, key)) < 3, key


def _train(table, name, variant, runs):
    problem = data.proben1(name)
    keys = jax.random.split(jax.random.key(0), runs)
    return stopping.train(problem, *proben1.setup(table, problem, variant), keys)
