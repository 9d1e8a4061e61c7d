"""Tests of adjoint solvers: exact ones by a reference, approximate ones by theory."""

from functools import cache, partial
from itertools import product
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import jax.test_util
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
    "relaxation": gradients.adjoints.relaxation(0.9, **TIGHT),
    "anderson": gradients.adjoints.anderson(3, **TIGHT),
    "broyden": gradients.adjoints.broyden(4, **TIGHT),
    "cg": gradients.adjoints.cg(**TIGHT),
}
NEEDS_LINEAX = {"reason": "needs the extra `oracles`"}
V = jnp.array([[0.3, -0.7, 0.2], [0.5, 0.2, -0.4], [-0.2, 0.5, 0.4]])
X = jnp.array([0.3, -0.2, 0.1])
U = jnp.array([[0.4, -0.1, 0.3], [-0.6, 0.2, 0.5], [0.1, 0.7, -0.3]])


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
    x = X.astype(V.dtype)
    return gradients.fixed_point(settle, V, 0 * x, x, **options)[0]


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


PAIRS = [("relaxation", "relaxation"), ("relaxation", "cg")]
PAIRS += [(name, name) for name in ("anderson", "broyden")]


@pytest.mark.parametrize(("solver", "adjoint"), PAIRS)
@pytest.mark.slow
def test_second_derivatives_in_all_four_modes(solver, adjoint):
    solve = partial(relaxed, solver=SOLVERS[solver], adjoint=ADJOINTS[adjoint])
    chex.assert_trees_all_close(derivatives(solve, 2), wanted(2), rtol=1e-9)


@pytest.mark.slow
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


# Tests of `recurrent_backprop`, and of its reports on the fixed point and the adjoint.


def rule(**options):
    options = {"solver": SOLVERS["relaxation"], "on_failure": "truncate"} | options
    run = gradients.recurrent_backprop(settle, loss_of, **options)
    return partial(jax.jit(run), V, 0 * X, X, 2 * X)


def jacobian():
    h = relaxed(V, **TIGHT)
    return (1 - h[:, None] ** 2) * V, 2 * (h - 2 * X) * jnp.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize("K", [0, 1, 4])
@pytest.mark.fast_rows(1)
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
    # The adjoint iteration starts at z = b, the derivative of the loss with respect to
    # the fixed point. If it starts at z = 0, it needs one more step to reach the same
    # z.
    from_zero = rule(adjoint=gradients.adjoints.relaxation(max_steps=K + 2))
    (_, lagging), _ = from_zero(start_adjoint=0 * X)
    np.testing.assert_allclose(lagging.z, series.z, rtol=1e-12)
    if K == 0:
        free = rule(adjoint=gradients.adjoints.jfb())()
        chex.assert_trees_all_equal((free[0][1].z, free[1]), (series.z, grad))


@pytest.mark.parametrize(("steps", "damping"), [(1, 1.0), (4, 1.0), (5, 0.6)])
@pytest.mark.fast_rows(1)
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


@pytest.mark.slow
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


def halve(tree):
    return jax.tree.map(lambda leaf: 0.5 * leaf, tree)


@pytest.mark.parametrize(
    ("adjoint", "factor", "residual", "steps"),
    [
        (gradients.adjoints.neumann(2), 1.75, 0.125, 3),
        (gradients.adjoints.unrolled(3), 1.75, 0.125, 3),
        (gradients.adjoints.relaxation(max_steps=3), 1.75, 0.125, 3),
        (gradients.adjoints.cg(), 2.0, 0.0, 1),
    ],
    ids=["neumann", "unrolled", "relaxation", "cg"],
)
def test_info_of_two_examples_of_which_one_is_zero(adjoint, factor, residual, steps):
    """Solve the adjoint equation z − z/2 = b, where b is 0 for the second example."""
    b = {"u": jnp.array([[1.0, -2.0], [0.0, 0.0]]), "v": jnp.array([0.5, 0.0])}
    z, info = adjoint(halve, b, 1)
    chex.assert_trees_all_close(z, jax.tree.map(lambda leaf: factor * leaf, b))
    np.testing.assert_allclose(info.residual, [residual, 0], atol=1e-15)
    assert info.converged.tolist() == [residual == 0, True]
    assert info.steps[0] == steps
    radius = info.spectral_radius[0]
    np.testing.assert_allclose(radius, 0.5 * (residual > 0), atol=1e-15)
    if isinstance(adjoint, gradients.adjoints.cg):
        assert info.steps[1] == 0


def test_conjugate_gradients_with_a_ridge_leave_a_start_without_one():
    b = jnp.array([1.0, -2.0])
    cg = gradients.adjoints.cg(ridge=0.25)
    z, _ = cg(halve, b, 0, 1.9 * b)  # 2 b is the solution without a ridge
    np.testing.assert_allclose(z, b, rtol=1e-12)


@pytest.mark.slow
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
        if name == "relaxation":
            assert warm.adjoint.steps < found.adjoint.steps - 20
        chex.assert_trees_all_close(warm_grad, grad, rtol=1e-8, atol=1e-10)
        chex.assert_trees_all_close(spoilt_grad, grad, rtol=1e-8, atol=1e-10)
        assert spoilt.adjoint.converged
    with pytest.raises(ValueError, match="start_adjoint must be left out with neumann"):
        rule(adjoint=gradients.adjoints.jfb())(start_adjoint=z)
    with pytest.raises(ValueError, match="start_adjoint must have the structure"):
        rule()(start_adjoint=(z,))


