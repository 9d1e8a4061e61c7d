"""Tests of studies of networks that settle at a fixed point, on small data."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import data
from experiments.equilibrium import (
    _equilibrium_propagation_report as report_of_ep,
    _nudged_network as network,
    attractor,
    equilibrium_digits,
    equilibrium_mnist,
    equilibrium_propagation,
)

TIMES = ("wall_seconds", "ms_per_step", "compile_seconds", "temp_bytes")


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


@pytest.fixture
def small(monkeypatch):
    """Replace MNIST by twenty images of noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(20, dtype=np.int32) % 10
    make = lambda: (rng.uniform(size=(20, 28, 28)).astype(np.float32), labels)
    digits = data.MNIST(make(), make())
    monkeypatch.setattr(data, "mnist", lambda: digits)


def check(result, folder, rows, pictures):
    assert not result.interrupted
    assert len(result.rows) == rows
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    for row in result.rows:
        numbers = [value for value in row.values() if not isinstance(value, str)]
        assert all(np.isfinite(value).all() for value in numbers)
    for picture in pictures:
        assert (folder / f"{picture}.png").stat().st_size > 10_000


def resume(study, config, result):
    """Delete the last row of a run, resume the run, and compare the rows."""
    path = result.folder / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    again = study.main(dataclasses.replace(config, resume=True))
    untimed = lambda rows: [
        {name: row[name] for name in row if name not in TIMES} for row in rows
    ]
    assert untimed(again.rows) == untimed(result.rows)
    assert not again.interrupted


def test_equilibrium_digits(tmp_path, monkeypatch, capsys):
    adjoints = {name: equilibrium_digits.ADJOINTS[name] for name in ("bptt-50", "rbp")}
    monkeypatch.setattr(equilibrium_digits, "ADJOINTS", adjoints)
    monkeypatch.setattr(equilibrium_digits, "REGIMES", {"projected, 0.5": (0.5, True)})
    config = equilibrium_digits.Config(seeds=2, epochs=1, out=tmp_path)
    result = equilibrium_digits.main(config)
    check(result, tmp_path, 2, ["equilibrium_digits"])
    ticks = equilibrium_digits._draw(result.rows).axes[1].get_xticks()
    assert (ticks == ticks.round()).all()
    unrolled, exact = result.rows
    # The two runs must agree, because both use the same batches, and the network
    # settles within 50 steps in both.
    np.testing.assert_allclose(exact["values"], unrolled["values"], rtol=1e-3)
    assert max(exact["norm"]) < 0.96
    assert min(exact["converged"]) > 99.9
    resume(equilibrium_digits, config, result)
    assert "97.78 ± 0.60" in capsys.readouterr().out


def test_attractor(small, tmp_path, monkeypatch):
    monkeypatch.setattr(attractor, "RULES", ("bptt-50", "cg-20"))
    config = attractor.Config(hidden=3, epochs=2, corruption=0.5, out=tmp_path)
    result = attractor.main(config)
    check(result, tmp_path, 2, ["restored", "curves"])
    page = (tmp_path / "report.html").read_text()
    assert "no statement about differences in share of wrong pixels after" in page
    assert "of a black output: " in page
    picture = (tmp_path / "restored.png").read_bytes()
    resume(attractor, config, result)
    assert (tmp_path / "restored.png").read_bytes() == picture


def test_corruption_makes_white_pixels_black():
    images = jnp.ones((4, 1000)).at[:, ::2].set(0)
    damaged = attractor.corrupt(jax.random.key(0), images, 0.3)
    assert (damaged <= images).all()
    assert abs(float(damaged.sum() / images.sum()) - 0.7) < 0.05


def test_equilibrium_mnist(small, tmp_path):
    config = equilibrium_mnist.Config(channels=2, epochs=0.4, batch=4, out=tmp_path)
    result = equilibrium_mnist.main(config)
    check(result, tmp_path, 2, ["equilibrium_mnist"])
    page = (tmp_path / "report.html").read_text()
    assert "One seed: no statement about differences in test accuracy" in page
    assert all(row["settled"] == 100 for row in result.rows)
    exact, free = (np.array(row["values"]) for row in result.rows)
    # Both networks start from the same parameters; their parameters differ after the
    # first update.
    assert exact[0] == pytest.approx(free[0])
    assert exact[-1] != free[-1]
    resume(equilibrium_mnist, config, result)


def test_equilibrium_propagation(small, tmp_path):
    config = equilibrium_propagation.Config(
        rules=("bptt", "rbp", "ep", "ep asymmetric"), hidden=5, epochs=2, batch=4,
        train=20, valid=10, test=10, out=tmp_path,
    )  # fmt: skip
    result = equilibrium_propagation.main(config)
    check(result, tmp_path, 4, ["equilibrium_propagation"])
    rows = {row["rule"]: row for row in result.rows}
    # Training starts from equal weights, and only symmetric weights give the gradient.
    assert rows["rbp"]["values"][0] == pytest.approx(rows["ep"]["values"][0], rel=1e-4)
    assert rows["rbp"]["cosines"][0] == pytest.approx(1, abs=1e-4)
    assert rows["ep"]["cosines"][0] > 0.99
    assert rows["ep asymmetric"]["cosines"][0] < 0.98
    assert rows["bptt"]["residuals"][0] < 1e-5  # small weights settle
    resume(equilibrium_propagation, config, result)


