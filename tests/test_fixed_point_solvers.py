"""Solvers and adjoints of fixed points: every pair exact, and the fast ones fast."""

from functools import cache, partial
from itertools import product

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import lineax
import numpy as np
import pytest

from bpvariants import gradients

TIGHT = {"tol": 1e-13, "max_steps": 2000}
SOLVERS = {
    "relaxation": gradients.solvers.relaxation(0.9, **TIGHT),
    "anderson": gradients.solvers.anderson(4, 0.9, **TIGHT),
    "broyden": gradients.solvers.broyden(3, **TIGHT),
}
ADJOINTS = {
    "relax": gradients.adjoints.relaxation(0.9, **TIGHT),
    "anderson": gradients.solvers.anderson(3, **TIGHT),
    "broyden": gradients.solvers.broyden(4, **TIGHT),
    "cg": gradients.adjoints.cg(**TIGHT),
}
V = jnp.array([[0.3, -0.7, 0.2], [0.5, 0.2, -0.4], [-0.2, 0.5, 0.4]])
X = jnp.array([0.3, -0.2, 0.1])
U = jnp.array([[0.4, -0.1, 0.3], [-0.6, 0.2, 0.5], [0.1, 0.7, -0.3]])


def settle(V, x, h):
    return jnp.tanh(h @ V.T + x)


def loss_of(h, target):
    return jnp.sum((h - target) ** 2 * jnp.array([1.0, -2.0, 3.0]).reshape(3), axis=-1)


def newton(V):
    """Another way to the same h*, dense, of which two steps are differentiated."""
    fixed = jax.lax.stop_gradient(V)
    h = jax.lax.fori_loop(0, 200, lambda _, h: settle(fixed, X, h), jnp.zeros(3))
    for _ in range(2):
        J = jax.jacobian(settle, argnums=2)(V, X, h)
        h = h + jnp.linalg.solve(jnp.eye(3) - J, settle(V, X, h) - h)
    return h


def relaxed(V, **options):
    return gradients.fixed_point(settle, V, X, 0 * X, **options)[0]


def derivatives(solve, order):
    value = lambda V: jnp.sum(solve(V) ** 2 * jnp.array([1.0, -2.0, 3.0]))
    forward = lambda f: lambda V: jax.jvp(f, (V,), (U,))[1]
    reverse = lambda f: lambda V: jnp.sum(jax.grad(f)(V) * U)
    ways = product((forward, reverse), repeat=order)

    def along_u(way, V):
        f = value
        for derivative in way:
            f = derivative(f)
        return f(V)

    ways = list(ways)
    return jax.jit(lambda V: jnp.stack([along_u(way, V) for way in ways]))(V)


@cache
def wanted(order):
    return derivatives(newton, order)


@cache
def wanted_slope():
    return jax.jit(jax.grad(lambda V: jnp.sum(newton(V))))(V)


PAIRS = [("relaxation", "relax"), ("relaxation", "cg")]
PAIRS += [(name, name) for name in ("anderson", "broyden")]


@pytest.mark.parametrize(("solver", "adjoint"), PAIRS)
def test_second_derivatives_in_all_four_modes(solver, adjoint):
    solve = partial(relaxed, solver=SOLVERS[solver], adjoint=ADJOINTS[adjoint])
    chex.assert_trees_all_close(derivatives(solve, 2), wanted(2), rtol=1e-9)


def test_every_other_pair_in_both_modes():
    names = [pair for pair in product(SOLVERS, ADJOINTS) if pair not in PAIRS]
    pairs = [(SOLVERS[solver], ADJOINTS[adjoint]) for solver, adjoint in names]

    @jax.jit
    def all_grads(V):
        value = lambda V, s, a: jnp.sum(
            relaxed(V, solver=s, adjoint=a) ** 2 * jnp.array([1.0, -2.0, 3.0])
        )
        return [
            (jnp.sum(jax.grad(f)(V) * U), jax.jvp(f, (V,), (U,))[1])
            for f in (partial(value, s=s, a=a) for s, a in pairs)
        ]

    want = tuple(wanted(1))
    for got in all_grads(V):
        chex.assert_trees_all_close(got, want, rtol=1e-10)


def test_finite_differences_agree_with_conjugate_gradients():
    solve = jax.jit(partial(relaxed, adjoint=ADJOINTS["cg"], **TIGHT))
    jax.test_util.check_grads(solve, (V,), order=1, modes=("fwd", "rev"))


# Rows of equilibria: what the explicit rule says of its two passes.


def rule(**options):
    options = {"solver": SOLVERS["relaxation"], "on_failure": "truncate"} | options
    run = gradients.recurrent_backprop(settle, loss_of, **options)
    return partial(jax.jit(run), V, 0 * X, X, 2 * X)


