"""Tests of `parallel_unroll(method="auto")`, and of blocks of Jacobians."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, diagnostics, gradients
from bpvariants.gradients.through_time import _parallel_choice, _parallel_jacobians

D, N = 2, 3


def problem(name, length=40, gain=0.5, batch=()):
    cell = getattr(cells, name)
    keys = jax.random.split(jax.random.key(4), 3)
    forgets = {"max_radius": 0.6} if name == "rtu" else {}
    params = cell.init(keys[0], D, N, **forgets)
    if "recurrent" in params:
        params = params | {"recurrent": gain * params["recurrent"]}
    xs = jax.random.normal(keys[1], (length, *batch, D))
    noise = lambda leaf: leaf + jax.random.normal(keys[2], leaf.shape, leaf.dtype) / 2
    return cell, params, jax.tree.map(noise, cell.carry(params, batch)), xs


def value_and_gradient(run):
    def loss(params, carry, xs):
        (last, ys), info = run(params, carry, xs)
        leaves = jax.tree.leaves((last, ys))
        return sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in leaves), (last, ys, info)

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def compare(got, want):
    """Compare values and gradients, and return the info of `got`."""
    (value, (last, ys, info)), grads = got
    (right, (right_last, right_ys, _)), right_grads = want
    chex.assert_trees_all_close(
        (value, last, ys, grads), (right, right_last, right_ys, right_grads),
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    return info


def unrolled(cell, **given):
    return lambda *args: (gradients.unroll(cell, *args, **given), None)


@pytest.mark.slow
def test_a_cpu_runs_in_order_without_a_trial():
    """The program of a CPU has one scan, and no loop of iterations."""
    cell, params, carry, xs = problem("tanh", length=5000)
    auto = jax.jit(partial(gradients.parallel_unroll, cell, method="auto"))
    program = auto.lower(params, carry, xs).as_text()
    plain = jax.jit(partial(gradients.unroll, cell)).lower(params, carry, xs).as_text()
    assert program.count("stablehlo.while") == plain.count("stablehlo.while") == 1


@pytest.mark.slow
def test_auto_in_order_equals_unroll():
    cell, *args = problem("lstm", batch=(3,))
    mask = jax.random.bernoulli(jax.random.key(0), 0.7, (40, 3))
    reset = jax.random.bernoulli(jax.random.key(1), 0.2, (40, 3))
    given = {"mask": mask, "reset": reset}
    auto = partial(gradients.parallel_unroll, cell, method="auto", **given)
    want = value_and_gradient(unrolled(cell, **given))(*args)
    info = compare(value_and_gradient(auto)(*args), want)
    assert info.steps.tolist() == [0, 0, 0]
    assert info.converged.all()
    assert not info.fell_back.any()
    last = jax.tree.map(lambda leaf: leaf[-1], info.carries)
    chex.assert_trees_all_close(last, want[0][1][0], rtol=1e-12)


@pytest.fixture
def accelerator(monkeypatch):
    """Choose as on an accelerator, with short sequences and cheap iterations."""
    monkeypatch.setattr(_parallel_choice, "SHORTEST", 1)
    monkeypatch.setattr(_parallel_choice, "LEVEL", 0.1)
    choose = lambda *args, cpu, default: default(*args)
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


@pytest.mark.parametrize("name", ["tanh", "rtu", "lru"])
@pytest.mark.slow
def test_a_network_that_forgets_runs_in_parallel(name, accelerator):
    cell, *args = problem(name, gain=0.3)
    auto = partial(gradients.parallel_unroll, cell, method="auto")
    info = compare(
        value_and_gradient(auto)(*args), value_and_gradient(unrolled(cell))(*args)
    )
    assert 1 <= info.steps <= 8
    assert info.converged
    assert not info.fell_back


@pytest.mark.slow
def test_a_chaotic_network_runs_in_order(accelerator):
    """The logistic map at 3.9 has the exponent 0.5."""

    def step(factor, h, x):
        h = factor * h * (1 - h) + x
        return h, h

    args = jnp.array(3.9), jnp.array(0.3), jnp.zeros(40)
    auto = partial(gradients.parallel_unroll, step, method="auto")
    info = compare(
        value_and_gradient(auto)(*args), value_and_gradient(unrolled(step))(*args)
    )
    assert info.steps == 0


@pytest.mark.parametrize("gain", [0.3, 1.0, 6.0])
@pytest.mark.slow
def test_the_exponent_is_that_of_the_jacobians(gain):
    """Compare with the diagnostics' exponent over the same steps."""
    cell, params, carry, xs = problem("tanh", length=_parallel_choice.PROBE, gain=gain)
    estimate = _parallel_choice.largest_exponent(
        lambda h, x: cell(params, h, x), carry, (xs,), 0
    )
    spectrum = diagnostics.jacobian_spectrum(
        cell, params, carry, xs, key=jax.random.key(0), skip=_parallel_choice.PROBE // 4
    )
    np.testing.assert_allclose(estimate, spectrum.exponents[0], atol=0.05)


