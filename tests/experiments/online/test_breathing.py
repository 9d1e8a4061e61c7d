"""Tests of the study breathing: series, error, forecasts, and what they know."""

import json

import numpy as np
import pytest

from experiments import data
from experiments.online import (
    _breathing_methods as methods,
    _breathing_networks as networks,
    _breathing_scores as scores,
    _breathing_series as series,
    breathing,
)
from tests.experiments.resuming import check_resumed

LAGS, HORIZONS = 2, np.array([1, 3])
RATES = np.full((2, 2, 1), 0.02)


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def waves(steps, seed):
    """Return nine noisy waves with a period of 2.7 s."""
    random = np.random.default_rng(seed)
    at = np.arange(steps)[:, None] / 27 + random.uniform(size=9)
    return np.sin(2 * np.pi * at) * (1 + np.arange(9)) + random.normal(size=(steps, 9))


def made(steps=60, change=None):
    """Return two series; all values from time `change` on are others."""
    values = np.stack([waves(steps, 0), waves(steps, 1)])
    if change is not None:
        values[:, change:] = waves(steps, 2)[change:] + 3
    scales = np.full((2, 9), 1.5)
    return series.Series(("a", "b"), values, scales, np.full(2, steps), 40, 10.0)


def rls(found, delayed):
    return methods.least_squares(found, HORIZONS, LAGS, delayed, (0.9, 1.0), 0.1)


def ridge(found, delayed):
    return methods.ridge(found, HORIZONS, LAGS, (0.1,), 15)


def network(cell):
    """Return a function that forecasts by networks that learn."""

    def run(found, delayed):
        rule = breathing.RULES["lms" if cell == "linear" else "snap_1"][1]
        net = networks.network(cell, 1 + 9 * LAGS, 3)
        return networks.learn(found, HORIZONS, LAGS, net, rule, RATES, 1, delayed)

    return run


METHODS = {"ridge": ridge, "rls": rls}
METHODS |= {cell: network(cell) for cell in ("linear", "tanh")}


def inputs_at(values, t):
    """Return a one, and the samples at t, t − 1, … as the methods read them."""
    return np.concatenate([[1.0], *(values[max(t - i, 0)] for i in range(LAGS))])


def test_resampled_values_lie_on_lines_between_samples():
    values = waves(11, 0)
    np.testing.assert_array_equal(series.resampled(values, 10), values)
    np.testing.assert_allclose(series.resampled(values, 10 / 3), values[::3])
    fine = series.resampled(values, 30)
    assert len(fine) == 31
    for i in range(30):
        k, part = divmod(i, 3)
        between = values[k] + part / 3 * (values[k + 1] - values[k])
        # Times are rounded to 10⁻⁶ of a sample.
        slope = np.abs(values[k + 1] - values[k])
        assert (np.abs(fine[i] - between) <= 1e-6 * slope + 1e-12).all()


def test_only_the_centred_mean_reads_later_samples():
    values = waves(20, 0)
    later = values.copy()
    later[10:] += 1
    for kind, same in {"none": 10, "causal": 10, "centred": 8}.items():
        a, b = series.smoothed(values, kind), series.smoothed(later, kind)
        np.testing.assert_array_equal(a[:same], b[:same])
        assert (a[same] != b[same]).all()
    causal = series.smoothed(values, "causal")
    np.testing.assert_allclose(causal[12], values[8:13].mean(axis=0))


def test_horizons_are_middles_of_parts():
    assert series.horizons(10, 21).tolist() == list(range(1, 22))
    every = np.arange(1, 22).reshape(7, 3)
    assert series.horizons(10, 7).tolist() == every.mean(axis=1).tolist()


def test_the_error_is_that_of_its_formula():
    found = made()
    forecasts = methods.persistence(found, HORIZONS)
    errors = series.nrmse(forecasts.errors, found, found.test)
    for i in range(2):
        truth = found.values[i] * 1.5
        for j, h in enumerate(HORIZONS):
            above = sum(((truth[t] - truth[t - h]) ** 2).sum() for t in range(40, 60))
            centre = truth[40:].mean(axis=0)
            below = sum(((truth[t] - centre) ** 2).sum() for t in range(40, 60))
            np.testing.assert_allclose(errors[i, j], np.sqrt(above / below))


