"""Tests of fixed-point solvers: speed, pytrees, batches, dtypes, wrong arguments."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.equilibrium._iteration import reachable

TIGHT = {"tol": 1e-13, "max_steps": 2000}
V = jnp.array([[0.3, -0.7, 0.2], [0.5, 0.2, -0.4], [-0.2, 0.5, 0.4]])
X = jnp.array([0.3, -0.2, 0.1])


def settle(V, h, x):
    return jnp.tanh(h @ V.T + x)


def loss_of(h, target):
    return jnp.sum((h - target) ** 2 * jnp.array([1.0, -2.0, 3.0]).reshape(3), axis=-1)


def newton(V):
    """Return a fixed point that can be differentiated through two Newton steps."""
    fixed = jax.lax.stop_gradient(V)
    h = jax.lax.fori_loop(0, 200, lambda _, h: settle(fixed, h, X), jnp.zeros(3))
    for _ in range(2):
        J = jax.jacobian(settle, argnums=1)(V, h, X)
        h = h + jnp.linalg.solve(jnp.eye(3) - J, settle(V, h, X) - h)
    return h


def relaxed(V, **options):
    return gradients.fixed_point(settle, V, 0 * X, X, **options)[0]


@cache
def wanted_slope():
    return jax.jit(jax.grad(lambda V: jnp.sum(newton(V))))(V)


def test_sizes_of_histories_are_static_and_other_settings_are_not():
    anderson, broyden = gradients.solvers.anderson(3), gradients.solvers.broyden(4)
    names = lambda solver: {
        jax.tree_util.keystr(path, simple=True)
        for path, _ in jax.tree.leaves_with_path(solver)
    }
    assert names(anderson) == {"mixing", "ridge", "tol", "max_steps"}
    assert names(broyden) == {"tol", "max_steps"}


def test_the_tolerance_is_within_reach_of_the_coarsest_leaf():
    fine, coarse = jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.bfloat16)
    for trees, tol, want in [
        ([fine], 1e-9, 1e-9),
        ([fine, coarse], 1e-9, 2.0**-7),  # machine epsilon of bfloat16
        ([fine, coarse], 0.125, 0.125),
    ]:
        assert reachable(tol, trees, jnp.float32) == jnp.float32(want)


# These tests check that `anderson` and `broyden` need fewer steps than relaxation.


@cache
def slow_problem():
    """Return 20×20 weights of spectral radius 0.95, and the inputs of six examples."""
    W = jax.random.normal(jax.random.key(0), (20, 20))
    W = W * (0.95 / jnp.max(jnp.abs(jnp.linalg.eigvals(W))))
    x = jnp.array([[0.02, 0.05, 0.1, 0.2, 0.4, 0.0]]).T
    return W, x * jax.random.normal(jax.random.key(1), (6, 20))


FAST = {
    "anderson": gradients.solvers.anderson(tol=1e-8),
    "broyden": gradients.solvers.broyden(tol=1e-8),
}


@cache
def settled(name):
    W, x = slow_problem()
    solvers = FAST | {"relaxation": gradients.solvers.relaxation(tol=1e-8)}
    run = gradients.recurrent_backprop(
        lambda W, h, x: jnp.tanh(h @ W + x),
        lambda h, target: jnp.sum((h - 1) ** 2, axis=-1),
        solver=solvers[name],
    )
    (_, equilibrium), grad = jax.jit(run)(W, jnp.zeros((6, 20)), x, x)
    return equilibrium, grad


@pytest.mark.parametrize("name", FAST)
@pytest.mark.slow
def test_the_same_fixed_point_in_half_the_steps_or_less(name):
    (plain, grad), (fast, fast_grad) = settled("relaxation"), settled(name)
    chex.assert_trees_all_close(fast.h, plain.h, atol=2e-6)
    chex.assert_trees_all_close(fast_grad, grad, rtol=1e-4, atol=1e-5)
    for slow, info in [(plain.forward, fast.forward), (plain.adjoint, fast.adjoint)]:
        assert jnp.all(info.converged)
        assert 2 * jnp.max(info.steps) < jnp.max(slow.steps)
    assert fast.forward.steps[5] == 1  # for the input 0, init is the fixed point
    assert fast.forward.steps[0] > 5


@pytest.mark.parametrize("name", FAST)
@pytest.mark.slow
def test_each_example_takes_the_steps_it_takes_alone(name):
    W, x = slow_problem()
    together, _ = settled(name)
    options = {"solver": FAST[name], "batch_ndim": 1}
    f = lambda W, h, x: jnp.tanh(h @ W + x)
    solve = jax.jit(lambda x, h: gradients.fixed_point(f, W, h, x, **options))
    for i in (0, 3):
        _, alone = solve(x[i : i + 1], jnp.zeros((1, 20)))
        # Rounding errors may change the number of steps by one.
        assert abs(alone.steps[0] - together.forward.steps[i]) <= 1
    bad = x.at[2].set(jnp.nan)
    h, info = solve(bad, jnp.zeros_like(x))
    others = jnp.array([0, 1, 3, 4, 5])
    chex.assert_trees_all_equal(info.steps[others], together.forward.steps[others])
    chex.assert_trees_all_equal(h[others], together.h[others])
    assert info.steps[2] == 1
    assert not info.converged[2]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.fast_rows(1)
def test_no_contraction_is_needed(name):
    grows = lambda w, h, x: w * h + x
    solver = gradients.solvers.broyden(tol=1e-10) if name == "broyden" else FAST[name]
    solve = lambda w: gradients.fixed_point(grows, w, 0.0, 1.0, solver=solver)
    for w in (-3.0, 1.5):
        grad, info = jax.grad(solve, has_aux=True)(w)
        assert info.converged
        np.testing.assert_allclose(grad, 1 / (1 - w) ** 2, rtol=1e-6)


# The state can be any pytree, with any number of batch axes.


def pair(params, h, x):
    fast, slow = h["fast"], h["slow"][0]
    new = jnp.tanh(fast @ params["W"] + x @ params["U"] - 0.5 * slow)
    return {"fast": new, "slow": (0.4 * slow + 0.3 * fast * fast,)}


@pytest.mark.parametrize("name", [*FAST, "cg"])
@pytest.mark.parametrize("batch", [(2, 3), (0,)], ids=str)
@pytest.mark.fast_rows(1)
def test_trees_and_batch_shapes(name, batch):
    keys = jax.random.split(jax.random.key(3), 3)
    params = {"W": V, "U": jax.random.normal(keys[0], (2, 3))}
    x = jax.random.normal(keys[1], (*batch, 2))
    h = {"fast": jnp.zeros((*batch, 3)), "slow": (jnp.zeros((*batch, 3)),)}
    loss = lambda h, _: jnp.sum(h["fast"] + h["slow"][0] ** 2, axis=-1)
    tight = {"tol": 1e-11}
    other = {"adjoint": gradients.adjoints.cg(**tight), **tight}
    if name != "cg":
        other = {"solver": getattr(gradients.solvers, name)(**tight)}
    run = partial(gradients.recurrent_backprop, pair, loss)
    want = jax.jit(run(**TIGHT))(params, h, x, h)
    got = jax.jit(run(**other))(params, h, x, h)
    chex.assert_trees_all_close(
        (got[0][0], got[1]), (want[0][0], want[1]), rtol=1e-7, atol=1e-9
    )
    for info in (got[0][1].forward, got[0][1].adjoint):
        chex.assert_shape(info, batch)
        assert jnp.all(info.converged)


@pytest.mark.parametrize("name", [*FAST, "cg"])
@pytest.mark.slow
def test_maps_and_differentiates_inside_other_transformations(name):
    adjoint = gradients.adjoints.cg(tol=1e-10) if name == "cg" else FAST[name]
    solver = FAST.get(name, gradients.solvers.relaxation(tol=1e-10))
    value = lambda V: jnp.sum(relaxed(V, solver=solver, adjoint=adjoint))
    both = jnp.stack([V, 0.5 * V])
    mapped = jax.jit(jax.vmap(jax.grad(value)))(both)
    want = jax.jit(jax.vmap(jax.grad(lambda V: jnp.sum(newton(V)))))(both)
    np.testing.assert_allclose(mapped, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", [*FAST, "cg"])
@pytest.mark.slow
def test_narrow_dtypes(name, dtype):
    tol = 2e-6 if dtype == jnp.float32 else 1e-2
    options = {"adjoint": gradients.adjoints.cg(tol=tol), "tol": tol}
    if name != "cg":
        options = {"solver": getattr(gradients.solvers, name)(tol=tol)}
    args = V.astype(dtype), 0 * X.astype(dtype), X.astype(dtype)
    solve = partial(gradients.fixed_point, settle, **options)
    value = lambda V, *args: (jnp.sum(solve(V, *args)[0]), solve(V, *args)[1])
    grad, info = jax.jit(jax.grad(value, has_aux=True))(*args)
    assert grad.dtype == dtype
    assert info.residual.dtype == jnp.float32
    assert info.converged
    want = wanted_slope()
    np.testing.assert_allclose(grad.astype(float), want, rtol=0, atol=10 * tol)


def test_settings_can_be_traced_and_do_not_retrace():
    traces = []

    @jax.jit
    def grad(solver, adjoint, V):
        traces.append(None)
        value = lambda V: jnp.sum(relaxed(V, solver=solver, adjoint=adjoint))
        return jax.grad(value)(V)

    want = wanted_slope()
    for mixing in (0.9, 0.8):
        solver = gradients.solvers.anderson(4, jnp.float32(mixing), 1e-9, 1e-9, 200)
        adjoint = gradients.adjoints.cg(
            jnp.float32(0.0), 1e-9, 200 if mixing > 0.85 else 100
        )
        got = grad(solver, adjoint, V)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)
    assert len(traces) == 1
    relaxing = lambda tau: relaxed(V, solver=gradients.solvers.relaxation(tau, **TIGHT))
    solutions = jax.jit(jax.vmap(relaxing))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(solutions[0], solutions[1], rtol=1e-11)


def penalty_of(f, h, key):
    return gradients.jacobian_penalty(f, (), h, (), key, batch_ndim=1)


def test_mistakes_are_named():
    linear = lambda w, h, x: w * h + x
    solve = partial(gradients.fixed_point, linear, 0.5, 0.0, 1.0)
    wrong = [
        (
            partial(solve, solver=gradients.solvers.anderson),
            r"such as gradients.solvers.relaxation\(…\), .* got anderson, ",
        ),
        (
            partial(solve, solver=gradients.adjoints.relaxation()),
            r"got gradients.adjoints.relaxation\(…\), .* give it as adjoint=",
        ),
        (
            partial(solve, solver=FAST["broyden"], tol=1e-3),
            "tol must be left out where",
        ),
        (
            partial(solve, adjoint=gradients.adjoints.jfb),
            r"such as gradients.adjoints.jfb\(…\), got jfb, ",
        ),
        (
            partial(solve, adjoint=gradients.solvers.relaxation()),
            r"adjoints.relaxation\(…\), got gradients.solvers.relaxation\(…\), ",
        ),
        (partial(solve, on_failure="raise"), "'nan', 'truncate' or 'ignore', got 'rai"),
        (
            partial(gradients.solvers.anderson, 0),
            "depth must be an integer of at least 1, got 0",
        ),
        (partial(gradients.solvers.anderson, mixing=0.0), "0 < mixing <= 1, got 0.0"),
        (
            partial(gradients.solvers.anderson, ridge=-1.0),
            "ridge must be at least 0, got -1.0",
        ),
        (
            partial(gradients.solvers.broyden, 2.0),
            "rank must be an integer of at least 1, got 2",
        ),
        (partial(gradients.solvers.broyden, tol=0.0), "tol must be positive"),
        (partial(gradients.adjoints.cg, -1.0), "ridge must be at least 0, got -1.0"),
        (
            partial(gradients.adjoints.cg, max_steps=0),
            "max_steps must be an integer of at least 1, got 0",
        ),
        (
            partial(gradients.adjoints.unrolled, 0),
            "steps must be an integer of at least 1, got 0",
        ),
        (partial(gradients.adjoints.unrolled, 1, 2.0), "0 < damping <= 1, got 2.0"),
        (
            partial(gradients.adjoints.linear_solver, object(), 0),
            "tol must be positive",
        ),
        (partial(penalty_of, linear, 1, jax.random.key(0)), "h must be a floating arr"),
        (partial(penalty_of, linear, 1.0, jax.random.key(0)), "leading axes of every"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="max_steps must be left out where solver"):
        gradients.recurrent_backprop(
            linear, loss_of, solver=FAST["broyden"], max_steps=9
        )
