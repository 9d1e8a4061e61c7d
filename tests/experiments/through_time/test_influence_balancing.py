"""Tests of the study influence_balancing, with reference values."""

import json

import jax
import numpy as np
import pytest

from bpvariants import gradients
from experiments.through_time import influence_balancing as study

SENSITIVITIES = {
    1: 1, 5: 5, 10: 10, 20: 16.476, 23: 15.487, 30: 9.870, 40: 0.566, 50: -4.753,
    100: -6,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Run the study at the sequence length of the reference values, with two seeds."""
    out = tmp_path_factory.mktemp("influence") / "out"
    config = study.Config(truncations=(0.02,), seeds=2, out=out)
    before = jax.config.jax_enable_x64
    result = study.main(config)
    assert jax.config.jax_enable_x64 == before
    return result


def test_sensitivities_are_those_of_the_matrix_and_of_others(result):
    row = result.rows[0]
    for lookback, want in SENSITIVITIES.items():
        assert row["table"][str(lookback)] == pytest.approx(want, abs=6e-4)
    matrix = (np.eye(23) + np.eye(23, k=1)) / 2
    signs, influence, exact = np.r_[np.ones(10), -np.ones(13)], np.zeros(23), []
    for _ in range(100):
        influence = matrix @ influence + signs
        exact.append(influence[0])
    np.testing.assert_allclose(row["curve"], exact, rtol=1e-12, atol=1e-12)
    for lookback, sensitivity in row["table"].items():
        assert sensitivity == pytest.approx(exact[int(lookback) - 1], rel=1e-12)
    assert np.argmax(np.array(exact) < 0) == 41 - 1


def test_courses_end_where_those_of_others_did(result):
    rows = {row["method"]: row for row in result.rows[1:]}
    lost = {
        K: rows[f"truncated_bptt, lookback {K}, every {K}"]["lost_after"]
        for K in (10, 30)
    }
    assert lost == {10: [2531], 30: [2448]}
    ends = {1: 3.26, 40: 1.68, 41: 0.283, 50: -0.16654, 100: -0.166653}
    for K, want in ends.items():
        (theta,) = rows[f"truncated_bptt, lookback {K}, every {K}"]["theta"]
        digits = len(str(want).split(".")[1])
        assert theta == pytest.approx(want, abs=0.51 * 10**-digits)
    (theta,) = rows["rtrl"]["theta"]
    assert theta == pytest.approx(-0.166666665, abs=5e-10)
    assert rows["snap_1"]["theta"] == pytest.approx([theta], abs=1e-12)
    assert rows["rflo"]["theta"][0] > 1  # the gradient has the wrong sign
    # With one parameter, the random direction of a forward gradient is ±1, so the
    # estimate is exact.
    assert rows["forward_gradient"]["theta"] == pytest.approx([theta] * 2, abs=1e-12)
    assert len(set(rows["uoro"]["theta"])) == 2
    assert np.abs(np.array(rows["uoro"]["theta"]) + 1 / 6).max() > 0.01
    longer = rows["uoro, 10 times as long"]["theta"]
    # Reference value of the gradient: −0.16667
    np.testing.assert_allclose(longer, -1 / 6, atol=5e-6)
    drawn = rows["artbp, κ = 0.02"]["theta"]
    np.testing.assert_allclose(drawn, -1 / 6, atol=1e-4)
    assert drawn[0] != drawn[1]


def test_it_writes_what_it_shows(result):
    assert not result.interrupted
    lines = (result.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    assert len(result.rows) == 1 + 7 + 1 + len(study.ONLINE)
    picture = result.folder / "influence_balancing.png"
    assert picture.stat().st_size > 10_000
    page = (result.folder / "report.html").read_text()
    assert (
        "has the wrong sign at 40 of 100 lookbacks; the longest of them is 40" in page
    )


def test_a_leaky_network_is_the_same_network():
    theta, s = jax.numpy.array(0.3), jax.random.normal(jax.random.key(0), (23,))
    x = jax.numpy.zeros(0)
    for got, want in zip(
        study.leaky_step(theta, s, x), study.step(theta, s, x), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_the_influence_has_no_kronecker_factors():
    rule = gradients.kf_rtrl(study.step, study.half_square)
    xs, targets, _ = study.stream(1)
    with pytest.raises(ValueError, match="params does not factorise"):
        rule.init(jax.numpy.array(0.5), jax.numpy.ones(23), (xs[0], targets[0]))


def test_what_is_lost_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "MEASURED", {1: "1"})
    monkeypatch.setattr(study, "ONLINE", {"rtrl": study.ONLINE["rtrl"]})
    config = study.Config(
        lookbacks=(10,), truncations=(), iterations=40, learning_rate=0.1, out=tmp_path
    )
    (_, row, online) = study.main(config).rows
    assert row["theta"] == [None]
    assert row["path"][0][-1] is None
    assert online["method"] == "rtrl"
    shown = " ".join(capsys.readouterr().out.split())
    assert "lost after" in shown
    assert "Lost with at least one seed: truncated_bptt, lookback 10" in shown


def test_an_online_rule_is_one_row_more(check_resumed, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "MEASURED", {1: "1"})
    half = {"half": study.Online(gradients.rtrl, learning_rate=0.5, iterations=2)}
    monkeypatch.setattr(study, "ONLINE", half)
    config = study.Config(lookbacks=(), truncations=(), iterations=5, out=tmp_path)
    result = study.main(config)
    rows = result.rows
    assert [row.get("method") for row in rows] == [None, "half"]
    assert rows[1]["learning_rate"] == 5e-5
    assert rows[1]["iterations"][-1] == 10
    check_resumed(study, result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"lookbacks": (1, 0)}, r"lookbacks must be at least 1, got \(1, 0\)"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"truncations": (0.1, 1.0)}, "0 <= truncation < 1, got 1.0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        study.methods(study.Config(**options))
