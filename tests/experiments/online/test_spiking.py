"""Tests of the study spiking: losses to the digit, and a plain loop as the oracle."""

import dataclasses
import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from experiments.networks import spiking as networks
from experiments.online import (
    _spiking_networks,
    _spiking_report,
    _spiking_tasks,
    spiking,
)
from tests.experiments.online import eprop_loop
from tests.experiments.resuming import check_resumed

NEST, TENSORFLOW = 1e-9, 1e-6  # relative errors
TASKS = {
    "regression": (_spiking_tasks.regression, eprop_loop.regression_settings),
    "evidence_1": (_spiking_tasks.evidence, eprop_loop.evidence_settings),
    "evidence_2": (partial(_spiking_tasks.evidence, 2), eprop_loop.evidence_settings),
}


def check_losses(name, losses):
    nest, tensorflow = _spiking_report.REFERENCES[name]
    np.testing.assert_allclose(losses, nest[: len(losses)], rtol=NEST)
    if tensorflow is not None:
        np.testing.assert_allclose(losses, tensorflow[: len(losses)], rtol=TENSORFLOW)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_losses_of_the_generic_rule_are_the_published_ones(name):
    """Compare the losses of `gradients.eprop` with those of NEST and TensorFlow."""
    losses, _, _ = spiking.published_losses(name)
    assert len(losses) == 5
    check_losses(name, losses)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_losses_of_the_plain_loop_are_the_published_ones(name):
    make, settings = TASKS[name]
    losses = eprop_loop.train(*make(), settings())
    assert len(losses) == 5
    check_losses(name, losses)


def test_two_losses_of_the_plain_loop_are_the_published_ones():
    make, settings = TASKS["regression"]
    check_losses("regression", eprop_loop.train(*make(), settings(), updates=2))


def small_problem(softmax):
    """Return a small network of ALIF neurons with settings, weights and a batch."""
    d, n, m, T, B = 3, 4, 2, 40, 2
    rng = np.random.default_rng(13)
    shapes = (d, n), (n, n), (n, m), (m, n)
    weights = _spiking_tasks.Weights(*(rng.normal(size=shape) for shape in shapes))
    np.fill_diagonal(weights.recurrent, 0)
    targets = rng.normal(size=(T, B, m))
    if softmax:
        targets = np.eye(m)[rng.integers(m, size=(T, B))]
    counts = np.where(np.arange(T) < 10, 0.0, 1.0)
    xs = 1.0 * (rng.random((T, B, d)) < 0.4)
    batch = _spiking_tasks.Batch(xs, targets, counts)
    beta = np.array([0.0, 0.1, 0.2, 0.3])
    settings = eprop_loop.Settings(5.0, 8.0, 0.6, 1.0, 3, 20.0, beta, softmax)
    return settings, weights, batch


def small_network(settings, weights, batch, rule, random=True):
    """Return the gradients of a rule, for a batch, and the carry after it."""
    cell = partial(
        cells.alif, tau=settings.tau, threshold=settings.threshold, beta=settings.beta,
        tau_adaptation=settings.tau_adaptation, refractory=settings.refractory,
    )  # fmt: skip
    feedback = jnp.asarray(weights.feedback) if random else None
    step = networks.spiking_step(cell, settings.tau_readout, feedback)
    task = networks.cross_entropy if settings.softmax else networks.squared_error
    loss = networks.spiking_loss(task, len(batch.xs), 300.0, 0.01)
    params = {"inputs": weights.inputs, "recurrent": weights.recurrent}
    params = {"cell": params, "readout": weights.readout}
    params = jax.tree.map(jnp.asarray, params)
    start = networks.first_carry(cells.alif.carry(params["cell"], (2,)))
    args = params, start, *_spiking_networks.inputs_of(batch)
    made = rule(step, loss)
    made = gradients.over_sequence(made) if hasattr(made, "update") else made
    (_, last), grads = jax.jit(made)(*args)
    return grads, last


eprop = partial(gradients.eprop, visible=networks.visible)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.fast_rows(1)
def test_gradients_of_the_generic_rule_are_those_of_the_plain_loop(softmax):
    """Check readout filter, random feedback, adaptation, refractoriness and penalty."""
    settings, weights, batch = small_problem(softmax)
    got, last = small_network(settings, weights, batch, eprop)
    assert jnp.all(last.counts > 0)
    _, want = eprop_loop.sequence(weights, batch, settings)
    want = {name: np.mean(grads, 0) / len(batch.xs) for name, grads in want.items()}
    got = got["cell"] | {"readout": got["readout"]}
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_without_random_feedback_rflo_is_eprop_and_rtrl_is_bptt():
    problem = small_problem(False)
    run = lambda rule: small_network(*problem, rule, random=False)[0]
    of_eprop, of_bptt = run(eprop), run(gradients.bptt)
    close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-13)
    close(run(gradients.rflo), of_eprop)
    close(run(gradients.rtrl), of_bptt)
    close(of_eprop["readout"], of_bptt["readout"])
    gap = jnp.abs(of_eprop["cell"]["inputs"] - of_bptt["cell"]["inputs"])
    assert jnp.max(gap) > 1e-3


def test_adam_is_that_of_the_plain_loop():
    rng, params = np.random.default_rng(0), {"w": np.ones(3)}
    update, state = _spiking_networks.adam(5e-3), {}
    opt_state = update.init(params)
    got = params
    for t in (1, 2, 3):
        grads = {"w": 1e-8 * rng.normal(size=3)}  # as small as ε
        params = eprop_loop.adam(dict(params), grads, state, t)
        change, opt_state = update.update(grads, opt_state)
        got = {"w": got["w"] + change["w"]}
    chex.assert_trees_all_close(got, params, rtol=1e-12)


def test_evidence_is_on_the_side_of_the_target():
    _, batches = _spiking_tasks.evidence(3)
    for batch in itertools.islice(batches, 2):
        assert batch.xs.shape == (2250, 3, 40)
        spikes = batch.xs[:1050].reshape(1050, 3, 4, 10).sum(axis=(0, 3))
        side = np.argmax(batch.targets[-1], axis=-1)
        each = np.arange(3)
        assert np.all(spikes[each, side] > spikes[each, 1 - side])
        assert np.sum(batch.xs[1050:2100, :, :30]) == 0  # the pause


@pytest.mark.slow
def test_spiking(tmp_path, capsys):
    config = spiking.Config(
        references=("regression",), rules=("bptt", "rflo"), units=3, updates=2,
        batch=2, seeds=1, out=tmp_path,
    )  # fmt: skip
    result = spiking.main(config)
    assert [row["job"] for row in result.rows] == [
        "published, regression", "regression by bptt", "regression by rflo",
        "evidence by bptt", "evidence by rflo",
    ]  # fmt: skip
    check_losses("regression", result.rows[0]["losses"])
    assert [row["cosine"] for row in result.rows[1::2]] == [[pytest.approx(1)]] * 2
    assert all(np.shape(row["losses"]) == (1, 2) for row in result.rows[1:])
    shown = " ".join(capsys.readouterr().out.split())
    assert "103.466731126" in shown
    assert "The losses of regression differ from those of NEST by at most" in shown
    assert "evidence: One seed: no statement about differences in loss" in shown
    assert (tmp_path / "report.html").exists()
    check_resumed(spiking.main, config, result, pictures=["spiking.png"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": ("uoro",)}, "rules must be some of bptt, rtrl, .*; got uoro"),
        ({"references": ("evidence",)}, "references must be some of regression, "),
        ({"units": 1}, "units must be at least 2, got 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(spiking.Config(), **options)