def jacobian():
    h = relaxed(V, **TIGHT)
    return (1 - h[:, None] ** 2) * V, 2 * (h - 2 * X) * jnp.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize("K", [0, 1, 4])
def test_relaxation_cut_short_is_the_truncated_neumann_series(K):
    J, b = jacobian()
    terms = [jnp.linalg.matrix_power(J.T, k) @ b for k in range(K + 2)]
    (_, series), grad = rule(adjoint=gradients.adjoints.neumann(K))()
    np.testing.assert_allclose(series.z, sum(terms[:-1]), rtol=1e-10)
    (_, cut), grad_of_cut = rule(
        adjoint=gradients.adjoints.relaxation(max_steps=K + 1)
    )()
    chex.assert_trees_all_close((cut.z, grad_of_cut), (series.z, grad), rtol=1e-12)
    left = jnp.linalg.norm(terms[-1]) / jnp.linalg.norm(b)
    np.testing.assert_allclose(cut.adjoint.residual, left, rtol=1e-10)
    assert cut.adjoint.steps == K + 1
    assert not cut.adjoint.converged
    # From 0 it lags by one, and so does backpropagation through time, begun at h*.
    from_zero = rule(adjoint=gradients.adjoints.relaxation(max_steps=K + 2))
    (_, lagging), _ = from_zero(start_adjoint=0 * X)
    np.testing.assert_allclose(lagging.z, series.z, rtol=1e-12)
    if K == 0:
        free = rule(adjoint=gradients.adjoints.jfb())()
        chex.assert_trees_all_equal((free[0][1].z, free[1]), (series.z, grad))


@pytest.mark.parametrize(("steps", "damping"), [(1, 1.0), (4, 1.0), (5, 0.6)])
def test_unrolled_steps_give_the_phantom_gradient(steps, damping):
    J, b = jacobian()
    A = (1 - damping) * jnp.eye(3) + damping * J.T
    powers = [damping * jnp.linalg.matrix_power(A, i) @ b for i in range(steps)]
    adjoint = gradients.adjoints.unrolled(steps, damping)
    (_, found), grad = rule(adjoint=adjoint)()
    np.testing.assert_allclose(found.z, sum(powers), rtol=1e-10)
    left = jnp.linalg.norm(b - found.z + J.T @ found.z) / jnp.linalg.norm(b)
    np.testing.assert_allclose(found.adjoint.residual, left, rtol=1e-10)
    value = lambda V: loss_of(relaxed(V, adjoint=adjoint, **TIGHT), 2 * X)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(V), grad, rtol=1e-9, atol=1e-12)


def test_many_unrolled_steps_are_exact_and_leave_the_value():
    solve = partial(relaxed, adjoint=gradients.adjoints.unrolled(150), **TIGHT)
    chex.assert_trees_all_close(derivatives(solve, 2), wanted(2), rtol=1e-9)
    few = partial(relaxed, adjoint=gradients.adjoints.unrolled(1), tol=0.1)
    chex.assert_trees_all_equal(few(V), relaxed(V, tol=0.1))


def test_conjugate_gradients_end_after_as_many_steps_as_numbers():
    (_, found), _ = rule(adjoint=gradients.adjoints.cg(tol=1e-11))()
    assert found.adjoint.converged
    assert found.adjoint.steps <= 3
    J, b = jacobian()
    (_, biased), _ = rule(adjoint=gradients.adjoints.cg(ridge=0.1, tol=1e-11))()
    A = jnp.eye(3) - J.T
    want = jnp.linalg.solve(A.T @ A + 0.1 * jnp.eye(3), A.T @ b)
    np.testing.assert_allclose(biased.z, want, rtol=1e-9)
    assert not biased.adjoint.converged
    left = jnp.linalg.norm(b - A @ want) / jnp.linalg.norm(b)
    np.testing.assert_allclose(biased.adjoint.residual, left, rtol=1e-9)


def test_warm_starts():
    cold, _ = rule(on_failure="nan")()
    h, z = cold[1].h, cold[1].z
    adjoints = ADJOINTS | {"cg": gradients.adjoints.cg(tol=1e-10)}
    for name, adjoint in adjoints.items():
        run = gradients.recurrent_backprop(
            settle, loss_of, adjoint=adjoint, on_failure="nan", **TIGHT
        )
        run = partial(jax.jit(run), 1.0001 * V, h, X, 2 * X)
        (_, found), grad = run()
        (_, warm), warm_grad = run(start_adjoint=z)
        (_, spoilt), spoilt_grad = run(start_adjoint=z * jnp.nan)
        assert warm.adjoint.converged
        assert warm.adjoint.steps <= found.adjoint.steps, name
        if name == "relax":
            assert warm.adjoint.steps < found.adjoint.steps - 20
        chex.assert_trees_all_close(warm_grad, grad, rtol=1e-8, atol=1e-10)
        chex.assert_trees_all_close(spoilt_grad, grad, rtol=1e-8, atol=1e-10)
        assert spoilt.adjoint.converged
    with pytest.raises(ValueError, match="start_adjoint must be left out with neumann"):
        rule(adjoint=gradients.adjoints.jfb())(start_adjoint=z)
    with pytest.raises(ValueError, match="start_adjoint must have the structure"):
        rule()(start_adjoint=(z,))