def test_max_norm_limits_the_weights_between_units():
    """Train V with large learning rates, with and without a limit of its norm."""
    config = equilibrium_propagation.Config(rate=20.0, max_norm=0.3, hidden=5)
    params = network.initial_weights(jax.random.key(0), 5, False)
    grads = jax.tree.map(jnp.ones_like, params)
    norms = {}
    for limit in (0.3, None):
        config = dataclasses.replace(config, max_norm=limit)
        optimizer = equilibrium_propagation._optimizer(config, params)
        new, state = params, optimizer.init(params)
        for _ in range(5):
            change, state = optimizer.update(grads, state, new)
            new = optax.apply_updates(new, change)
        norms[limit] = float(jnp.linalg.norm(new["V"], 2))
        # The other arrays are trained by SGD alone.
        np.testing.assert_allclose(new["U"], params["U"] - 5 * 20 * 0.04, rtol=1e-4)
    assert norms[0.3] == pytest.approx(0.3, rel=1e-3)
    assert norms[None] > 10


def test_bptt_differentiates_as_many_steps_as_the_nudged_phase_has():
    """The gradient equals that of a loop of single steps, with Jacobians by hand."""
    params = network.initial_weights(jax.random.key(0), 5, asymmetric=False)
    params["V"] *= 4  # so that more steps back matter
    x = jax.random.uniform(jax.random.key(1), (3, 784))
    target = jax.nn.one_hot(jnp.arange(3), 10)
    init = network.start(params, x)
    (value, h), grads = network.rule_of("bptt")(params, init, x, target)
    states = [init]
    for _ in range(network.FREE):
        states.append(network.step(params, states[-1], x))
    np.testing.assert_allclose(h["out"], states[-1]["out"], rtol=1e-5)
    loss = 0.5 * np.mean(np.sum((states[-1]["out"] - target) ** 2, -1))
    assert float(value) == pytest.approx(float(loss), rel=1e-5)
    z = {"hidden": jnp.zeros((3, 5)), "out": (states[-1]["out"] - target) / 3}
    want = jax.tree.map(jnp.zeros_like, params)
    for state in states[-2 : -2 - network.NUDGED : -1]:
        _, pull = jax.vjp(lambda p, h: network.step(p, h, x), params, state)
        part, z = pull(z)
        want = jax.tree.map(jnp.add, want, part)
    for name in params:
        np.testing.assert_allclose(grads[name], want[name], rtol=1e-4, atol=1e-7)


def test_errors_are_compared_with_the_exact_gradient_of_the_same_network():
    assert report_of_ep.exact_of("ep", ["rbp", "bptt", "ep"]) == "bptt"
    assert report_of_ep.exact_of("ep one-sided", ["rbp", "ep one-sided"]) == "rbp"
    found = report_of_ep.exact_of("ep asymmetric", ["bptt", "rbp asymmetric"])
    assert found == "rbp asymmetric"
    assert report_of_ep.exact_of("ep asymmetric", ["bptt", "ep asymmetric"]) is None
    # The epoch is chosen on validation images, not on test images.
    row = {"errors": [3.0, 1.0, 2.0], "valid_errors": [3.0, 2.0, 1.0]}
    assert report_of_ep.chosen(row) == 2.0


def test_a_sentence_compares_errors_with_the_exact_gradient_seed_by_seed():
    errors = {
        "bptt": [3.0, 5.0, 9.0],
        "ep": [3.01, 4.99, 9.0],
        "ep one-sided": [4.0, 6.1],  # the run was stopped before the third seed
        "rbp asymmetric": [6.0, 8.0, 7.0],
        "ep asymmetric": [5.0, 7.0, 6.1],
    }
    rows = [
        {"rule": rule, "seed": seed, "error": error}
        for rule, each in errors.items()
        for seed, error in enumerate(each)
    ]
    assert report_of_ep.conclusion(rows) == (
        "No difference from the test error of bptt: ep. Worse than the test error of "
        "bptt: ep one-sided (by 0.415 to 1.69 points). Better than the test error of "
        "rbp asymmetric: ep asymmetric (by 0.823 to 1.11 points)."
    )
    assert report_of_ep.conclusion(rows[1:2]) == ""


def test_seeds_are_trainings_of_their_own(small, tmp_path, monkeypatch):
    monkeypatch.setattr(attractor, "RULES", ("jfb",))
    config = attractor.Config(hidden=3, epochs=2, seeds=2, first_seed=4, out=tmp_path)
    first, second = attractor.main(config).rows
    assert (first["seed"], second["seed"]) == (4, 5)
    assert first["l1"] != second["l1"]


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        (equilibrium_digits, {"seeds": 0}, "seeds must be at least 1, got 0"),
        (attractor, {"corruption": 1.0}, r"corruption must be in \[0, 1\), got 1.0"),
        (attractor, {"limit": 0.0}, "limit must be positive, got 0.0"),
        (equilibrium_mnist, {"epochs": 0.0}, "epochs must be positive, got 0.0"),
        (
            equilibrium_propagation,
            {"max_norm": 0.0},
            "max_norm must be positive, got 0.0",
        ),
        (
            equilibrium_propagation,
            {"train": 59_000, "valid": 1001},
            "train \\+ valid must be at most 60000.*got 59000 \\+ 1001",
        ),
    ],
)
def test_options_are_checked(study, options, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**options)