@pytest.mark.slow
def test_equals_the_solvers_of_lineax():
    lineax = pytest.importorskip("lineax", **NEEDS_LINEAX)
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
    adjoint = gradients.adjoints.linear_solver(SimpleNamespace(kind="LU"))
    with pytest.raises(
        ValueError, match=r"got .*'LU'.*, and lineax is not installed; inst"
    ):
        jax.grad(lambda V: jnp.sum(relaxed(V, adjoint=adjoint)))(V)


# The gradient is exact even if the adjoint iteration does not contract.


def test_an_adjoint_that_does_not_contract_is_solved_by_default():
    """Solve the adjoint equation of two examples.

    At their fixed points, the derivative of f is −0.67 and −1. For the second example,
    the adjoint iteration does not converge.
    """
    f = lambda theta, h, x: jnp.cos(h) + theta
    theta = jnp.array([0.0, jnp.pi / 2])
    found = gradients.fixed_point(
        f, theta, theta, (), batch_ndim=1, solver=gradients.solvers.anderson(tol=1e-12)
    ).h
    np.testing.assert_allclose(found[1], jnp.pi / 2, rtol=1e-9)
    for batch_ndim in (0, 1):
        solve = lambda theta, d=batch_ndim: gradients.fixed_point(
            f, theta, found, (), tol=1e-9, batch_ndim=d
        )
        want = 1 / (1 + jnp.sin(found))
        got = jax.jit(jax.grad(lambda theta, s=solve: jnp.sum(s(theta).h)))(theta)
        np.testing.assert_allclose(got, want, rtol=1e-8)
    rule = gradients.recurrent_backprop(f, lambda h, t: h, tol=1e-9)
    (_, equilibrium), grad = rule(theta, found, 0 * theta, theta)
    np.testing.assert_allclose(grad, want / 2, rtol=1e-8)
    info = equilibrium.adjoint
    assert info.converged.all()
    assert info.krylov.tolist() == [False, True]
    assert jnp.all(info.steps < 80)


@pytest.mark.parametrize("solver", ["anderson", "broyden"])
@pytest.mark.slow
def test_the_default_adjoint_falls_back_on_conjugate_gradients(solver):
    """Solve an adjoint equation for which the method of the solver does not converge.

    The reason is that the Jacobian of f has a spectral radius of about 3.
    """
    W = jax.random.normal(jax.random.key(0), (30, 30)) * 3 / 30**0.5
    f = lambda W, h, x: jnp.tanh(W @ h + x)  # the fixed point is 0
    solver = getattr(gradients.solvers, solver)()
    rule = gradients.recurrent_backprop(f, lambda h, t: jnp.sum(h), solver=solver)
    zero = jnp.zeros(30)
    (_, found), _ = jax.jit(rule)(W, zero, zero, jnp.zeros(()))
    assert found.adjoint.converged
    want = jnp.linalg.solve(jnp.eye(30) - W.T, jnp.ones(30))
    np.testing.assert_allclose(found.z, want, atol=1e-3 * jnp.abs(want).max())


def test_a_singular_adjoint_is_told_by_default():
    f = lambda w, h, x: jnp.stack([h[0] + w * (h[1] - x), 0.5 * h[1] + 0.5 * x])
    solve = lambda x: gradients.fixed_point(
        f, 0.3, jnp.array([0.0, 1.0]), x, max_steps=50
    )
    grad, info = jax.grad(lambda x: (jnp.sum(solve(x).h), solve(x).info), has_aux=True)(
        1.0
    )
    assert info.converged
    assert jnp.isnan(grad)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("solver", ["LU", "GMRES"])
@pytest.mark.slow
def test_lineax_solves_for_16_bits(solver, dtype):
    lineax = pytest.importorskip("lineax", **NEEDS_LINEAX)
    solver = lineax.LU() if solver == "LU" else lineax.GMRES(1e-3, 1e-3)
    A, b = (0.5 * V).astype(dtype), jnp.stack([X, -2 * X]).astype(dtype)
    solve = gradients.adjoints.linear_solver(solver)
    with jax.numpy_dtype_promotion("standard"):
        z, info = solve(lambda z: z - z @ A, b, 1)
        grad = jax.grad(lambda A: jnp.sum(relaxed(A, adjoint=solve)).astype(float))(A)
    want = jnp.linalg.solve(jnp.eye(3) - 0.5 * V.T, jnp.stack([X, -2 * X]).T).T
    assert z.dtype == grad.dtype == dtype
    assert info.converged.all()
    np.testing.assert_allclose(z.astype(float), want, atol=0.01)
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("adjoint", [None, "cg", "LU"])
@pytest.mark.slow
def test_complex_states(adjoint):
    """Compare the gradient with that of 80 unrolled evaluations of the map f."""
    W = jax.lax.complex(0.4 * V, 0.2 * U)
    x = jnp.array([0.3 + 0.5j, -0.2, 0.4j])
    f = lambda W, h, x: jnp.tanh(h @ W) * 0.5 + x
    size = lambda h: jnp.sum(jnp.abs(h) ** 2 * jnp.array([1.0, 2.0, 3.0]))
    if adjoint == "cg":
        adjoint = gradients.adjoints.cg(tol=1e-12)
    if adjoint == "LU":
        lineax = pytest.importorskip("lineax", **NEEDS_LINEAX)
        adjoint = gradients.adjoints.linear_solver(lineax.LU(), 1e-12)
    options = {"adjoint": adjoint, "tol": 1e-13}
    value = lambda W: size(gradients.fixed_point(f, W, 0 * x, x, **options).h)
    body = lambda W: lambda h, _: (f(W, h, x), None)
    steps = lambda W: size(jax.lax.scan(body(W), 0 * x, length=80)[0])
    with jax.numpy_dtype_promotion("standard"):
        got, want = jax.jit(lambda W: (jax.grad(value)(W), jax.grad(steps)(W)))(W)
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert jnp.abs(want.imag).max() > 0.1
