"""Tests of the study atlas: tasks, rules, gradients, statistics, and the page."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from docs import atlas as written
from experiments import report
from experiments.harness.errors import DataError
from experiments.online import (
    _atlas_page as pages,
    _atlas_report,
    _atlas_rules as rules,
    _atlas_statistics as statistics,
    _atlas_table as table_of,
    _atlas_tasks as tasks,
    _atlas_training as training,
    _atlas_words as words,
    _dynamical_systems,
    atlas,
)
from tests.experiments.resuming import check_resumed

SIZES = training.Sizes(4, 3, 4, (0.01, 0.1), 1, 2, 200)


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def check_task(name):
    """Check the shapes of a mini-batch and of both parts; return the task."""
    found = tasks.TASKS[name](3)
    for part, batch in (
        (found.draw(jax.random.key(0)), found.batch),
        (found.validation, None),
        (found.test, None),
    ):
        xs, targets, weights = part
        batch = weights.shape[1:] if batch is None else batch
        assert xs.shape == (found.steps, *batch, found.inputs)
        assert weights.shape == targets.shape[: weights.ndim] == (found.steps, *batch)
        assert float(weights.sum()) > 0
    assert words.TRIVIAL[name] == found.predictor
    return found


def weighted(losses, weights):
    return float((losses * weights).sum() / weights.sum())


@pytest.mark.slow
def test_generated_tasks_and_their_trivial_losses():
    copy = check_task("copy")
    xs, targets, weights = copy.test
    losses = copy.loss(jnp.zeros((*weights.shape, 1)), targets)
    assert weighted(losses, weights) == pytest.approx(copy.trivial)
    # The first half is read, and the second half repeats it.
    assert (np.argmax(xs[:5], axis=-1) == targets[5:]).all()
    adding = check_task("adding")
    _, targets, weights = adding.test
    losses = adding.loss(jnp.ones((*weights.shape, 1)), targets)
    assert weighted(losses, weights) == pytest.approx(adding.trivial, rel=0.1)
    influence = check_task("influence")
    assert float(influence.loss(jnp.zeros(()), influence.test[1][-1])) == 0.5


@pytest.mark.slow
def test_forecasts_and_their_trivial_losses():
    found = check_task("mackey_glass")
    xs, targets, weights = map(np.asarray, found.test)
    ahead = tasks.AHEAD["mackey_glass"]
    np.testing.assert_array_equal(xs[ahead:], targets[:-ahead])
    last = ((xs - targets)[12:] ** 2).mean()
    train = _dynamical_systems.series("mackey_glass", tasks.SERIES, 3)[:, 0]
    mean = ((targets[12:] - train.mean()) ** 2).mean()
    assert found.trivial == pytest.approx(min(last, mean), rel=1e-3)
    assert (weights[:12] == 0).all()
    assert (weights[12:] == 1).all()


@pytest.mark.data
@pytest.mark.slow
def test_tasks_of_real_data():
    found = check_task("breathing")
    xs, targets, _ = map(np.asarray, found.test)
    assert (xs[0] == 0).all()  # a window begins at 0
    ahead = tasks.AHEAD["breathing"]
    np.testing.assert_allclose(
        xs[:-ahead] + targets[:-ahead], xs[ahead:], atol=1e-5
    )  # targets are changes
    assert found.trivial <= (targets[12:] ** 2).mean()  # no change
    assert found.trivial == pytest.approx((targets[12:] ** 2).mean(), rel=1e-3)
    digits = check_task("spoken_digits")
    losses = digits.loss(jnp.zeros((*digits.test[2].shape, 10)), digits.test[1])
    assert weighted(losses, digits.test[2]) == pytest.approx(digits.trivial)


def test_holm_and_the_paired_test():
    # Two rules differ from the best: all eight pairs have the same sign, so p = 2/256.
    best = [0.1 + 0.01 * i for i in range(8)]
    losses = {
        "best": best,
        "worse": [loss + 0.05 for loss in best],
        "far": [loss + 0.2 for loss in best],
        "near": [loss + (-1) ** i * 0.001 for i, loss in enumerate(best)],
    }
    found = statistics.compare(losses, trivial=0.5)
    assert found.best in ("best", "near")
    assert found.p_values["worse"] == pytest.approx(3 * 2 / 256)
    assert found.p_values["far"] == pytest.approx(3 * 2 / 256)
    assert len(found.equal) == 1
    assert found.learned
    raw = [0.01, 0.04, 0.03]  # sorted 0.01·3, 0.03·2, 0.04·1 → not below the one before
    assert report.holm(raw) == [0.03, 0.06, 0.06]


def test_the_paired_test_counts_signs():
    d = np.array([1.0, 2.0, -3.5])
    sums = [
        abs(a * 1 + b * 2 - c * 3.5) for a in (1, -1) for b in (1, -1) for c in (1, -1)
    ]
    want = np.mean([each >= 0.5 - 1e-9 for each in sums])
    assert statistics.paired_p(d, np.zeros(3)) == want
    assert statistics.paired_p([1.0] * 10, [0.0] * 10) == 2 / 1024


def test_bootstrap_interval():
    values = np.random.default_rng(3).normal(5.0, 2.0, 10)
    low, mean, high = statistics.interval(values.tolist())
    assert mean == pytest.approx(values.mean())
    assert low < mean < high
    # For normal values, it is nearly that of the standard error with divisor n.
    half = 1.96 * values.std() / np.sqrt(10)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)


def test_regrets_and_losses_that_are_too_large():
    assert statistics.regret(0.2, best=0.2, trivial=0.6) == 0
    assert statistics.regret(0.4, best=0.2, trivial=0.6) == pytest.approx(0.5)
    assert statistics.regret(9.0, best=0.2, trivial=0.6) == 1
    assert statistics.regret(0.7, best=0.6, trivial=0.6) == 0
    assert statistics.capped([None, np.nan, 5.0], 0.5).tolist() == [1.0, 1.0, 1.0]
    nobody = statistics.compare({"a": [0.5, 0.6], "b": [0.7, 0.6]}, trivial=0.5)
    assert not nobody.learned


@pytest.mark.slow
def test_gradients_of_exact_and_unbiased_rules():
    exact = {
        rule: training.run("copy", "tanh", rule, SIZES, 0) for rule in ("bptt", "rtrl")
    }
    np.testing.assert_allclose(exact["bptt"]["cosine"], 1, atol=1e-6)
    np.testing.assert_allclose(exact["rtrl"]["cosine"], 1, atol=1e-5)
    assert max(exact["rtrl"]["bias"]) < 1e-5
    assert exact["rtrl"]["spread"] == [0.0]
    uoro = training.run("copy", "tanh", "uoro", SIZES, 0)
    for bias, error in zip(uoro["bias"], uoro["bias_error"], strict=True):
        assert 0.3 * error < bias < 2 * error
    assert min(uoro["spread"]) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "task", "cell"),
    [("kf_rtrl", "copy", "lru"), ("kf_rtrl", "influence", "linear")],
)
def test_what_is_left_out_is_not_supported(rule, task, cell):
    made = rules.problem(task, cell, rule, 3, 2)
    params, constant = made.init(jax.random.key(0))
    part = made.draw(jax.random.key(1))
    with pytest.raises(ValueError, match="factor"):
        made.estimate(params, constant, part, jax.random.key(2))
    assert (task, cell, rule) not in rules.combinations(
        rules.TASKS, rules.CELLS, rules.RULES
    )
    assert f"`{rule}` with {_atlas_report.CELLS[cell]}" in pages._missing({})


@pytest.mark.slow
def test_eprop_is_left_out_where_it_equals_another_rule():
    for cell, task in (("tanh", "copy"), ("gru", "copy"), ("linear", "influence")):
        eprop, other = (
            rules.problem(task, cell, rule, 3, 2) for rule in ("eprop", "tbptt_1_1")
        )
        given = *other.init(jax.random.key(0)), other.draw(jax.random.key(1)), None
        with pytest.warns(UserWarning, match="keeps no trace of the past"):
            got = eprop.estimate(*given)[1]
        want = other.estimate(*given)[1]
        chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
        assert "lookback=1, every=1" in rules.LEFT_OUT["eprop", cell]
    found = tasks.task("copy", 2)
    network = rules._network(found, "lru", 3)
    rule = gradients.eprop(network.step, found.loss, visible=lambda carry: ())
    params = network.init(jax.random.key(0))
    xs, targets, _ = found.draw(jax.random.key(1))
    with pytest.raises(ValueError, match=r"use gradients\.rtrl, which is exact"):
        rule.init(params, network.carry(params, (2,)), (xs[0], targets[0]))


def test_the_order_of_combinations():
    found = rules.combinations(rules.TASKS, rules.CELLS, rules.RULES)
    assert len(found) == len(set(found)) > 250
    pairs = list(dict.fromkeys(each[:2] for each in found))
    assert pairs[5:7] == [("influence", "linear"), ("yin_yang", "layers")]
    assert len({each[2] for each in found}) >= 12


@pytest.mark.slow
def test_a_run_goes_on_and_is_entered(tmp_path, monkeypatch):
    config = atlas.Config(
        tasks=("copy",), cells=("tanh",), rules=("bptt", "snap_1", "kf_rtrl"), units=3,
        batch=2, updates=4, rates=(0.01,), trials=1, seeds=2, draws=2,
        out=tmp_path / "a",
    )  # fmt: skip
    result = atlas.main(config)
    assert [row["rule"] for row in result.rows] == ["bptt", "snap_1", "kf_rtrl"]
    said = pages.sentence({row["rule"]: row for row in result.rows}).replace("`", "")
    page = (result.folder / "report.html").read_text()
    assert said in page.replace("\u00a0", " ")
    calls, run = [], training.run
    monkeypatch.setattr(
        training, "run", lambda *args: calls.append(args[2]) or run(*args)
    )
    check_resumed(atlas.main, config, result, pictures=("atlas.png",))
    assert calls == ["kf_rtrl"]
    other = dataclasses.replace(config, rules=("rflo",), out=tmp_path / "b")
    atlas.main(other)
    table = table_of.enter([tmp_path / "a", tmp_path / "b"], "abc")
    names = ["bptt", "snap_1", "kf_rtrl", "rflo"]
    assert [row["rule"] for row in table["rows"]] == names
    assert json.loads(table_of.to_text(table)) == json.loads(json.dumps(table))
    atlas.main(dataclasses.replace(other, units=2, out=tmp_path / "c"))
    with pytest.raises(DataError, match="other runs have"):
        table_of.enter([tmp_path / "a", tmp_path / "c"], "abc")
    with pytest.raises(DataError, match="holds no run"):
        table_of.enter([tmp_path], "abc")


def test_missing_data_are_said(monkeypatch):
    def fail():
        raise DataError("no network\nmore")

    monkeypatch.setitem(atlas.NEEDED, "breathing", fail)
    assert atlas.without_data(("copy", "breathing")) == {"breathing": "no network"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rules": ("bpt",)}, "rules must be some of bptt"),
        ({"updates": 3}, "updates must be at least 4"),
        ({"rates": (0.1, 0.0)}, "rates must be positive"),
        ({"cells": ()}, "cells must have one value"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        atlas.Config(**options)


def test_the_page_is_derived_from_the_table():
    table = json.loads(written.TABLE.read_text("utf-8"))
    assert written.PAGE.read_text("utf-8") == pages.page(table)
    assert written.TABLE.read_text("utf-8") == table_of.to_text(table)


def test_sentences_follow_the_losses():
    row = {"trivial": 1.0, "microseconds": 2.0, "temp_bytes": 8.0}
    many = {
        name: row | {"test": [loss + 0.001 * i for i in range(10)]}
        for name, loss in {"bptt": 0.1, "rtrl": 0.1, "uoro": 0.5}.items()
    }
    many["rtrl"] = many["rtrl"] | {"microseconds": 1.0}
    said = pages.sentence(many)
    assert "no difference from `rtrl`" in said
    assert "the least time is that of `rtrl`" in said
    assert "Worse: `uoro` (regret 0.4" in said
    many["pes"] = row | {"test": [0.9 + 0.001 * i for i in range(10)]}
    said = pages.sentence(many)
    assert "Worse: 2 rules, from `uoro` (regret 0.45) to `pes` (regret 0.89)." in said
    assert "in 0. Their regrets differ\nby 0.00" in pages._control(
        {("copy", "gru"): many}
    )
    bad = {name: each | {"trivial": 0.05} for name, each in many.items()}
    assert pages.sentence(bad).startswith("No rule has a loss below")
    same = {name: many[name] for name in ("bptt", "rtrl")}
    assert pages.sentence(same).startswith("No difference between the 2 rules")