# Speed, which is what the others are for.


@cache
def slow_problem():
    """Six examples of 20 units, ρ(W) = 0.95."""
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
        lambda W, x, h: jnp.tanh(h @ W + x),
        lambda h, target: jnp.sum((h - 1) ** 2, axis=-1),
        solver=solvers[name],
    )
    (_, equilibrium), grad = jax.jit(run)(W, jnp.zeros((6, 20)), x, x)
    return equilibrium, grad


@pytest.mark.parametrize("name", FAST)
def test_the_same_fixed_point_in_half_the_steps_or_less(name):
    (plain, grad), (fast, fast_grad) = settled("relaxation"), settled(name)
    chex.assert_trees_all_close(fast.h, plain.h, atol=2e-6)
    chex.assert_trees_all_close(fast_grad, grad, rtol=1e-4, atol=1e-5)
    for slow, info in [(plain.forward, fast.forward), (plain.adjoint, fast.adjoint)]:
        assert jnp.all(info.converged)
        assert 2 * jnp.max(info.steps) < jnp.max(slow.steps)
    assert fast.forward.steps[5] == 1  # x = 0, begun at its fixed point
    assert fast.forward.steps[0] > 5


@pytest.mark.parametrize("name", FAST)
def test_each_example_takes_the_steps_it_takes_alone(name):
    W, x = slow_problem()
    together, _ = settled(name)
    options = {"solver": FAST[name], "batch_ndim": 1}
    f = lambda W, x, h: jnp.tanh(h @ W + x)
    solve = jax.jit(lambda x, h: gradients.fixed_point(f, W, x, h, **options))
    for i in (0, 3):
        _, alone = solve(x[i : i + 1], jnp.zeros((1, 20)))
        assert abs(alone.steps[0] - together.forward.steps[i]) <= 1  # of rounding
    bad = x.at[2].set(jnp.nan)
    h, info = solve(bad, jnp.zeros_like(x))
    others = jnp.array([0, 1, 3, 4, 5])
    chex.assert_trees_all_equal(info.steps[others], together.forward.steps[others])
    chex.assert_trees_all_equal(h[others], together.h[others])
    assert info.steps[2] == 1
    assert not info.converged[2]


@pytest.mark.parametrize("name", FAST)
def test_no_contraction_is_needed(name):
    grows = lambda w, x, h: w * h + x
    solver = gradients.solvers.broyden(tol=1e-10) if name == "broyden" else FAST[name]
    solve = lambda w: gradients.fixed_point(grows, w, 1.0, 0.0, solver=solver)
    for w in (-3.0, 1.5):
        grad, info = jax.grad(solve, has_aux=True)(w)
        assert info.converged
        np.testing.assert_allclose(grad, 1 / (1 - w) ** 2, rtol=1e-6)


# The state can be any pytree, of any batch shape.


def pair(params, x, h):
    fast, slow = h["fast"], h["slow"][0]
    new = jnp.tanh(fast @ params["W"] + x @ params["U"] - 0.5 * slow)
    return {"fast": new, "slow": (0.4 * slow + 0.3 * fast * fast,)}


@pytest.mark.parametrize("name", [*FAST, "cg"])
@pytest.mark.parametrize("batch", [(2, 3), (0,)], ids=str)
def test_trees_and_batch_shapes(name, batch):
    keys = jax.random.split(jax.random.key(3), 3)
    params = {"W": V, "U": jax.random.normal(keys[0], (2, 3))}
    x = jax.random.normal(keys[1], (*batch, 2))
    h = {"fast": jnp.zeros((*batch, 3)), "slow": (jnp.zeros((*batch, 3)),)}
    loss = lambda h, _: jnp.sum(h["fast"] + h["slow"][0] ** 2, axis=-1)
    tight = {"tol": 1e-11}
    other = {"adjoint": gradients.adjoints.cg(**tight), **tight}
    if name != "cg":
        other = {"solver": getattr(gradients, name)(**tight)}
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
def test_narrow_dtypes(name, dtype):
    tol = 2e-6 if dtype == jnp.float32 else 1e-2
    options = {"adjoint": gradients.adjoints.cg(tol=tol), "tol": tol}
    if name != "cg":
        options = {"solver": getattr(gradients, name)(tol=tol)}
    args = V.astype(dtype), X.astype(dtype), 0 * X.astype(dtype)
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