@pytest.mark.data
@pytest.mark.slow
def test_persistence_has_the_error_measured_elsewhere():
    found = series.series(10.0)
    forecasts = methods.persistence(found, series.horizons(10, 21))
    # The other program left off the last sample of two sequences.
    ends = found.lengths - np.array([0, 0, 0, 0, 0, 1, 1, 0, 0])
    errors = series.nrmse(forecasts.errors, found, (found.minute, ends))
    measured = [0.995, 1.007, 1.029, 1.009, 1.064, 1.018, 0.421, 1.014, 1.079]
    np.testing.assert_allclose(errors.mean(axis=1), measured, atol=6e-4)
    assert abs(errors.mean() - 0.960) < 6e-4
    assert len(found.names) == 9
    np.testing.assert_allclose(found.values[:, :600].mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(found.values[:, :600].std(axis=1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_change_does_not_change_forecasts_made_before_it(name):
    change = 30
    a, b = (METHODS[name](made(change=c), True).values for c in (None, change))
    for j, h in enumerate(HORIZONS):
        # The forecast for time u is made at u − h.
        np.testing.assert_array_equal(a[:, : change + h, j], b[:, : change + h, j])
        assert (a[:, change + h, j] != b[:, change + h, j]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rls", "linear", "tanh"])
def test_at_once_a_forecast_knows_all_samples_before_its_time(name):
    change = 30
    a, b = (METHODS[name](made(change=c), False).values for c in (None, change))
    for j in range(len(HORIZONS)):
        np.testing.assert_array_equal(a[:, : change + 1, j], b[:, : change + 1, j])
        # With the horizon 3, this forecast is made two samples before the change.
        assert (a[:, change + 1, j] != b[:, change + 1, j]).any()


@pytest.mark.slow
@pytest.mark.parametrize("delayed", [True, False])
def test_lms_is_the_loop_of_its_formula(delayed):
    found = made()
    got = METHODS["linear"](found, delayed).values[..., 0, 0, :]
    values = found.values.astype(np.float32).astype(float)
    for i, j in np.ndindex(2, 2):
        h = int(HORIZONS[j])
        wait, w = (h if delayed else 1), np.zeros((1 + 9 * LAGS, 9))
        for s in range(60 - h - wait):
            x = inputs_at(values[i], s)
            gradient = np.outer(x, x @ w - values[i, s + h])
            norm = np.sqrt((gradient**2).sum())
            w -= 0.02 * gradient * min(1, networks.CLIP / norm)
            expected = inputs_at(values[i], s + wait) @ w
            found_here = got[i, s + wait + h, j]
            np.testing.assert_allclose(found_here, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("delayed", [True, False])
def test_recursive_least_squares_solves_discounted_normal_equations(delayed):
    found = made()
    got = rls(found, delayed).values
    xs = np.stack([inputs_at(found.values[1], t) for t in range(60)])
    for j, h in enumerate(HORIZONS):
        wait = h if delayed else 1
        for k, decay in enumerate((0.9, 1.0)):
            for s in (5, 30, 50):
                weights = decay ** np.arange(s, -1, -1.0)
                seen, targets = xs[: s + 1], found.values[1, h : s + 1 + h]
                moments = (seen.T * weights) @ seen
                moments += decay ** (s + 1.0) * np.eye(xs.shape[1]) / 0.1
                w = np.linalg.solve(moments, (seen.T * weights) @ targets)
                expected = xs[s + wait] @ w
                np.testing.assert_allclose(got[1, s + wait + h, j, k], expected, 1e-6)


def test_ridge_minimises_penalised_squares():
    found = made()
    got = ridge(found, True).values
    xs = np.stack([inputs_at(found.values[0], t) for t in range(60)])
    count = 15 - 3  # inputs whose targets for all horizons are measured before 15
    extended = np.concatenate([xs[:count], np.sqrt(0.1 * count) * np.eye(xs.shape[1])])
    targets = np.concatenate([found.values[0, 3:15], np.zeros((xs.shape[1], 9))])
    w = np.linalg.lstsq(extended, targets)[0]
    np.testing.assert_allclose(got[0, 3:, 1, 0], (xs @ w)[:-3])


def test_bootstrap_of_sequences():
    values = np.random.default_rng(3).normal(1.0, 0.3, size=9)
    half = 1.96 * values.std() / 3
    ends = np.array(scores.interval(values.tolist())) - values.mean()
    np.testing.assert_allclose(ends, [-half, half], atol=0.03)
    assert scores.p_value(values.tolist()) < 0.001
    assert scores.p_value((values - values.mean()).tolist()) > 0.9


@pytest.mark.slow
def test_the_study_runs_and_resumes(tmp_path, monkeypatch, capsys):
    sequences = {str(i): waves(700 + 10 * i, i) for i in range(3)}
    monkeypatch.setattr(data, "breathing", lambda: sequences)
    config = breathing.Config(
        rules=("lms", "snap_1"), rates=(10 / 3, 10.0), smoothing=("causal",),
        sequences=2, lags=3, units=2, learning_rates=(0.01, 0.02), decays=(0.99,),
        penalties=(1.0,), out=tmp_path / "out",
    )  # fmt: skip
    result = breathing.main(config)
    assert not result.interrupted
    assert len(result.rows) == len(breathing.plan(config))
    for row in result.rows:
        assert row["sequences"] == ["0", "1"]  # the shortest
        assert np.isfinite(row["nrmse"]).all()
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    shown = " ".join(capsys.readouterr().out.split())
    assert "Mean nRMSE by samples per second" in shown
    assert "Best methods, and what they are compared with" in shown
    said = "against the published error of SnAp-1, targets learned when measured: "
    assert said in shown
    assert (result.folder / "report.html").exists()
    pictures = ["errors.png", "forecasts.png"]
    check_resumed(breathing.main, config, result, pictures=pictures)