def test_predictions():
    predicted = _parallel_choice.predicted_iterations
    assert predicted(-1.0) < predicted(-0.4) < jnp.inf
    assert jnp.isinf(predicted(-0.2))
    assert jnp.isinf(predicted(0.0))
    assert jnp.isinf(predicted(0.5))
    assert jnp.isinf(predicted(jnp.nan))
    assert not _parallel_choice.is_faster(10**9, jnp.array(0.1))
    assert _parallel_choice.is_faster(10**6, jnp.array(-0.5))
    assert not _parallel_choice.can_gain(100, 10)
    assert not _parallel_choice.can_gain(10**6, 10**10)


@pytest.mark.parametrize(
    ("name", "pairs", "is_exact"),
    [
        ("rtu", True, True),
        ("lstm", True, False),
        ("gru", False, False),
        ("lru", True, True),
    ],
)
@pytest.mark.slow
def test_blocks_are_found_from_the_program(name, pairs, is_exact):
    cell, params, carry, xs = problem(name)
    blocks = _parallel_jacobians.find_blocks(cell, params, carry, xs[0], 0)
    assert blocks.is_exact == is_exact
    want = [[i, N + i] for i in range(N)] if pairs else [[i] for i in range(N)]
    assert sorted(map(sorted, blocks.members.tolist())) == want
    flat = blocks.members.ravel()
    assert flat[blocks.places].tolist() == list(range(len(blocks.places)))


@pytest.mark.parametrize("name", ["rtu", "lstm", "gru", "lru"])
@pytest.mark.slow
def test_newton_with_blocks_equals_unroll(name):
    cell, *args = problem(name, batch=(2,))
    method = gradients.newton("blocks", tol=1e-12, max_steps=200, on_failure="nan")
    run = partial(gradients.parallel_unroll, cell, method=method, batch_ndim=1)
    info = compare(
        value_and_gradient(run)(*args), value_and_gradient(unrolled(cell))(*args)
    )
    assert info.converged.all()


@pytest.mark.slow
def test_exact_blocks_take_the_iterations_of_newton():
    """The rtu's blocks are exact; those of an LSTM need fewer steps than diagonals."""
    steps = lambda name, jacobian: gradients.parallel_unroll(
        *problem(name), method=gradients.newton(jacobian, tol=1e-10)
    )[1].steps.item()
    assert steps("rtu", "blocks") == steps("rtu", "full")
    assert steps("lstm", "full") < steps("lstm", "blocks") < steps("lstm", "diagonal")


@pytest.mark.slow
def test_blocks_of_unequal_sizes():
    """One unit of two elements, and one of a single element; unused places are 0."""

    def step(params, h, x):
        a, b, c = h
        h = jnp.tanh(params * (a - b) + x), a, jnp.sin(c + x)
        return h, h

    xs = jnp.linspace(-1, 1, 20)
    method = gradients.newton("blocks", tol=1e-12, on_failure="nan")
    blocks = _parallel_jacobians.find_blocks(step, 0.4, (jnp.array(0.0),) * 3, xs[0], 0)
    assert sorted(blocks.members.ravel().tolist()) == [0, 1, 2, 3]
    run = partial(gradients.parallel_unroll, step, method=method)
    args = jnp.array(0.4), tuple(jnp.array([0.1, 0.2, 0.3])), xs
    compare(value_and_gradient(run)(*args), value_and_gradient(unrolled(step))(*args))
