"""Tests of fixed points that are not found, for each value of `on_failure`."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

# Four examples of one map, h ← tanh(s W h + x). KINDS says how the iteration of each
# example behaves.
W = jnp.array([[0.3, -0.7, 0.2], [0.5, 0.2, -0.4], [-0.2, 0.5, 0.4]])
KINDS = ["settles", "grows", "cycles", "not a number"]
S = jnp.array([[1.0], [4.0], [-3.0], [1.0]])
X = jnp.array([[0.3, -0.2, 0.1], [0.1, 0.4, 0.2], [0.0, 0.2, 0.1], [jnp.nan, 0.0, 0.1]])
SOLVERS = {
    "relaxation": gradients.solvers.relaxation(tol=1e-12, max_steps=300),
    "anderson": gradients.solvers.anderson(3, tol=1e-12, max_steps=60),
    "broyden": gradients.solvers.broyden(5, tol=1e-12, max_steps=60),
}


def settle(W, h, x):
    s, x = x
    pulled = s * (h @ W.T) + x
    # The map is linear for the second example, so its state can grow without limit.
    return jnp.where(s > 2, pulled, jnp.tanh(pulled))


def solve(W, x=X, **options):
    init = jnp.full((4, 3), 0.1)
    options = {"batch_ndim": 1} | options
    return gradients.fixed_point(settle, W, init, (S, x), **options)


@cache
def jacobians(on_failure, solver, adjoint=None):
    """Return (h, info), and the Jacobians of the four states h with respect to W and x.

    The Jacobians are computed in forward mode and in reverse mode.
    """
    options = {"solver": SOLVERS[solver], "on_failure": on_failure, "adjoint": adjoint}
    f = partial(solve, **options)
    both = lambda mode: mode(f, argnums=(0, 1), has_aux=True)
    return jax.jit(
        lambda W, x: (f(W, x), [both(m)(W, x)[0] for m in (jax.jacfwd, jax.jacrev)])
    )(W, X)


def implicit(i):
    """Return the derivative of the fixed point of example i in W, by a dense solve."""
    x = (S[i], X[i])
    h = solve(W, solver=SOLVERS["relaxation"])[0][i]
    J = jax.jacobian(settle, argnums=1)(W, h, x)
    right = jax.jacobian(settle)(W, h, x).reshape(3, 9)
    return jnp.linalg.solve(jnp.eye(3) - J, right).reshape(3, 3, 3)


def test_relaxation_tells_each_failure():
    (h, info), _ = jacobians("nan", "relaxation")
    assert info.converged.tolist() == [True, False, False, False]
    assert jnp.all(jnp.isfinite(h))
    settles, grows, cycles, nan = info.steps.tolist()
    assert settles < 150
    assert grows < 30  # divergence is detected long before max_steps
    assert cycles == 300
    assert nan == 1
    assert info.spectral_radius[1] > 1.5
    assert info.spectral_radius[2] >= 0.99
    assert not jnp.isfinite(info.residual[3])
    chex.assert_trees_all_equal(h[3], jnp.full(3, 0.1))  # h is the initial state


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.fast_rows(1)
def test_nan_is_the_derivative_of_what_failed_and_of_nothing_else(solver):
    (_, info), modes = jacobians("nan", solver)
    assert info.converged[0]
    assert not info.converged[3]
    for in_w, in_x in modes:
        np.testing.assert_allclose(in_w[0], implicit(0), rtol=1e-7, atol=1e-10)
        assert jnp.all(jnp.isnan(in_w[~info.converged]))
        assert jnp.all(jnp.isfinite(in_w[info.converged]))
        assert jnp.all(jnp.isnan(in_x[3, :, 3]))
        assert jnp.all(jnp.isfinite(in_x[0, :, 0]))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.fast_rows(1)
def test_truncate_is_finite_and_the_same_in_both_modes(solver):
    (h, info), (forward, reverse) = jacobians("truncate", solver)
    (want, told), _ = jacobians("nan", solver)
    chex.assert_trees_all_equal((h, info), (want, told))
    assert jnp.all(jnp.isfinite(forward[0]))
    for tree in (forward, reverse):
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in tree)
        np.testing.assert_allclose(tree[0][0], implicit(0), rtol=1e-7, atol=1e-10)
        assert jnp.all(tree[0][3] == 0)  # because h[3] is the initial state
    if solver == "relaxation":
        chex.assert_trees_all_close(forward, reverse, rtol=1e-9, atol=1e-11)
        once = jax.jacobian(settle)(W, h, (S, jnp.nan_to_num(X)))
        # As with the adjoint `jfb`, the derivative is that of one evaluation of the
        # map.
        np.testing.assert_allclose(forward[0][1:3], once[1:3], rtol=1e-9)


@pytest.mark.parametrize(
    "adjoint",
    [
        gradients.adjoints.relaxation(max_steps=4),
        gradients.adjoints.relaxation(0.7, max_steps=1),
        gradients.adjoints.neumann(3),
        gradients.adjoints.jfb(),
        gradients.adjoints.unrolled(3, 0.8),
    ],
    ids=str,
)
@pytest.mark.fast_rows(1)
def test_truncated_adjoints_are_transposes(adjoint):
    """Check that forward and reverse mode make the same number of adjoint steps."""
    _, (forward, reverse) = jacobians("truncate", "relaxation", adjoint)
    chex.assert_trees_all_close(forward, reverse, rtol=1e-9, atol=1e-12)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in forward)


@pytest.mark.parametrize(
    ("A", "adjoint"),
    [
        # For some right-hand sides of the adjoint equation, the residual grows in the
        # first steps.
        ([[0.9, 8.0], [0.0, 0.8]], gradients.adjoints.relaxation(max_steps=2)),
        # The map is not a contraction, but the iteration of reverse mode would converge
        # for the cotangent (0, 1).
        ([[1.5, 1.0], [0.0, 0.5]], gradients.adjoints.relaxation()),
    ],
    ids=["not normal", "in part"],
)
@pytest.mark.slow
def test_truncated_modes_agree_where_right_sides_would_not(A, adjoint):
    f = lambda A, h, x: A @ h + x
    options = {"adjoint": adjoint, "on_failure": "truncate"}
    solve = lambda x: gradients.fixed_point(
        f, jnp.array(A), jnp.array([0.1, 0.2]), x, **options
    )[0]
    x = jnp.array([1.0, -2.0])
    forward, reverse = jax.jacfwd(solve)(x), jax.jacrev(solve)(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)
    want = jnp.eye(2) + (jnp.array(A) if A[0][0] < 1 else 0)
    np.testing.assert_allclose(forward, want, rtol=1e-9)


def test_too_few_steps_are_truncated_where_they_stop():
    f = lambda w, h, x: w * h + x
    options = {"max_steps": 5, "on_failure": "truncate"}
    (h, info), grad = jax.value_and_grad(
        lambda w: gradients.fixed_point(f, w, 0.0, 1.0, **options), has_aux=True
    )(0.9)
    powers = 0.9 ** jnp.arange(5.0)
    np.testing.assert_allclose(h, jnp.sum(powers[:4]), rtol=1e-12)
    np.testing.assert_allclose(grad, h * jnp.sum(powers), rtol=1e-12)
    assert not info.converged


def test_ignore_gives_the_last_iterate():
    (h, info), (forward, reverse) = jacobians("ignore", "relaxation")
    np.testing.assert_allclose(h[0], solve(W)[0][0], rtol=0, atol=1e-5)
    assert not jnp.any(info.converged[1:])
    best = jacobians("nan", "relaxation")[0][0]
    assert jnp.linalg.norm(h[1]) > 100 * jnp.linalg.norm(best[1])
    chex.assert_trees_all_equal(h[3], jnp.full(3, 0.1))  # h is the initial state
    assert jnp.all(jnp.isfinite(forward[0][:3]))
    assert jnp.any(jnp.isnan(reverse[0][:3]))  # because example 3 is NaN
    one = lambda w: gradients.fixed_point(
        lambda w, h, x: w * h + x, w, 0.0, 1.0, max_steps=3, on_failure="ignore"
    )
    (h, info), grad = jax.value_and_grad(one, has_aux=True)(0.5)
    assert (h, grad) == (1.5, 1.5 * 1.75)  # 1.75 = 1 + w + w² for w = 0.5
    assert info.residual == 0.25 / 1.5


@pytest.mark.parametrize("on_failure", ["nan", "truncate"])
@pytest.mark.fast_rows(1)
def test_examples_that_do_not_count_spoil_nothing(on_failure):
    """Examples that fail but do not affect the loss must not make the gradient NaN."""
    options = {"solver": SOLVERS["relaxation"], "on_failure": on_failure}
    counts = jnp.array([1.0, 0.0, 0.0, 0.0])
    value = lambda W: jnp.sum(counts[:, None] * solve(W, **options)[0])
    want = jnp.sum(implicit(0), axis=0)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(W), want, rtol=1e-9)
    loss = lambda h, target: jnp.sum(h, axis=-1)
    rule = gradients.recurrent_backprop(settle, loss, **options)
    args = W, jnp.full((4, 3), 0.1), (S, X), jnp.zeros(4)
    (value, found), grad = jax.jit(rule)(*args, counts)
    np.testing.assert_allclose(grad, want, rtol=1e-9)
    assert jnp.isfinite(value)
    assert found.forward.converged.tolist() == [True, False, False, False]


@pytest.mark.slow
def test_the_explicit_rule_does_what_the_implicit_one_does():
    loss = lambda h, target: jnp.sum(h**2, axis=-1)
    args = W, jnp.full((4, 3), 0.1), (S, X), jnp.zeros(4)
    for on_failure in ("nan", "truncate"):
        options = {"solver": SOLVERS["relaxation"], "on_failure": on_failure}
        rule = gradients.recurrent_backprop(settle, loss, **options)
        (value, found), grad = jax.jit(rule)(*args)
        mean = lambda W, o=options: jnp.mean(loss(solve(W, **o)[0], 0))
        want = jax.jit(jax.value_and_grad(mean))(W)
        chex.assert_trees_all_close((value, grad), want, rtol=1e-9)
        assert jnp.all(jnp.isfinite(grad)) == (on_failure == "truncate")
        assert not jnp.any(found.adjoint.converged[1:3])
        assert jnp.all(jnp.isfinite(found.h))


SINGULAR_ADJOINTS = {
    "relaxation": gradients.adjoints.relaxation(max_steps=50),
    "anderson": gradients.adjoints.anderson(max_steps=50),
    "broyden": gradients.adjoints.broyden(max_steps=50),
    "cg": gradients.adjoints.cg(max_steps=50),
}


@pytest.mark.parametrize("name", SINGULAR_ADJOINTS)
@pytest.mark.fast_rows(1)
def test_a_singular_adjoint_is_told(name):
    """A fixed point exists, but I − J is singular for the Jacobian J of the map.

    The reason is that the first unit integrates its input.
    """
    f = lambda w, h, x: jnp.stack([h[0] + w * (h[1] - x), 0.5 * h[1] + 0.5 * x])
    options = {"adjoint": SINGULAR_ADJOINTS[name]}
    init = jnp.array([0.0, 1.0])

    def value(x, on_failure):
        h, info = gradients.fixed_point(
            f, 0.3, init, x, on_failure=on_failure, **options
        )
        return jnp.sum(h), info

    grad, info = jax.grad(value, has_aux=True)(1.0, "nan")
    assert info.converged
    assert jnp.isnan(grad)
    assert jnp.isfinite(jax.grad(value, has_aux=True)(1.0, "truncate")[0])
    rule = gradients.recurrent_backprop(f, lambda h, t: jnp.sum(h), **options)
    (_, found), grad = rule(0.3, init, 1.0, 0.0)
    assert found.forward.converged
    assert not found.adjoint.converged
    assert jnp.isnan(grad)


def test_the_adjoint_of_a_map_that_expands_is_not_solved():
    """Use the derivative of one step for the diverging map h ← 2 h + x.

    Conjugate gradients could solve its adjoint equation.
    """
    f = lambda w, h, x: w * h + x
    options = {"adjoint": gradients.adjoints.cg(), "on_failure": "truncate"}
    value = lambda x: gradients.fixed_point(f, 2.0, 0.0, x, max_steps=5, **options)[0]
    assert jax.grad(value)(1.0) == 1.0


@pytest.mark.slow
def test_an_unstable_fixed_point_that_was_the_start():
    """The iteration starts at the unstable fixed point 0 and stays there.

    The adjoint iteration diverges.
    """
    f = lambda w, h, x: jnp.tanh(h @ w.T) + x * jnp.ones(3)
    w = 4 * W
    value = lambda x, adjoint, policy: jnp.sum(
        gradients.fixed_point(
            f, w, jnp.zeros(3), x, adjoint=adjoint, on_failure=policy
        )[0]
    )
    assert jnp.isnan(jax.grad(value)(0.0, gradients.adjoints.relaxation(), "nan"))
    # With on_failure="truncate", the adjoint is its first iterate, which is the
    # derivative of the loss with respect to the fixed point.
    np.testing.assert_allclose(
        jax.grad(value)(0.0, gradients.adjoints.relaxation(), "truncate"),
        3.0,
        rtol=1e-12,
    )
    want = jnp.sum(jnp.linalg.solve(jnp.eye(3) - w.T, jnp.ones(3)))
    for adjoint in (
        gradients.adjoints.cg(tol=1e-10),
        gradients.adjoints.broyden(tol=1e-10),
    ):
        got = jax.grad(value)(0.0, adjoint, "nan")
        np.testing.assert_allclose(got, want, rtol=1e-8)


@pytest.mark.slow
def test_a_failure_is_seen_where_the_loss_is_stationary():
    """Without a fixed point, the gradient is NaN even where the loss is stationary."""
    f = lambda w, h, x: jnp.tanh(h @ w + x)
    w, zeros = jnp.array([[0.3, 0.1], [-0.2, 0.4]]), jnp.zeros((2, 2))
    x = jnp.array([[0.1, 0.2], [jnp.nan, 1.0]])
    square = lambda h, target: jnp.sum((h - target) ** 2, axis=-1)
    rule = gradients.recurrent_backprop(f, square)
    (_, equilibrium), grads = rule(w, zeros, x, zeros)
    np.testing.assert_array_equal(equilibrium.forward.converged, [True, False])
    assert np.isnan(grads).all()
    # With weight 0, the failed example does not affect the gradient.
    _, grads = rule(w, zeros, x, zeros, jnp.array([1.0, 0.0]))
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["relaxation", "anderson", "broyden"])
@pytest.mark.slow
def test_what_16_bits_can_reach_counts_as_converged(name, dtype):
    f = lambda w, h, x: jnp.tanh(h @ w + x)
    w, x = jnp.array([[0.3, 0.5], [-0.4, 0.4]]), jnp.array([[0.1, 0.2], [0.7, -1.0]])
    square = lambda h, target: jnp.sum((h - target) ** 2, axis=-1)
    solver = getattr(gradients.solvers, name)()

    def run(dtype):
        rule = gradients.recurrent_backprop(f, square, solver=solver)
        cast = lambda array: array.astype(dtype)
        return rule(cast(w), cast(0 * x), cast(x), cast(jnp.ones_like(x)))

    (_, equilibrium), grads = run(dtype)
    assert equilibrium.forward.converged.all()
    assert equilibrium.adjoint.converged.all()
    np.testing.assert_allclose(grads.astype(float), run(float)[1], atol=0.03)
