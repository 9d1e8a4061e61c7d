"""Without a given damping, a relaxation halves it for examples that oscillate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

cosine = lambda theta, h, x: jnp.cos(h) + theta


@pytest.mark.parametrize("batch_ndim", [1, 0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.fast_rows(1)
def test_a_jacobian_of_minus_one_has_a_gradient(dtype, batch_ndim):
    """The second example has J = −1 at h* = π/2: dh*/dθ = 1 / (1 − J) = ½."""
    theta = jnp.array([0, jnp.pi / 2], dtype)
    init = jnp.array([0, jnp.pi / 4], dtype)
    solve = partial(
        gradients.fixed_point, cosine, init=init, x=(), tol=1e-6, batch_ndim=batch_ndim
    )

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient(theta):
        h, info = solve(theta)
        return jnp.sum(h), (h, info)

    got, (h, info) = gradient(theta)
    np.testing.assert_allclose(got[1], 0.5, rtol=1e-5)
    np.testing.assert_allclose(got[0], 1 / (1 + jnp.sin(h[0])), rtol=1e-5)
    assert info.converged.all()
    assert (info.residual <= 1e-6).all()
    assert (info.steps < 200).all()
    want = [1.0, 0.5] if batch_ndim else 0.5
    np.testing.assert_array_equal(info.damping, want)
    assert jnp.all(jnp.abs(cosine(theta, h, ()) - h) <= 2e-6)


def test_recurrent_backprop_of_a_jacobian_of_minus_one():
    theta, init = jnp.array([0, jnp.pi / 2]), jnp.array([0, jnp.pi / 4])
    rule = gradients.recurrent_backprop(cosine, lambda h, target: h, tol=1e-6)
    (value, found), grad = jax.jit(rule)(theta, init, (), 0 * theta)
    np.testing.assert_allclose(2 * grad[1], 0.5, rtol=1e-6)
    np.testing.assert_allclose(2 * value, found.h[0] + jnp.pi / 2, rtol=1e-6)
    assert found.forward.converged.all()
    assert found.forward.damping.tolist() == [1.0, 0.5]
    assert found.adjoint.converged.all()
    assert found.adjoint.krylov.tolist() == [False, True]


W = jnp.array([[0.3, -0.7, 0.2], [0.5, 0.2, -0.4], [-0.2, 0.5, 0.4]])
turn = lambda angle: jnp.array(
    [[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]]
)
# Maps f(θ, h) that are linear or nearly so, an initial state, and the last damping.
OSCILLATE = {
    "period 2": (lambda theta, h: theta - h, jnp.zeros(3), 0.5),
    "sine": (lambda theta, h: theta - h + 0.005 * jnp.sin(h), jnp.zeros(3), 0.5),
    "square": (lambda theta, h: theta - h - 0.1 * h**2, jnp.zeros(3), 0.5),
    "expands": (lambda theta, h: theta - 1.2 * h, jnp.zeros(3), 0.5),
    "tanh": (lambda theta, h: theta - 3 * jnp.tanh(h), jnp.full(3, 0.1), None),
    "turns": (lambda theta, h: theta + turn(2.5) @ h, jnp.zeros(2), 0.5),
    "small cycle": (lambda theta, h: theta - h, jnp.full(3, 0.501), 0.5),
    "network": (
        lambda theta, h: jnp.tanh(-4 * W @ h + theta),
        jnp.full(3, 0.1),
        None,
    ),
}


@pytest.mark.parametrize("name", OSCILLATE)
@pytest.mark.slow
def test_what_oscillates_settles_at_a_fixed_point(name):
    g, init, damping = OSCILLATE[name]
    f = lambda theta, h, x: g(theta, h)
    theta = jnp.linspace(0.5, 1.5, len(init))
    solve = partial(gradients.fixed_point, f, init=init, x=(), tol=1e-9)
    h, info = solve(theta)
    plain = solve(theta, damping=1.0).info
    assert not plain.converged
    assert plain.damping == 1
    assert info.converged
    assert info.residual <= 1e-9
    assert damping is None or info.damping == damping
    scale = jnp.maximum(jnp.linalg.norm(h), 1e-9)
    assert jnp.linalg.norm(g(theta, h) - h) <= 2e-9 * scale
    got = jax.jacobian(lambda theta: solve(theta).h)(theta)
    J = jax.jacobian(g, argnums=1)(theta, h)
    in_theta = jax.jacobian(g)(theta, h)
    want = jnp.linalg.solve(jnp.eye(len(h)) - J, in_theta)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_what_converges_in_time_is_not_damped():
    """Halving begins only if max_steps steps would not be enough."""
    f = lambda w, h, x: w * h + x
    w = jnp.array([-0.95, -0.98, 0.98, 0.999, 1.0, 1.01, -0.5])
    ones, zeros = jnp.ones(7), jnp.zeros(7)
    solve = partial(gradients.fixed_point, f, w, zeros, ones, batch_ndim=1)
    h, info = jax.jit(solve)()
    plain_h, plain = jax.jit(partial(solve, damping=1.0))()
    np.testing.assert_array_equal(h, plain_h)
    for got, want in zip(info, plain, strict=True):
        np.testing.assert_array_equal(got, want)
    # The first two examples need 240 and 580 steps.
    short = jax.jit(partial(solve, max_steps=200))()
    assert short.info.damping.tolist() == [0.5, 0.5, 1, 1, 1, 1, 1]
    assert short.info.converged.tolist() == [True, True, *[False] * 4, True]


@pytest.mark.slow
def test_damping_may_be_given_or_left_to_the_solver():
    """A given damping is never changed; "truncate" keeps the better h*."""
    solver = gradients.solvers.relaxation()
    for damping in (0.9, 1.0):
        h, info = gradients.fixed_point(
            lambda w, h, x: x - h / 0.9 + 0.01, 0.0, 0.0, 1.0, damping=damping
        )
        assert info.damping == damping
    f = lambda w, h, x: x - h
    h, info = gradients.fixed_point(
        f, 0.0, 0.0, 1.0, solver=solver, on_failure="truncate"
    )
    assert (h, info.damping, info.converged) == (0.5, 0.5, True)
    adjoint = gradients.adjoints.relaxation(0.5)
    slope = jax.grad(
        lambda x: gradients.fixed_point(f, 0.0, 0.0, x, adjoint=adjoint).h
    )(1.0)
    assert slope == 0.5
