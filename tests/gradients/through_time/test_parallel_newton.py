"""Tests of `parallel_unroll` by Newton's and quasi-Newton methods."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

full = gradients.newton(tol=1e-10)


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def tanh_step(params, h, x):
    recurrent, feedforward = params
    h = jnp.tanh(h @ recurrent + x @ feedforward)
    return h, h


@cache
def tanh_problem(n=3, T=7, batch=(), gain=1.0):
    keys = iter(jax.random.split(jax.random.key(3), 4))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = gain * normal(n, n) / n**0.5, normal(2, n)
    return params, 0.5 * normal(*batch, n), normal(T, *batch, 2)


def run_tanh(method, T=7, gain=1.0, batch=(), batch_ndim=None, guess=None):
    params, carry, xs = tanh_problem(T=T, gain=gain, batch=batch)
    return gradients.parallel_unroll(
        tanh_step,
        params,
        carry,
        xs,
        method=method,
        batch_ndim=batch_ndim,
        guess=guess,
    )


def test_newton_on_probe_p_falls_quadratically():
    """Compare errors of Newton iterates with values measured without this library."""
    recurrent = jnp.array([[0.5, -0.8, 0.3], [0.9, 0.4, -0.6], [-0.2, 0.7, 0.6]])
    feedforward = jnp.array([[0.6, -0.4], [0.3, 0.5], [-0.7, 0.2]])
    bias, carry = jnp.array([0.1, -0.2, 0.05]), jnp.array([0.3, -0.1, 0.2])
    time = jnp.arange(1.0, 7.0)
    xs = jnp.stack([jnp.sin(0.7 * time), jnp.cos(0.4 * time)], axis=-1)

    def step(_, h, x):
        h = jnp.tanh(recurrent @ h + feedforward @ x + bias)
        return h, h

    _, want = gradients.unroll(step, 0.0, carry, xs)

    @jax.jit
    def error_after(steps):
        method = gradients.newton(max_steps=steps, tol=1e-300, on_failure="nan")
        _, info = gradients.parallel_unroll(step, 0.0, carry, xs, method=method)
        return jnp.max(jnp.abs(info.carries - want))

    errors = [error_after(steps).item() for steps in range(1, 6)]
    np.testing.assert_allclose(errors[:4], [0.264, 0.0283, 2.14e-4, 6.04e-9], rtol=5e-3)
    assert errors[4] < 1e-15


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
@pytest.mark.fast_rows(1)
def test_exact_after_as_many_iterations_as_steps_whatever_the_shrinking(jacobian):
    params, carry, xs = tanh_problem(gain=2.0)
    _, want = gradients.unroll(tanh_step, params, carry, xs)

    @jax.jit
    def run(shrink):
        method = gradients.newton(jacobian, shrink, tol=1e-300, on_failure="nan")
        return gradients.parallel_unroll(tanh_step, params, carry, xs, method=method)

    for shrink in (0.0, 0.4, 1.0):  # A shrink of 1.0 is Picard's iteration.
        (_, ys), info = run(shrink)
        assert_same((ys, info.carries), (want, want))
        assert info.converged
        assert info.steps <= 8  # The last iteration changes no carry.
        assert info.residual < 1e-15


@pytest.mark.slow
def test_shrinking_saves_iterations_where_the_network_is_chaotic():
    @jax.jit
    def steps(shrink):
        method = gradients.newton(shrink=shrink, max_steps=200, tol=1e-8)
        return run_tanh(method, T=200, gain=5.0)[1].steps

    assert steps(0.8).item() < steps(0.0).item()


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
@pytest.mark.fast_rows(1)
def test_what_is_chaotic_is_run_in_order_and_said_to_be(jacobian):
    params, carry, xs = tanh_problem(T=40, gain=8.0, batch=(2,))
    params = jax.tree.map(lambda w: w[None] * jnp.ones((2, 1, 1)), params)
    # The recurrent weights of example 1 are small, so its trajectory is not chaotic.
    params = (params[0].at[1].multiply(0.02), params[1])

    def step(_, carry, x):
        x, recurrent, feedforward = x
        h = jnp.einsum("...i,...ij->...j", carry, recurrent)
        h = jnp.tanh(h + jnp.einsum("...i,...ij->...j", x, feedforward))
        return h, h

    method = gradients.newton(jacobian, max_steps=12, tol=1e-10)

    def objective(parallel, params, carry):
        along = jax.tree.map(lambda w: jnp.broadcast_to(w, (40, *w.shape)), params)
        args = step, 0.0, carry, (xs, *along)
        if not parallel:
            return jnp.sum(jnp.sin(gradients.unroll(*args)[1][:8])), None
        (_, ys), info = gradients.parallel_unroll(*args, method=method, batch_ndim=1)
        return jnp.sum(jnp.sin(ys[:8])), info

    both = [
        jax.jit(jax.value_and_grad(partial(objective, parallel), (0, 1), has_aux=True))(
            params, carry
        )
        for parallel in (True, False)
    ]
    ((value, info), grads), ((want, _), want_grads) = both
    chex.assert_trees_all_close(value, want, rtol=1e-9)
    scaled = jax.tree.map(
        lambda g, w: g / jnp.max(jnp.abs(w)), (grads, want_grads), (want_grads,) * 2
    )
    chex.assert_trees_all_close(*scaled, atol=1e-9)
    assert info.fell_back.tolist() == [True, False]
    assert info.converged.tolist() == [False, True]


def test_what_fails_is_nan_if_asked_for_and_reaches_no_other_example():
    params, carry, xs = tanh_problem(T=40, gain=8.0, batch=(2,))
    # Example 1 starts at 0, has zero inputs, and stays at 0.
    carry, xs = carry.at[1].set(0), xs.at[:, 1].set(0)

    def objective(carry):
        method = gradients.newton(max_steps=5, on_failure="nan")
        (_, ys), info = gradients.parallel_unroll(
            tanh_step, params, carry, xs, method=method, batch_ndim=1
        )
        return jnp.sum(ys, (0, 2)), (ys, info)

    grads, (ys, info) = jax.jit(jax.jacrev(objective, has_aux=True))(carry)
    assert info.converged.tolist() == [False, True]
    assert not info.fell_back.any()
    assert jnp.all(jnp.isnan(ys[:, 0]))
    assert jnp.all(ys[:, 1] == 0)
    assert jnp.all(jnp.isnan(grads[0, 0]))
    assert not jnp.any(jnp.isnan(grads[1, 1]))


@pytest.mark.slow
def test_adjoint_survives_products_that_overflow():
    """Check that 0 times an overflowing product of 400 Jacobians does not become NaN.

    The only loss is at an early time step, so the error signals of later steps are 0.
    """

    @jax.jit
    def gradient(w):
        _, ys = gradients.parallel_unroll(
            lambda w, h, x: (w * h, w * h),
            w,
            jnp.zeros(2),
            jnp.zeros((400, 1)),
            method="newton",
        )[0]
        return jnp.sum(ys[1])  # This loss depends only on the first two steps.

    assert jax.grad(gradient)(1000.0) == 0
    assert jax.jvp(gradient, (1000.0,), (1.0,))[1] == 0


def test_newton_is_exact_in_one_iteration_where_the_step_is_linear():
    params, carry, xs = tanh_problem(batch=(2,))
    step = lambda params, h, x: (h @ params[0] + x @ params[1], h)
    _, info = gradients.parallel_unroll(step, params, carry, xs, method="newton")
    assert info.steps == 2  # The second iteration changes no carry.
    assert info.converged.shape == ()


@pytest.mark.slow
def test_a_guess_is_where_newton_begins():
    _, cold = run_tanh("newton", batch=(2,), batch_ndim=1)
    _, warm = run_tanh("newton", batch=(2,), batch_ndim=1, guess=cold.carries)
    assert jnp.all(cold.steps > 2)
    assert warm.steps.tolist() == [1, 1]
    guess = cold.carries.at[:, 0].set(jnp.nan)
    (_, ys), spoilt = run_tanh("newton", batch=(2,), batch_ndim=1, guess=guess)
    assert spoilt.steps.tolist() == [cold.steps[0], 1]
    assert not spoilt.fell_back.any()
    assert_same(ys, cold.carries)


def test_compiles_once_with_traced_settings_and_maps_over_params():
    params, carry, xs = tanh_problem()
    traces = []

    @jax.jit
    def run(params, method):
        traces.append(method)
        return gradients.parallel_unroll(tanh_step, params, carry, xs, method=method)

    both = jax.tree.map(lambda w: jnp.stack([w, 0.5 * w]), params)
    for tol in (1e-3, 1e-12):
        method = gradients.newton(tol=jnp.array(tol), max_steps=jnp.array(9))
        (_, ys), info = run(params, method)
        assert info.converged
    assert len(traces) == 1
    (_, mapped), info = jax.vmap(run, (0, None))(both, method)
    assert_same(mapped[0], ys)
    assert info.converged.tolist() == [True, True]


def sharded(*axes):
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    return jax.NamedSharding(mesh, jax.P(*axes))


@pytest.mark.slow
def test_four_devices_equal_one_sharded_by_batch():
    params, carry, xs = tanh_problem(T=5, batch=(4,))
    run = jax.jit(
        lambda carry, xs: gradients.parallel_unroll(
            tanh_step, params, carry, xs, method=full, batch_ndim=1
        )
    )
    parts = jax.device_put(carry, sharded("devices"))
    got = run(parts, jax.device_put(xs, sharded(None, "devices")))
    assert_same(got, run(carry, xs))
    assert got[1].steps.sharding.is_equivalent_to(sharded("devices"), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"jacobian": "block"},
            "jacobian must be 'full', 'diagonal' or 'blocks', got 'block'",
        ),
        ({"on_failure": "raise"}, "on_failure must be 'sequential' or 'nan'"),
        ({"shrink": 1.5}, "shrink must be from 0"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        gradients.newton(**settings)


@pytest.mark.parametrize(
    "method",
    ["newton", gradients.newton("diagonal"), gradients.newton(shrink=1.0)],
    ids=["full", "diagonal", "Picard"],
)
@pytest.mark.slow
def test_does_not_take_for_settled_what_nothing_has_seen_yet(method):
    """Check that Newton's method does not stop before the solution is found.

    At the first guess, the derivative of the step is 0 at all time steps. Therefore,
    the first iteration gives only the first time step correctly.
    """
    step = lambda w, h, x: (jnp.maximum(w * h + x, 0),) * 2
    args = jnp.array(0.9), jnp.ones(()), jnp.zeros(10)

    def last(run, w, h):
        return run(step, w, h, args[2])[0]

    parallel = lambda *args: gradients.parallel_unroll(*args, method=method)[0]
    both = [jax.value_and_grad(partial(last, run), (0, 1))(*args[:2])
            for run in (parallel, gradients.unroll)]  # fmt: skip
    chex.assert_trees_all_close(*both, rtol=1e-12)
    tangents = [jax.jvp(partial(last, run, args[0]), (args[1],), (args[1],))
                for run in (parallel, gradients.unroll)]  # fmt: skip
    chex.assert_trees_all_close(*tangents, rtol=1e-12)


def test_what_rounding_keeps_from_settling_is_run_in_order():
    step = lambda w, h, x: (w * h * (1 - h),) * 2
    args = step, 4.0, jnp.array(0.3), jnp.zeros(60)
    method = gradients.newton(shrink=0.8)
    (_, ys), info = gradients.parallel_unroll(*args, method=method)
    assert bool(info.converged) != bool(info.fell_back)
    assert info.fell_back or info.residual < 1e-5
    np.testing.assert_allclose(ys, gradients.unroll(*args)[1], atol=1e-6)


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_the_unit_of_a_leaf_does_not_matter(jacobian):
    """Check that a carry leaf with values near 1e-9 converges, not only one near 1."""
    params, carry, xs = tanh_problem(T=12, gain=2.0)
    method = gradients.newton(jacobian)

    @jax.jit
    def value_and_grads(params, unit):
        def step(params, carry, x):
            small, plain = carry
            new = tanh_step(params, small / unit + plain, x)[0]
            return (unit * new, 0.5 * plain), new + plain

        def value(params, run):
            (_, ys), *info = run(step, params, (unit * carry, carry), xs)
            return jnp.sum(jnp.sin(ys) * ys), info

        parallel = partial(gradients.parallel_unroll, method=method)
        in_order = lambda *args: (gradients.unroll(*args),)
        of = lambda run: jax.value_and_grad(value, has_aux=True)(params, run)
        return of(parallel), of(in_order)

    for unit in (1.0, 1e-9):
        ((value, (info,)), grads), ((want, _), exact) = value_and_grads(params, unit)
        assert info.converged
        assert not info.fell_back
        assert value == pytest.approx(want.item(), rel=1e-6)
        chex.assert_trees_all_close(grads, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["full", "diagonal"])
def test_an_example_that_is_not_finite_reaches_no_derivative_of_others(method):
    params, carry, xs = tanh_problem(batch=(3,), T=4)
    step = lambda _, h, x: (h @ params[0] + x @ params[1],) * 2

    @jax.jit
    @jax.grad
    def by_inputs(xs):
        options = {"method": gradients.newton(method), "batch_ndim": 1}
        (_, ys), _ = gradients.parallel_unroll(step, 0.0, carry, xs, **options)
        return jnp.sum(ys**2)

    want, got = by_inputs(xs), by_inputs(xs.at[1, 0, 0].set(jnp.inf))
    chex.assert_trees_all_close(got[:, 1:], want[:, 1:], rtol=1e-6)
