"""Tests of `adjoints.reversible`: its gradient, memory, failures and exact inverse."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.equilibrium.adjoints._reversible_passes import _value
from bpvariants.gradients.equilibrium.adjoints._reversible_states import (
    fixed_point_states,
)

reversible = gradients.adjoints.reversible


def settle(params, h, x):
    return jnp.tanh(h @ params["w"] + x @ params["u"])


def problem(dtype, batch=(4,), units=6, norm=0.8):
    """Return (params, init, x) with a weight matrix of the given spectral norm."""
    draw = np.random.RandomState(0).randn
    w = draw(units, units)
    params = {"w": norm * w / np.linalg.norm(w, 2), "u": draw(3, units)}
    tree = params, 0.1 * draw(*batch, units), draw(*batch, 3)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def unrolled(beta, steps, params, init, x, f=settle):
    def step(states, _):
        y, z = states
        y = jax.tree.map(lambda y, v: (1 - beta) * y + beta * v, y, f(params, z, x))
        z = jax.tree.map(lambda z, v: (1 - beta) * z + beta * v, z, f(params, y, x))
        return (y, z), None

    return jax.lax.scan(step, (init, init), length=steps)[0][1]


def solve(adjoint, params, init, x, f=settle, **options):
    options = {"batch_ndim": 1, "adjoint": adjoint} | options
    return gradients.fixed_point(f, params, init, x, **options)[0]


def grads(solver, args):
    """Return the gradients of a weighted sum of h² in params, init and x."""

    def value(*args):
        h = solver(*args)
        weights = jnp.arange(1, h.shape[-1] + 1, dtype=h.dtype)
        return jnp.sum(h**2 @ weights)

    return jax.jit(jax.grad(value, (0, 1, 2)))(*args)


def error(got, want):
    flat = lambda tree: jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(tree)])
    return jnp.linalg.norm(flat(got) - flat(want)) / jnp.linalg.norm(flat(want))


@pytest.mark.parametrize(
    ("dtype", "state", "beta", "steps", "most"),
    [
        (jnp.float32, "floating", 0.25, 10, 1e-6),
        (jnp.float64, "fixed_point", 0.75, 40, 1e-12),
        (jnp.float64, "floating", 0.25, 10, 1e-12),
        (jnp.float64, "floating", 0.5, 10, 1e-12),
        (jnp.float32, "floating", 0.5, 10, 1e-6),
        (jnp.float32, "fixed_point", 0.5, 100, 1e-6),
        (jnp.float32, "fixed_point", 0.25, 40, 1e-6),
        (jnp.float32, "fixed_point", 0.875, 100, 1e-6),
        (jnp.float64, "fixed_point", 0.5, 100, 1e-12),
        (jnp.float64, "fixed_point", 0.25, 3, 1e-12),
    ],
)
@pytest.mark.fast_rows(2)
def test_gradients_are_those_of_the_unrolled_iteration(dtype, state, beta, steps, most):
    args = problem(dtype)
    got = grads(partial(solve, reversible(beta, steps, state)), args)
    assert error(got, grads(partial(unrolled, beta, steps), args)) < most


@pytest.mark.parametrize("state", ["floating", "fixed_point"])
@pytest.mark.slow
def test_pytrees_closures_scalars_and_vmap(state):
    adjoint = reversible(0.25, 12, state)
    (params, h, x) = problem(jnp.float64, (), 4)
    init = {"a": h, "b": (h[:2], jnp.asarray(0.3))}

    def through(solver, scale, params, init, x):
        def f(params, h, x):
            a = jnp.tanh(scale * (h["a"] @ params["w"]) + x @ params["u"] + h["b"][1])
            return {"a": a, "b": (h["a"][2:] / 2, jnp.mean(h["b"][0]) / 2)}

        h = solver(params, init, x, f=f)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(h))

    ours = lambda params, init, x, f: solve(adjoint, params, init, x, f, batch_ndim=0)
    by = lambda solver: jax.grad(partial(through, solver), (0, 1, 2, 3))
    args = jnp.asarray(0.9), params, init, x
    want = by(partial(unrolled, 0.25, 12))(*args)
    chex.assert_trees_all_close(by(ours)(*args), want, rtol=1e-10, atol=1e-13)
    xs = jnp.stack([x, 2 * x])
    over = lambda solver: jax.vmap(by(solver), (None, None, None, 0))
    want = over(partial(unrolled, 0.25, 12))(*args[:3], xs)
    got = jax.jit(over(ours))(*args[:3], xs)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-13)


def temporary_bytes(state, steps):
    args = problem(jnp.float32, (8,), 32)
    solver = partial(solve, reversible(0.5, steps, state))
    value = lambda *args: jnp.sum(solver(*args) ** 2)
    program = jax.jit(jax.grad(value, (0, 1, 2))).lower(*args).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_depend_on_the_number_of_steps():
    few, many = (temporary_bytes("floating", steps) for steps in (10, 10_000))
    assert abs(np.log(many / few) / np.log(1000)) < 0.02


@pytest.mark.slow
def test_fixed_point_states_store_one_bit_for_each_half_step():
    few, many = (temporary_bytes("fixed_point", steps) for steps in (3200, 6400))
    bits = 8 * (many - few) / (2 * 3200 * 8 * 32)
    assert 1 <= bits < 1.1 * 2  # the compiler may keep two copies of the words


def there_and_back(states, steps, theta, start):
    """Run N steps, then invert them all; return the last and the first state."""
    g = lambda theta, h: settle(theta[0], h, theta[1])
    value = lambda s, k: _value(g, theta, states.decode(s, start), k >= 0)
    words = states.no_words(start, steps)

    def forward(k, now):
        y, z, of_y, of_z = now
        y, of_y = states.mix(y, value(z, k), of_y, k)
        z, of_z = states.mix(z, value(y, k), of_z, k)
        return y, z, of_y, of_z

    def backward(i, now):
        y, z, of_y, of_z = now
        k = steps - 1 - i
        z = states.unmix(z, value(y, k), of_z, k)
        return states.unmix(y, value(z, k), of_y, k), z, of_y, of_z

    begin = states.encode(start)
    end = jax.lax.fori_loop(0, steps, forward, (begin, begin, words, words))
    return begin, end[:2], jax.lax.fori_loop(0, steps, backward, end)[:2]


@pytest.mark.parametrize("beta", [0.5, 0.2, 0.9])
@pytest.mark.slow
def test_the_start_is_recovered_bit_for_bit_after_100_000_steps(beta):
    for dtype in (jnp.float32, jnp.float64):
        params, init, x = problem(dtype, (3,))
        states = fixed_point_states(beta)
        run = jax.jit(partial(there_and_back, states, 100_000))
        begin, end, (y, z) = run((params, x), init)
        np.testing.assert_array_equal(y, begin)
        np.testing.assert_array_equal(z, begin)
        assert jnp.any(end[1] != begin)


def test_digits_invert_each_half_step():
    for beta in (0.5, 0.2, 0.9, 0.999):
        states = fixed_point_states(beta)
        y = jnp.arange(-50_000, 50_000, dtype=jnp.int32) * 5001
        h = jnp.zeros(y.shape, jnp.float32)
        v = jnp.linspace(-3, 3, y.size, dtype=jnp.float32)
        new, words = states.mix(y, v, states.no_words(h, 5), 4)
        np.testing.assert_array_equal(states.unmix(new, v, words, 4), y)
        of_y, of_new = states.decode(y, h), states.decode(new, h)
        np.testing.assert_allclose(
            of_new, (1 - states.beta) * of_y + states.beta * v, rtol=1e-5, atol=3e-7
        )


def rule(adjoint, args, **options):
    params, init, x = args
    loss = lambda h, target: jnp.sum((h - target) ** 2, axis=-1)
    run = gradients.recurrent_backprop(settle, loss, adjoint=adjoint, **options)
    return jax.jit(run)(params, init, x, 0 * init)


@pytest.mark.slow
def test_recurrent_backprop_reports_the_backward_pass():
    args = problem(jnp.float64)
    (_, equilibrium), grad = rule(reversible(0.5, 2000, "fixed_point"), args)
    assert jnp.all(equilibrium.forward.converged)
    assert jnp.all(equilibrium.forward.steps == 4000)
    # A negligible adjoint ends the backward pass.
    assert jnp.all(equilibrium.adjoint.steps < 400)
    assert jnp.all(equilibrium.adjoint.converged)
    (_, implicit), want = rule(None, args, tol=1e-12)
    chex.assert_trees_all_close(grad, want, rtol=1e-9, atol=1e-12)
    chex.assert_trees_all_close(equilibrium.z, implicit.z, rtol=1e-9, atol=1e-12)


def test_a_lost_state_is_reported_and_not_silent():
    args = problem(jnp.float32, norm=0.95)
    (_, equilibrium), grad = rule(reversible(0.75, 100, "floating"), args)
    failed = ~equilibrium.adjoint.converged
    assert jnp.any(failed)
    assert jnp.all(equilibrium.adjoint.residual[failed] > 1e-5)
    assert all(jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves(grad))
    (_, truncated), grad = rule(
        reversible(0.75, 100, "floating"), args, on_failure="truncate"
    )
    chex.assert_tree_all_finite(grad)
    chex.assert_trees_all_equal(truncated.adjoint, equilibrium.adjoint)
    (_, exact), want = rule(reversible(0.75, 100, "fixed_point"), args)
    assert jnp.all(exact.adjoint.converged)
    # The residual estimates the error of the truncated gradient.
    assert error(grad, want) < 100 * jnp.max(equilibrium.adjoint.residual)


@pytest.mark.slow
def test_a_failed_example_does_not_affect_derivatives_of_others():
    params, init, x = problem(jnp.float64, (3,))
    x = x.at[1].set(jnp.nan)
    for on_failure in ("nan", "truncate"):

        def value(params, x, on_failure=on_failure):
            h = solve(reversible(0.5, 8), params, init, x, on_failure=on_failure)
            return jnp.sum(h[::2] ** 2)

        got = jax.grad(value, (0, 1))(params, x)
        without = lambda params, x: jnp.sum(unrolled(0.5, 8, params, init[::2], x) ** 2)
        want = jax.grad(without, (0, 1))(params, x[::2])
        chex.assert_trees_all_close(got[0], want[0], rtol=1e-9)
        chex.assert_trees_all_close(got[1][::2], want[1], rtol=1e-9)
    solver = partial(solve, reversible(0.5, 8))
    got = jax.grad(lambda x: jnp.sum(solver(params, init, x)))(x)
    np.testing.assert_array_equal(jnp.isnan(got).all(1), [False, True, False])


@pytest.mark.slow
def test_a_state_out_of_range_is_reported():
    f = lambda w, h, x: w * h + x
    x = jnp.array([1.0, 100.0], jnp.float32)
    adjoint = reversible(0.5, 40, "fixed_point")
    init = jnp.zeros(2, jnp.float32)
    w = jnp.float32(0.5)
    h, info = gradients.fixed_point(f, w, init, x, adjoint=adjoint, batch_ndim=1)
    np.testing.assert_allclose(h, [2, jnp.nan], rtol=1e-5)
    np.testing.assert_array_equal(info.converged, [True, False])
    bound = partial(solve, adjoint, on_failure="truncate")
    grad = jax.grad(lambda w: jnp.sum(bound(w, init, x, f)))(w)
    np.testing.assert_allclose(grad, 4, rtol=1e-4)


@pytest.mark.slow
def test_narrow_states_agree_with_float32_states():
    wide = problem(jnp.float32)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), wide)
    adjoint = reversible(0.5, 20, "fixed_point")
    got = grads(partial(solve, adjoint), narrow)
    got = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), got)
    assert error(got, grads(partial(unrolled, 0.5, 20), wide)) < 0.03


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.0,), "beta must satisfy 0 < beta < 1, got 0.0"),
        ((1,), "beta must satisfy 0 < beta < 1, got 1; .* cannot be recovered"),
        ((-0.5,), "beta must satisfy 0 < beta < 1, got -0.5"),
        ((float("nan"),), "beta must satisfy 0 < beta < 1, got nan"),
        ((jnp.array(0.5),), "beta must be a Python number, known while tracing"),
        (("half",), "beta must be a Python number"),
        ((0.5, 0), "steps must be an integer of at least 1, got 0"),
        ((0.5, 10, "exact"), "state must be one of .* got 'exact'"),
        ((0.5, 10, "floating", -1.0), "tol must be positive"),
        ((1e-6, 10, "fixed_point"), "beta must satisfy 1/32768 <= beta"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        reversible(*settings)


def test_wrong_calls():
    args = problem(jnp.float32)
    with pytest.raises(ValueError, match="beta must be a Python number"):
        jax.jit(lambda beta: solve(reversible(beta), *args))(0.5)
    options = {"solver": gradients.solvers.anderson()}, {"tol": 1e-6}, {"damping": 0.5}
    for given in options:
        with pytest.raises(ValueError, match="must be left out with adjoint=reversib"):
            solve(reversible(0.5), *args, **given)
        with pytest.raises(ValueError, match="must be left out with adjoint=reversib"):
            gradients.recurrent_backprop(
                settle, jnp.subtract, adjoint=reversible(0.5), **given
            )
    with pytest.raises(ValueError, match="reversible, which must be called"):
        solve(reversible, *args)
    loss = lambda h, target: jnp.sum((h - target) ** 2, axis=-1)
    run = gradients.recurrent_backprop(settle, loss, adjoint=reversible(0.5))
    with pytest.raises(ValueError, match="start_adjoint must be left out"):
        run(*args, 0 * args[1], start_adjoint=args[1])
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: solve(reversible(0.5), *args[:2], x), args[2:], args[2:])
