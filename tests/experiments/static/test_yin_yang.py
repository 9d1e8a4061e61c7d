"""Tests of the study yin_yang: its results, its networks, and its rules."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import data
from experiments.static import _yin_yang_report, _yin_yang_runs as runs, yin_yang
from tests.experiments.resuming import check_resumed


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture
def small(monkeypatch):
    """Keep 400 training points, so that an epoch has 20 updates."""
    parts = data.yin_yang()
    less = parts._replace(train=tuple(part[:400] for part in parts.train))
    monkeypatch.setattr(data, "yin_yang", lambda: less)


def test_it_runs_and_goes_on(tmp_path, capsys):
    config = yin_yang.Config(
        networks=("4-30-3",), rules=("backprop", "frozen", "linear"), epochs=25,
        seeds=3, out=tmp_path,
    )  # fmt: skip
    result = yin_yang.main(config)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for name in ("accuracy", "regions-4-30-3"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    mean = {row["rule"]: np.mean(row["accuracy"]) for row in result.rows}
    assert mean["backprop"] > mean["frozen"] + 5
    assert mean["frozen"] > mean["linear"]
    assert 50 < mean["linear"] < 70  # guessing is right in 33 %
    for row in result.rows:
        assert row["epochs"] == [10, 20, 25]
        assert np.shape(row["validation"]) == (3, 3)
        # The run for the picture is the run of the first seed.
        assert row["regions_accuracy"] == pytest.approx(row["accuracy"][0], abs=2)
    assert "97.6 ± 1.5" in capsys.readouterr().out
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 2 + 3
    assert table[2].startswith("| backpropagation |")
    check_resumed(yin_yang.main, config, result, lost=2)


def test_a_killed_sweep_goes_on_with_its_finished_runs(small, tmp_path):
    config = yin_yang.Config(
        networks=("4-30-3",), rules=("linear",), epochs=2, seeds=2, out=tmp_path
    )
    result = yin_yang.main(config)
    (tmp_path / "results.jsonl").unlink()
    again = yin_yang.main(dataclasses.replace(config, resume=True))
    # The time that was spent before is not spent again.
    assert again.rows[0]["seconds"] < result.rows[0]["seconds"] / 10
    assert again.rows[0]["accuracy"] == result.rows[0]["accuracy"]


def test_an_epoch_is_a_loop_over_shuffled_batches(small):
    setting, key = runs.Setting("backprop", (30,), 0.01), jax.random.key(0)
    (params, _), advance, _ = runs.make_run(setting, key)
    inputs, classes = map(jnp.asarray, data.yin_yang().train)
    (found, _), metrics = jax.jit(advance)((params, optax.adam(0.01).init(params)), 3)

    def loss(params, inputs, classes):
        lower, upper = params
        h = jax.nn.relu(inputs @ lower["w"] + lower["b"])
        logits = h @ upper["w"] + upper["b"]
        return jnp.mean(runs.cross_entropy(logits, classes))

    of_order = jax.random.split(key, 4)[2]
    order = jax.random.permutation(jax.random.fold_in(of_order, 3), 400)
    assert sorted(order.tolist()) == list(range(400))
    slope, update = jax.jit(jax.value_and_grad(loss)), optax.adam(0.01)
    opt_state, losses = update.init(params), []
    for at in order.reshape(20, 20):
        value, grads = slope(params, inputs[at], classes[at])
        change, opt_state = update.update(grads, opt_state, params)
        params = optax.apply_updates(params, change)
        losses.append(value)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-4)
    for one, other in zip(*map(jax.tree.leaves, (found, params)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def _called(rule, hidden):
    """Return params of a network, its gradient by a rule, and the exact gradient."""
    network = runs.make_network(rule, hidden)
    keys = jax.random.split(jax.random.key(1), 3)
    params = network.init(keys[0])
    feedback = network.feedback(keys[1], params)
    inputs, classes = (jnp.asarray(part[:40]) for part in data.yin_yang().train)
    mean = lambda params: jnp.mean(
        runs.cross_entropy(network.logits(params, inputs), classes)
    )
    loss, grads = jax.jit(network.rule)(params, feedback, inputs, classes, keys[2])
    value, exact = jax.jit(jax.value_and_grad(mean))(params)
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    return params, grads, exact


@pytest.mark.parametrize("rule", runs.RULES)
def test_every_rule_has_the_exact_gradient_of_the_output_layer(rule):
    params, grads, exact = _called(rule, (8,))
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    top = (
        (lambda tree: tree["out"]) if rule in runs.SETTLING else (lambda tree: tree[-1])
    )
    # The free phase of `ep` takes all its steps; other rules stop at a tolerance.
    atol = 1e-4 if rule == "ep" else 1e-5
    for name in "wb":
        np.testing.assert_allclose(top(grads)[name], top(exact)[name], atol=atol)
    if rule == "linear":
        assert len(params) == 1
        return
    lower = runs.make_network(rule, (8,)).lower
    pairs = list(zip(*map(jax.tree.leaves, (lower(grads), lower(exact))), strict=True))
    if rule in ("backprop", "rbp"):
        for found, wanted in pairs:
            np.testing.assert_allclose(found, wanted, atol=2e-5)
    elif rule == "ep":  # the nudging is not infinitely small
        error = sum(jnp.sum((found - wanted) ** 2) for found, wanted in pairs)
        size = sum(jnp.sum(wanted**2) for _, wanted in pairs)
        assert 0 < error / size < 0.04**2
    elif rule == "frozen":
        assert not any(found.any() for found, _ in pairs)
    else:
        assert all(jnp.abs(found - wanted).max() > 1e-3 for found, wanted in pairs)


def test_initial_weights_are_uniform():
    params = runs.make_network("backprop", (120,)).init(jax.random.key(0))
    for part, inputs in zip(params, (4, 120), strict=True):
        values = jnp.concatenate([jnp.ravel(leaf) for leaf in part.values()])
        bound = inputs**-0.5
        assert jnp.abs(values).max() <= bound
        assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.1)


def test_the_connections_within_the_layer_stay_contractive():
    network = runs.make_network("rbp", (8,))
    params = network.init(jax.random.key(0))
    update = network.update(0.5)
    grads = jax.tree.map(jnp.ones_like, params)
    state, step = update.init(params), jax.jit(update.update)
    for _ in range(20):
        change, state = step(grads, state, params)
        params = optax.apply_updates(params, change)
    norms = {name: jnp.linalg.norm(params[name]["w"], 2) for name in ("in", "out")}
    assert jnp.linalg.norm(params["within"], 2) <= runs.LIMIT * 1.01
    assert min(norms.values()) > 2


def test_the_table_has_intervals_and_paired_differences():
    row = {"network": "4-30-3", "rule": "backprop", "accuracy": [90.0, 92.0, 94.0]}
    row |= {"angle": [0.0, 0.0, 0.0]}
    other = row | {"rule": "fa", "accuracy": [88.0, 90.0, 92.0], "angle": [None] * 3}
    exact, fa = _yin_yang_report.markdown([row, other]).splitlines()[2:]
    cells = [cell.strip() for cell in exact.strip("|").split("|")]
    assert cells[1:4] == ["92.0 ± 2.0", "87.0 to 97.0", "90.0"]
    assert cells[4:] == ["", "97.6 ± 1.5", "0"]
    # All three runs differ by the same number, so the paired interval has no width.
    assert "| −2.0 (−2.0 to −2.0) |  | – |" in fa


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": ("4-31-3",)}, "networks must be some of 4-30-3.*got 4-31-3"),
        ({"rules": ()}, "rules must have one value at least"),
        ({"rules": ("bp",)}, "rules must be some of backprop, .*got bp"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        yin_yang.Config(**options)
