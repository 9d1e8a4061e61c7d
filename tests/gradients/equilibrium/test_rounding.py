"""Tests of convergence if rounding errors keep the residual above the tolerance."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.equilibrium._with_krylov import with_krylov

FULL, TF32, BF16 = 23, 10, 7  # bits of the mantissas of factors in a product
SOLVERS = ["relaxation", "anderson", "broyden"]


def rounded(array, bits):
    """Round to `bits` bits of mantissa; the derivative is that of the identity."""
    array_, factor = jax.lax.stop_gradient(array), 2.0 ** (23 - bits) + 1.0
    scaled = array_ * jnp.asarray(factor, array.dtype)
    return array + jax.lax.stop_gradient(scaled - (scaled - array_) - array_)


def settle(params, h, x):
    w, bits = params
    product = jnp.dot(rounded(h, bits), rounded(w, bits), precision="highest")
    return jnp.tanh(product + x)


@cache
def network(n, size, dtype="float32"):
    """Return weights w of n units with ‖w‖ = 0.9, and inputs of `size` examples."""
    keys = jax.random.split(jax.random.key(0))
    w = jax.random.normal(keys[0], (n, n))
    w = 0.9 * w / jnp.linalg.norm(w, 2)
    return w.astype(dtype), (jax.random.normal(keys[1], (size, n)) / 2).astype(dtype)


def square(h, target):
    return jnp.sum((h - target) ** 2, axis=-1)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.fast_rows(1)
def test_coarse_products_settle_and_give_a_gradient(name):
    """Check convergence with coarsely rounded matrix products.

    Rounding errors keep the residual above the default tolerance; this counts as
    converged.
    """

    @jax.jit
    def run(w, x, bits):
        f = lambda w, h, x: settle((w, bits), h, x)
        solver = getattr(gradients.solvers, name)()
        rule = gradients.recurrent_backprop(f, square, solver=solver)
        (_, found), grad = rule(w, 0 * x, x, jnp.ones_like(x))
        return found, grad

    w, x = network(20, 16)
    want = run(w, x, FULL)[1]
    for bits in (TF32, BF16):
        found, grad = run(w, x, bits)
        assert found.forward.converged.all()
        assert found.adjoint.converged.all()
        assert (found.forward.residual > 1e-5).any()  # above the tolerance
        assert found.forward.residual.max() < 0.5**bits
        assert found.forward.steps.max() < 300
        error = jnp.linalg.norm(grad - want) / jnp.linalg.norm(want)
        assert error < 2 * 0.5**bits


@pytest.mark.slow
def test_float32_reaches_what_it_can():
    """Rounding errors of 256 units and 256 examples leave a residual of about 1e-7."""
    w, x = network(256, 256)
    f = lambda w, h, x: settle((w, FULL), h, x)
    solve = lambda w, tol: gradients.fixed_point(f, w, 0 * x, x, tol=tol)
    total = lambda w, tol: (solve(w, tol).h.sum(), solve(w, tol).info)
    run = jax.jit(jax.grad(total, has_aux=True))
    want, _ = run(w, 1e-5)
    for tol in (1e-7, 1e-9):
        grad, info = run(w, tol)
        assert info.converged
        assert info.steps < 150
        assert info.residual < 2e-7
        np.testing.assert_allclose(grad, want, rtol=0, atol=1e-4 * want.max())


@pytest.mark.parametrize("bits", [FULL, TF32])
@pytest.mark.parametrize("adjoint", ["cg", *SOLVERS, "default", "LU", "GMRES"])
@pytest.mark.fast_rows(1)
def test_the_adjoint_may_be_rounded_too(adjoint, bits):
    """The adjoint equation itself is evaluated with rounded products."""
    w, _ = network(30, 8)
    b = jax.random.normal(jax.random.key(1), (8, 30), "float32")
    tol = 1e-5 if bits < FULL else 1e-8
    round_ = lambda a: jax.lax.reduce_precision(a, 8, bits)
    product = lambda v, w: jnp.dot(round_(v), round_(w), precision="highest")
    adjoints = gradients.adjoints
    if adjoint in ("LU", "GMRES"):
        lineax = pytest.importorskip("lineax", reason="needs the extra `oracles`")
        method = lineax.LU() if adjoint == "LU" else lineax.GMRES(1e-6, 1e-6)
        solve = adjoints.linear_solver(method, tol)
    elif adjoint == "default":
        too_slow = adjoints.relaxation(0.01, tol, max_steps=200)
        solve = with_krylov(too_slow)
    else:
        solve = getattr(adjoints, adjoint)(tol=tol)
    z, info = jax.jit(lambda b: solve(lambda v: v - product(v, w), b, 1))(b)
    assert info.converged.all()
    assert (info.residual > tol).any()
    want = np.linalg.solve(np.eye(30) - np.asarray(w, float).T, np.asarray(b).T).T
    error = np.linalg.norm(np.asarray(z) - want) / np.linalg.norm(want)
    assert error < 3 * 0.5**bits


# Iterations that must not count as converged.

turn = lambda angle: np.array(
    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
)
LINEAR = {
    "rotation": turn(1.0),
    "slow rotation": turn(0.02),
    "quarter turn": turn(np.pi / 2),
    "period 2": -np.eye(2),
    "nearly period 2": -0.9995 * np.eye(2),
    "slow": 0.999 * np.eye(2),
    "slow spiral": 0.9995 * turn(0.1),
    "grows": 1.01 * np.eye(2),
    "spiral that grows": 1.01 * turn(0.5),
    "drifts": np.array([[1.0, 1.0], [0.0, 1.0]]),
}


@cache
def linear(name):
    """Return a function of `bits` that iterates ten linear maps with rounding.

    The initial state is 1 % away from the fixed point.
    """
    maps = jnp.array(list(LINEAR.values()), "float32")
    base = jnp.tile(jnp.array([1.0, -0.7], "float32"), (10, 1))

    @jax.jit
    def run(bits):
        def f(maps, h, x):
            away = rounded(h - base, bits)
            return base + jnp.einsum("nij,nj->ni", maps, away, precision="highest")

        init = base * jnp.array([[1.01, 0.99]], "float32")
        solver = getattr(gradients.solvers, name)(tol=1e-7)
        return gradients.fixed_point(f, maps, init, (), solver=solver, batch_ndim=1)

    return run


@pytest.mark.parametrize("bits", [FULL, TF32])
def test_what_turns_creeps_or_grows_has_not_converged(bits):
    """Check iterations that stay at a distance from their fixed point.

    The distance is 1 % at first, and never falls below a tenth of that.
    """
    info = linear("relaxation")(bits).info
    assert not info.converged.any(), dict(zip(LINEAR, info, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anderson", "broyden"])
def test_what_accelerated_solvers_call_converged_is_a_fixed_point(name):
    h, info = linear(name)(FULL)
    drifts = jnp.arange(10) == 9  # this map has a line of fixed points
    near = np.linalg.norm(np.asarray(h) - [1.0, -0.7], axis=-1) < 1e-4
    assert jnp.all(~info.converged | near | drifts)
    assert jnp.sum(info.converged) >= 7


CHAOS = {
    "logistic": lambda u: 4 * u * (1 - u),
    "period 2": lambda u: 3.2 * u * (1 - u),
    "period 4": lambda u: 3.5 * u * (1 - u),
    "no longer stable": lambda u: 3.001 * u * (1 - u),
    "tent": lambda u: 1.99 * jnp.minimum(u, 1 - u),
    "sine": lambda u: 0.5 + 0.5 * jnp.sin(20 * u),
    "bent tent": lambda u: jnp.minimum(0.9 * u + 0.3, 3 - 3.6 * u),
}


def test_small_chaos_has_not_converged():
    """Iterate a map of one chaotic unit and 30 constant units.

    The residual is only 10⁻² to 10⁻⁵ of the norm of the state, but does not shrink.
    """
    size = jnp.array([[0.1, 0.01, 0.001, 0.0003]], "float32")[..., None]
    steady = jnp.ones((len(CHAOS), 4, 30), "float32")

    def f(params, h, x):
        u = (h[..., 30:] - 1) / size
        new = jnp.stack([g(u[i]) for i, g in enumerate(CHAOS.values())])
        return jnp.concatenate([steady, 1 + size * new], axis=-1)

    starts = 1 + size * jax.random.uniform(jax.random.key(0), (7, 4, 1), "float32")
    init = jnp.concatenate([steady, starts], axis=-1)
    solve = partial(gradients.fixed_point, f, (), init, (), batch_ndim=2)
    info = jax.jit(lambda tol: solve(tol=tol).info)(1e-7)
    assert not info.converged.any(), info.residual


def test_a_slow_iteration_of_coarse_products_has_not_converged():
    """Check a slow iteration whose fixed point is 1000.

    Rounding errors exceed the residual while the state is still far from 1000.
    """
    f = lambda w, h, x: rounded(h, TF32) * w + x
    args = jnp.float32(0.999), jnp.zeros(2, "float32"), jnp.ones(2, "float32")
    _, info = jax.jit(lambda *args: gradients.fixed_point(f, *args))(*args)
    assert not info.converged
