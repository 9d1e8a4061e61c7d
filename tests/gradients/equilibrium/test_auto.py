"""Tests of the solver `auto`, which accelerates slow examples, and of its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants._examples import norm, quick_norm
from bpvariants.gradients.equilibrium.solvers._anderson import solve_positive

AUTO = gradients.solvers.auto(tol=1e-9, max_steps=3000)
RELAXATION = gradients.solvers.relaxation(1.0, tol=1e-9, max_steps=3000)
N = 12
RATES = jnp.array([0.3, 0.97, 0.99])  # slopes of the slowest direction of examples
X = jax.random.normal(jax.random.key(1), (3, N))


def matrix():
    """Return a symmetric matrix with eigenvalues spread over [−0.5, 1]."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))
    return jnp.array(q @ np.diag(np.linspace(-0.5, 1, N)) @ q.T)


def settle(w, h, x):
    rate, x = x
    return rate[:, None] * (h @ w) + x


def exact(rates=RATES):
    pairs = zip(rates, X, strict=True)
    return np.array([np.linalg.solve(np.eye(N) - r * matrix(), x) for r, x in pairs])


def solve(solver, rates=RATES, x=X):
    return gradients.fixed_point(
        settle, matrix(), 0 * x, (rates, x), solver=solver, batch_ndim=1
    )


@pytest.mark.slow
def test_slow_examples_are_accelerated_and_fast_ones_are_relaxed():
    found, relaxed = solve(AUTO), solve(RELAXATION)
    np.testing.assert_allclose(found.h, exact(), rtol=1e-6)
    assert found.info.converged.all()
    assert found.info.accelerated.tolist() == [False, True, True]
    assert not relaxed.info.accelerated.any()
    assert found.info.steps[0] == relaxed.info.steps[0]
    np.testing.assert_array_equal(found.h[0], relaxed.h[0])
    assert (3 * found.info.steps[1:] < relaxed.info.steps[1:]).all()
    assert "accelerated in 2" in repr(found.info)


@pytest.mark.slow
def test_each_example_is_iterated_as_if_it_were_alone():
    together = solve(AUTO)
    for i in range(3):
        alone = solve(AUTO, RATES[i : i + 1], X[i : i + 1])
        assert alone.info.steps == together.info.steps[i]
        np.testing.assert_allclose(alone.h[0], together.h[i], rtol=1e-9)


@pytest.mark.slow
def test_relaxation_resumes_where_acceleration_does_not_help():
    """Solve with a cyclic shift, for which the last five residuals are orthogonal."""
    shift = jnp.roll(jnp.eye(64), 1, axis=0)
    x = jnp.zeros(64).at[0].set(1.0)
    f = lambda w, h, x: 0.9 * w @ h + x
    found = gradients.fixed_point(f, shift, 0 * x, x, solver=AUTO)
    relaxed = gradients.fixed_point(f, shift, 0 * x, x, solver=RELAXATION)
    assert found.info.converged
    assert not found.info.accelerated
    assert found.info.steps < relaxed.info.steps + 30
    np.testing.assert_allclose(found.h, relaxed.h, atol=1e-6)


@pytest.mark.slow
def test_the_adjoint_is_chosen_for_each_example_too():
    rule = gradients.recurrent_backprop(
        settle, lambda h, target: jnp.sum((h - target) ** 2, axis=-1), solver=AUTO
    )
    target = jnp.ones_like(X)
    (_, found), grad = rule(matrix(), 0 * X, (RATES, X), target)
    b, want = 2 * (exact() - 1) / 3, np.zeros((N, N))
    for rate, h, each in zip(np.array(RATES), exact(), b, strict=True):
        z = np.linalg.solve((np.eye(N) - rate * matrix()).T, each)
        want += rate * np.outer(h, z)
    assert np.linalg.norm(grad - want) < 2e-6 * np.linalg.norm(want)
    assert found.adjoint.accelerated.tolist() == [False, True, True]
    assert not found.adjoint.krylov.any()


@pytest.mark.slow
def test_a_map_with_slope_minus_one_has_its_gradient():
    """At h* = π/2 the slope is −1: relaxation converges neither for h nor for z."""
    f = lambda theta, h, x: jnp.cos(h) + theta
    theta, start = jnp.array([0.0, np.pi / 2]), jnp.array([0.0, np.pi / 4])

    def total(theta):
        found = gradients.fixed_point(
            f, theta, start, (), solver="auto", tol=1e-6, batch_ndim=1
        )
        return jnp.sum(found.h), found

    grad, (h, info) = jax.grad(total, has_aux=True)(theta)
    assert info.converged.all()
    np.testing.assert_allclose(h[1], np.pi / 2, atol=1e-4)
    np.testing.assert_allclose(grad, 1 / (1 + np.sin(np.array(h))), rtol=1e-5)


def test_settings_are_those_of_the_text_auto():
    f = lambda w, h, x: w * h + x
    by_text = gradients.fixed_point(f, 0.5, 0.0, 1.0, solver="auto", tol=1e-2)
    solver = gradients.solvers.auto(tol=1e-2)
    by_class = gradients.fixed_point(f, 0.5, 0.0, 1.0, solver=solver)
    assert by_text.info.steps == by_class.info.steps == 7
    with pytest.raises(ValueError, match='damping must be left out with solver="auto"'):
        gradients.fixed_point(f, 0.5, 0.0, 1.0, solver="auto", damping=0.5)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_small_systems_are_solved_without_lapack(size):
    draw = np.random.default_rng(size).normal(size=(4, size, size + 1))
    a = draw @ draw.swapaxes(1, 2) + 1e-3 * np.eye(size)
    b = np.random.default_rng(0).normal(size=(4, size))
    got = solve_positive(jnp.array(a), jnp.array(b))
    want = np.linalg.solve(a, b[..., None])[..., 0]
    np.testing.assert_allclose(got, want, rtol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-30, 1.0, 1e30, np.inf, np.nan])
def test_quick_norms_are_norms(scale):
    scale = np.float32(scale)
    tree = [scale * X.astype(jnp.float32), scale * jnp.ones((3, 2, 2), jnp.float32)]
    for batch_ndim in (0, 1):
        got, want = quick_norm(tree, batch_ndim), norm(tree, batch_ndim)
        np.testing.assert_allclose(got, want, rtol=1e-6)