def test_equals_the_solvers_of_lineax():
    with jax.numpy_dtype_promotion("standard"):
        for solver in (lineax.LU(), lineax.GMRES(rtol=1e-11, atol=1e-11)):
            adjoint = gradients.adjoints.linear_solver(solver, tol=1e-9)
            solve = partial(relaxed, adjoint=adjoint, **TIGHT)
            chex.assert_trees_all_close(derivatives(solve, 1), wanted(1), rtol=1e-8)
        run = rule(adjoint=adjoint, on_failure="nan")
        (_, found), _ = run()
    J, b = jacobian()
    assert found.adjoint.converged
    want = jnp.linalg.solve(jnp.eye(3) - J.T, b)
    np.testing.assert_allclose(found.z, want, rtol=1e-8)


def test_without_lineax_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lineax", None)
    adjoint = gradients.adjoints.linear_solver("LU")
    with pytest.raises(
        ValueError, match=r"got 'LU', and lineax is not installed; inst"
    ):
        jax.grad(lambda V: jnp.sum(relaxed(V, adjoint=adjoint)))(V)


# The penalty on the Jacobian.


def test_jacobian_penalty_is_unbiased():
    """Of two units there are two draws, up to sign: their mean is the norm."""
    W, h = jnp.array([[0.3, -0.7], [0.5, 0.2]]), jnp.array([[0.4, -0.2], [0.0, 0.1]])
    f = lambda W, x, h: jnp.tanh(h @ W.T + x)
    keys = jax.random.split(jax.random.key(0), 32)
    penalty = partial(gradients.jacobian_penalty, f, batch_ndim=1)
    draws = jax.jit(jax.vmap(lambda key: penalty(W, 0 * h, h, key)))(keys)
    chex.assert_shape(draws, (32, 2))
    J = jax.vmap(jax.jacobian(lambda h: f(W, 0 * h, h)))(h)
    plus = jnp.sum((J[:, 0] + J[:, 1]) ** 2, axis=-1) / 2
    minus = jnp.sum((J[:, 0] - J[:, 1]) ** 2, axis=-1) / 2
    is_plus, is_minus = (jnp.isclose(draws, v[None], rtol=1e-12) for v in (plus, minus))
    assert jnp.all(is_plus | is_minus)
    assert jnp.all(is_plus.any(axis=0) & is_minus.any(axis=0))
    want = jnp.sum(J**2, axis=(1, 2)) / 2
    np.testing.assert_allclose((plus + minus) / 2, want, rtol=1e-12)
    total = lambda W: jnp.sum(penalty(W, 0 * h, h, keys[0]))
    jax.test_util.check_grads(jax.jit(total), (W,), order=1, modes=("rev",))
    assert jnp.all(jnp.isfinite(jax.grad(total)(0 * W)))
    tree = {"a": h, "b": (h,)}
    swap = lambda W, x, h: {"a": h["b"][0], "b": (0.5 * h["a"],)}
    value = penalty_of(swap, tree, keys[0])
    np.testing.assert_allclose(value, jnp.full(2, (1 + 0.25) / 2), rtol=1e-12)


def penalty_of(f, h, key):
    return gradients.jacobian_penalty(f, (), (), h, key, batch_ndim=1)


def test_mistakes_are_named():
    linear = lambda w, x, h: w * h + x
    solve = partial(gradients.fixed_point, linear, 0.5, 1.0, 0.0)
    wrong = [
        (
            partial(solve, solver=gradients.solvers.anderson),
            r"such as relaxation\(…\), .*'ande",
        ),
        (
            partial(solve, solver=gradients.adjoints.relaxation()),
            "solver must be a value",
        ),
        (
            partial(solve, solver=FAST["broyden"], tol=1e-3),
            "tol must be left out where",
        ),
        (partial(solve, adjoint=gradients.adjoints.jfb), r"such as jfb\(…\), got jfb"),
        (
            partial(solve, adjoint=gradients.solvers.relaxation()),
            r"relax\(…\), got relaxation",
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
            "max_steps must be at least 1, got 0",
        ),
        (
            partial(gradients.adjoints.unrolled, 0),
            "steps must be an integer of at least 1, got 0",
        ),
        (partial(gradients.adjoints.unrolled, 1, 2.0), "0 < damping <= 1, got 2.0"),
        (partial(gradients.adjoints.linear_solver, None, 0), "tol must be positive"),
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
