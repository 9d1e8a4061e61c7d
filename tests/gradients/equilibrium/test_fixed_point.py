"""Tests of the derivatives of fixed points, and of reported failures."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from bpvariants import gradients

TIGHT = {"tol": 1e-13, "max_steps": 2000}


def settle(params, h, x):
    """Evaluate a network of two groups of units, with a pytree as its state."""
    fast, slow = h["fast"], h["slow"][0]
    new = jnp.tanh(fast @ params["W"] + x @ params["U"] - 0.5 * slow)
    return {"fast": new, "slow": (0.4 * slow + 0.3 * fast * fast,)}


def problem(batch=()):
    keys = iter(jax.random.split(jax.random.key(1), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = {"W": 0.35 * normal(3, 3), "U": normal(2, 3)}
    h = {"fast": jnp.zeros((*batch, 3)), "slow": (jnp.zeros((*batch, 3)),)}
    return params, normal(*batch, 2), h, normal(*batch, 3)


def loss(h, target):
    return jnp.sum((h["fast"] + h["slow"][0] - target) ** 2, axis=-1)


def mean_loss(params, x, h, target, **options):
    h, _ = gradients.fixed_point(
        settle, params, h, x, batch_ndim=x.ndim - 1, **(TIGHT | options)
    )
    return jnp.mean(loss(h, target))


@pytest.mark.slow
def test_derivatives_of_both_orders_in_both_modes():
    params, x, h, target = problem()
    solve = jax.jit(lambda params, x: mean_loss(params, x, h, target))
    jax.test_util.check_grads(solve, (params, x), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
@pytest.mark.fast_rows(1)
def test_equals_backpropagation_through_the_relaxation(batch, damping):
    params, x, h, target = problem(batch)

    def unrolled(params):
        body = lambda h, _: (settle(params, h, x), None)
        return jnp.mean(loss(jax.lax.scan(body, h, length=200)[0], target))

    want = jax.value_and_grad(unrolled)(params)
    options = TIGHT | {"damping": damping}
    got = jax.value_and_grad(mean_loss)(params, x, h, target, **options)
    rule = gradients.recurrent_backprop(settle, loss, **options)
    (value, equilibrium), grads = jax.jit(rule)(params, h, x, target)
    chex.assert_trees_all_close(got, want, rtol=1e-10)
    chex.assert_trees_all_close((value, grads), want, rtol=1e-10)
    for info in (equilibrium.forward, equilibrium.adjoint):
        chex.assert_shape(info, batch)
        assert jnp.all(info.converged)


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm", "linen_rnn", "nnx", "nested"])
@pytest.mark.slow
def test_a_recurrent_cell_that_settles(make_problem, cell):
    """Use the step of a recurrent network, with a constant input, as the map f."""
    step, square, (params, h, xs, _), _ = make_problem(cell, batch=(2,))
    f = lambda params, h, x: step(params, h, x)[0]
    if cell == "nested":  # the state is used without its counter, which never settles
        count = h["slow"][1]
        with_count = lambda h: {"fast": h["fast"], "slow": (h["slow"], count)}
        f = lambda params, h, x: without_count(step(params, with_count(h), x)[0])
        without_count = lambda h: {"fast": h["fast"], "slow": h["slow"][0]}
        h = without_count(h)
    params, x = jax.tree.map(lambda p: 0.4 * p, params), xs[0]
    target = jax.tree.map(jnp.zeros_like, h)
    both = lambda h, t: zip(jax.tree.leaves(h), jax.tree.leaves(t), strict=True)
    loss = lambda h, t: sum(square(a, b) for a, b in both(h, t))
    options = TIGHT | {"damping": 0.7}
    rule = gradients.recurrent_backprop(f, loss, **options)
    (value, equilibrium), grads = jax.jit(rule)(params, h, x, target)
    assert jnp.all(equilibrium.adjoint.converged)

    def unrolled(params):
        body = lambda h, _: (f(params, h, x), None)
        return jnp.mean(loss(jax.lax.scan(body, h, length=1500)[0], target))

    want = jax.jit(jax.value_and_grad(unrolled))(params)
    chex.assert_trees_all_close((value, grads), want, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_both_conventions_of_pineda():
    """Check that both forms of the adjoint equation give the same gradient.

    The forms are given in the docstring of `solvers.relaxation`.
    """
    keys = jax.random.split(jax.random.key(5), 3)
    W = 0.5 * jax.random.normal(keys[0], (6, 6)) / 6**0.5
    x, outputs = jax.random.normal(keys[1], (6,)), jnp.arange(6) < 2
    target = jax.random.normal(keys[2], (6,))
    f = lambda W, h, x: jnp.tanh(W @ h + x)
    h, _ = gradients.fixed_point(f, W, 0 * x, x, **TIGHT)
    J, slope = jnp.where(outputs, target - h, 0), 1 - h**2
    solve = partial(gradients.fixed_point, params=(), init=0 * x, x=(), **TIGHT)
    relax = lambda g: solve(lambda params, y, x: g(y))[0]
    a = relax(lambda y: slope * (W.T @ y + J))
    b = relax(lambda y: W.T @ (slope * y) + J)
    square = lambda h, t: jnp.sum(jnp.where(outputs, (t - h) ** 2, 0)) / 2
    grads = gradients.recurrent_backprop(f, square, **TIGHT)(W, 0 * x, x, target)[1]
    chex.assert_trees_all_close(-jnp.outer(a, h), grads, rtol=1e-10, atol=1e-13)
    chex.assert_trees_all_close(-jnp.outer(slope * b, h), grads, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_readout_weights_and_direct_terms():
    params, x, h, target = problem((4,))
    params["V"] = jnp.arange(9.0).reshape(3, 3)
    read = lambda params, h: h["fast"] @ params["V"]
    square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    weights = jnp.array([0.5, 0.0, 2.0, 1.0])
    rule = gradients.recurrent_backprop(settle, square, readout=read, **TIGHT)
    (value, _), grads = rule(params, h, x, target, weights)

    def direct(params):
        h_, _ = gradients.fixed_point(settle, params, h, x, batch_ndim=1, **TIGHT)
        return jnp.sum(weights * square(read(params, h_), target)) / 3.5

    want = jax.value_and_grad(direct)(params)
    chex.assert_trees_all_close((value, grads), want, rtol=1e-10)
    assert jnp.any(grads["V"] != 0)


def test_neumann_is_truncated_backpropagation_at_the_fixed_point():
    params, x, h, target = problem((3,))
    h, _ = gradients.fixed_point(settle, params, h, x, batch_ndim=1, **TIGHT)

    def last_steps(params, steps):
        body = lambda h, _: (settle(params, h, x), None)
        return jnp.mean(loss(jax.lax.scan(body, h, length=steps)[0], target))

    for terms in (0, 1, 4):
        adjoint = gradients.adjoints.neumann(terms)
        got = jax.grad(mean_loss)(params, x, h, target, adjoint=adjoint)
        want = jax.grad(partial(last_steps, steps=terms + 1))(params)
        chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-13)
        value = partial(mean_loss, x=x, h=h, target=target, adjoint=adjoint)
        directional = jax.jvp(value, (params,), (params,))[1]
        dots = jax.tree.map(lambda g, v: jnp.sum(g * v), got, params)
        np.testing.assert_allclose(directional, sum(jax.tree.leaves(dots)), rtol=1e-10)


@pytest.mark.slow
def test_maps_over_params_and_closes_over_what_is_differentiated():
    params, x, h, target = problem()
    scales = jnp.array([0.3, 1.6])

    def scaled(scale, params):
        f = lambda _, h, x: settle(jax.tree.map(lambda w: scale * w, params), h, x)
        h_, info = gradients.fixed_point(f, (), h, x, **TIGHT)
        return loss(h_, target), info

    def one(scale):
        grads, info = jax.grad(scaled, argnums=(0, 1), has_aux=True)(scale, params)
        return grads, info

    together = jax.jit(jax.vmap(one))(scales)
    for i, scale in enumerate(scales):
        grads, info = jax.jit(one)(scale)
        got = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        chex.assert_trees_all_close(got[0], grads, rtol=1e-9)
        assert got[1].steps == info.steps
    assert together[1].steps[0] < together[1].steps[1]


@pytest.mark.slow
def test_recurrent_backprop_can_itself_be_differentiated():
    params, x, h, target = problem((2,))
    rule = gradients.recurrent_backprop(settle, loss, **TIGHT)
    value = lambda params, x: rule(params, h, x, target)[0][0]
    want = jax.grad(mean_loss, argnums=(0, 1))(params, x, h, target)
    got = jax.grad(value, argnums=(0, 1))(params, x)
    chex.assert_trees_all_close(got, want, rtol=1e-9, atol=1e-12)
    quadratic = lambda w: gradients.recurrent_backprop(
        linear, lambda h, t: (h - t) ** 2, **TIGHT
    )(w, 0.0, 1.0, 0.0)[1]
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(derivative(quadratic)(0.5), 96, rtol=1e-9)


def test_neumann_tells_the_residual_of_tiny_cotangents():
    _, info = gradients.adjoints.neumann(0)(lambda v: 0.1 * v, jnp.array(1e-200), 0)
    np.testing.assert_allclose(info.residual, 0.9, rtol=1e-12)
    assert not info.converged


def test_the_derivative_in_init_is_zero():
    params, x, h, target = problem()
    grads = jax.grad(mean_loss, argnums=2)(params, x, h, target)
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, h))


linear = lambda w, h, x: w * h + x
NOT_REACHED = {
    "diverges": (1.5, 1.0, {}),
    "cycles": (-1.0, 1.0, {"damping": 1.0}),
    "too few steps": (0.9, 1.0, {"max_steps": 5}),
    "not finite": (0.5, jnp.nan, {}),
}


@pytest.mark.parametrize("case", NOT_REACHED)
@pytest.mark.fast_rows(1)
def test_a_fixed_point_not_reached_is_told_and_poisons_the_gradient(case):
    w, x, options = NOT_REACHED[case]
    solve = lambda w: gradients.fixed_point(linear, w, 0.0, x, **options)
    (h, info), grad = solve(w), jax.grad(lambda w: solve(w)[0])(w)
    assert not info.converged
    assert jnp.isnan(grad)
    assert jnp.isnan(jax.jvp(lambda w: solve(w)[0], (w,), (1.0,))[1])
    rule = gradients.recurrent_backprop(linear, lambda h, t: h - t, **options)
    (value, equilibrium), grad = rule(w, 0.0, x, 0.0)
    assert jnp.isnan(grad)
    assert not equilibrium.forward.converged
    if case == "diverges":
        assert info.steps < 100  # divergence is detected long before max_steps
        assert info.spectral_radius > 1.4
        assert jnp.isfinite(h)
        assert jnp.isfinite(value)


def test_damping_settles_what_oscillates():
    _, info = gradients.fixed_point(linear, -1.498, 0.0, 1.0, damping=0.6, tol=1e-10)
    assert info.converged
    assert info.steps < 40


def test_an_adjoint_not_solved_poisons_the_gradient():
    adjoint = gradients.adjoints.relaxation(max_steps=3)
    solve = lambda w: gradients.fixed_point(linear, w, 0.0, 1.0, adjoint=adjoint)[0]
    assert jnp.isnan(jax.grad(solve)(0.9))


def test_a_bad_example_is_alone_with_it():
    w, x = jnp.array([0.5, 1.5, 0.9]), jnp.ones(3)
    solve = lambda w: gradients.fixed_point(linear, w, jnp.zeros(3), x, batch_ndim=1)
    alone = [gradients.fixed_point(linear, w[i], 0.0, 1.0)[1].steps for i in (0, 2)]
    h, info = solve(w)
    assert info.converged.tolist() == [True, False, True]
    assert [info.steps[0], info.steps[2]] == alone
    np.testing.assert_allclose(h[jnp.array([0, 2])], [2, 10], rtol=2e-4)
    grad = jax.grad(lambda w: jnp.sum(solve(w)[0]))(w)
    assert jnp.isnan(grad).tolist() == [False, True, False]
    unused = jax.grad(lambda w: jnp.sum(solve(w)[0] * jnp.array([1.0, 0.0, 1.0])))(w)
    assert jnp.isfinite(unused).all()


def test_a_zero_fixed_point_and_an_empty_batch():
    h, info = gradients.fixed_point(linear, 0.5, 1.0, 0.0)
    assert info.converged
    assert abs(h) < 1e-9
    h, info = gradients.fixed_point(
        linear, 0.5, jnp.zeros(0), jnp.zeros(0), batch_ndim=1
    )
    assert h.shape == info.steps.shape == (0,)
    rule = gradients.recurrent_backprop(linear, lambda h, t: h - t)
    (value, _), grad = rule(0.5, jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
    assert (value, grad) == (0, 0)


@pytest.mark.slow
def test_an_absolute_tolerance():
    """Compare a relative and an absolute tolerance; the fixed point is 0.

    With the default relative tolerance, the residual ‖f(h) − h‖ must fall to 1e-10.
    With the absolute tolerance 1e-5, fewer steps are needed.
    """
    solve = partial(gradients.fixed_point, linear, 0.5, 1.0, 0.0)
    relative, (h, info) = solve(), solve(atol=1e-5)
    assert relative.info.converged
    assert (relative.info.steps, info.steps) == (34, 17)
    assert info.converged
    assert 0.5 * h <= 1e-5
    f = lambda w, h, x: w * h - h**2
    run = lambda solver: gradients.fixed_point(f, 0.5, 0.3, 0.0, solver=solver)
    for solver in (gradients.solvers.anderson, gradients.solvers.broyden):
        few, more = run(solver(atol=1e-3)).info, run(solver()).info
        assert few.converged
        assert few.steps < more.steps
    far = gradients.fixed_point(linear, 0.5, 1.0, 1000.0, atol=1e-30)
    assert far.info.converged  # the residual meets the relative tolerance
    rule = gradients.recurrent_backprop(linear, lambda h, t: h, atol=1e-5)
    assert rule(0.5, 1.0, 0.0, 0.0)[0][1].forward.steps == 17


@pytest.mark.slow
def test_traced_settings_and_dtypes():
    @jax.jit
    def grad(damping, tol, max_steps, w):
        options = {"damping": damping, "tol": tol, "max_steps": max_steps}
        solve = lambda w: gradients.fixed_point(linear, w, 0 * w, 1.0, **options)[0]
        return jax.grad(solve)(w)

    got = grad(jnp.float32(0.9), jnp.float32(1e-9), 500, 0.5)
    np.testing.assert_allclose(got, 4.0, rtol=1e-6)
    for dtype, tol in [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)]:
        w, x, h = jnp.array([0.5, 1.0, 0.0], dtype)
        solve = partial(gradients.fixed_point, linear, init=h, x=x, tol=tol)
        got = jax.grad(solve, has_aux=True)(w)[0]
        assert got.dtype == dtype
        np.testing.assert_allclose(float(got), 4.0, rtol=5 * tol)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps():
    params, x, h, target = problem((8,))

    def temporary_bytes(max_steps):
        grad = lambda params: jax.grad(mean_loss)(
            params, x, h, target, max_steps=max_steps
        )
        analysis = jax.jit(grad).lower(params).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporary_bytes(10) == temporary_bytes(10_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 0.0}, "0 < damping <= 1, got 0.0"),
        ({"damping": 1.1}, "0 < damping <= 1, got 1.1"),
        ({"tol": 0.0}, "tol must be positive, such as 1e-5, got 0.0"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1, got 0"),
        ({"atol": -1.0}, "atol must be at least 0, got -1.0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        gradients.fixed_point(linear, 0.5, 0.0, 1.0, **options)
    room = gradients.solvers if "atol" in options else gradients.adjoints
    with pytest.raises(ValueError, match=message):
        room.relaxation(**options)
    with pytest.raises(ValueError, match=message):
        gradients.recurrent_backprop(linear, lambda h, t: h, **options)


def test_mistakes_in_shapes_are_named():
    for batch_ndim in (-1, 3):
        with pytest.raises(ValueError, match=f"batch_ndim must be .* got {batch_ndim}"):
            gradients.fixed_point(
                linear, 0.5, jnp.zeros(2), jnp.ones(2), batch_ndim=batch_ndim
            )
    with pytest.raises(ValueError, match="share their first batch_ndim=1 axes"):
        gradients.fixed_point(
            lambda w, h, x: h, 0.5, (jnp.zeros(2), jnp.zeros(3)), 0.0, batch_ndim=1
        )
    with pytest.raises(ValueError, match=r"adjoints.neumann\(…\), got neumann, "):
        gradients.fixed_point(linear, 0.5, 0.0, 1.0, adjoint=gradients.adjoints.neumann)
    with pytest.raises(ValueError, match="terms must be an integer of at least 0"):
        gradients.adjoints.neumann(-1)
    with pytest.raises(ValueError, match="init must be a floating array, got int"):
        gradients.fixed_point(linear, 0.5, 0, 1.0)
    with pytest.raises(ValueError, match="the result of f must have the structure"):
        gradients.fixed_point(linear, 0.5, jnp.zeros(()), jnp.ones(2))
    rule = gradients.recurrent_backprop(linear, lambda h, t: h - t)
    with pytest.raises(ValueError, match="params must be a floating array, got int"):
        rule(1, 0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="init must begin with"):
        rule(0.5, 0.0, jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match="weights must have one entry for each loss"):
        rule(0.5, jnp.zeros(3), jnp.ones(3), jnp.ones(3), jnp.ones(2))


@pytest.mark.slow
def test_closes_over_integers_and_keys_inside_any_transformation():
    weights, key = jnp.arange(4.0) / 10, jax.random.key(0)

    def solve(w, index):
        def f(w, h, x):
            noise = jax.random.uniform(jax.random.fold_in(key, index))
            return w * weights[index] * h + x * noise

        return gradients.fixed_point(f, w, 0.0, 1.0, tol=1e-13)[0]

    one_by_one = jnp.stack([jax.grad(solve)(2.0, i) for i in range(4)])
    mapped = jax.vmap(jax.grad(solve), in_axes=(None, 0))(2.0, jnp.arange(4))
    chex.assert_trees_all_close(mapped, one_by_one, rtol=1e-10)

    def total(w):
        add = lambda total, index: (total + solve(w, index), None)
        return jax.lax.scan(add, jnp.zeros(()), jnp.arange(4))[0]

    np.testing.assert_allclose(jax.grad(total)(2.0), one_by_one.sum(), rtol=1e-10)


def test_tiny_cotangents_are_not_taken_for_none():
    solve = lambda w: gradients.fixed_point(linear, w, 0.0, 1.0, tol=1e-13)[0]
    tiny = jax.grad(lambda w: 1e-200 * solve(w))(0.5)  # 1e-200 ** 2 rounds to 0
    np.testing.assert_allclose(tiny, 4e-200, rtol=1e-10)
