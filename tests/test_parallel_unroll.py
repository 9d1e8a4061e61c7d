"""Parallel in time: held to the unroll in order, and where it cannot be, said so."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from bpvariants.gradients.through_time._parallel_scan import (
    dense_scan,
    dense_scan_in_order,
    elementwise_scan,
)

full = gradients.newton(tol=1e-10)
diagonal = gradients.newton(jacobian="diagonal", tol=1e-12)


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


def make_problem_of(name, batch, make_problem):
    """Return step, params, carry, initial and xs [6, *batch, 2]."""
    if name in ("tanh", "gru", "lstm", "nested"):
        step, _, (params, carry, xs, _), options = make_problem(name, batch, 6)
        initial = options["initial"]
        if name == "nested":  # without its counter, which has no derivative
            nested, drop = step, lambda c: {**c, "slow": (c["slow"][0],)}
            carry, initial = drop(carry), drop(initial)

            def step(params, carry, x):
                count = jnp.zeros(x.shape[:-1], int)
                given = {**carry, "slow": (*carry["slow"], count)}
                new, y = nested(params, given, x)
                return drop(new), y

        return step, params, carry, initial, xs
    key = jax.random.key(1)
    xs = jax.random.normal(key, (6, *batch, 2))
    if name == "lru":
        params = cells.lru_params(key, 2, 4, 3, min_radius=0.5)
        carry = cells.lru_carry(params, batch) + (1 + 0.5j)
        return cells.lru, params, carry, carry * 2j, xs
    params = cells.min_gru_params(key, 2, 4)
    carry = cells.min_gru_carry(params, batch) + 1
    return cells.min_gru, params, carry, -carry, xs


@pytest.mark.parametrize(
    ("name", "batch", "method"),
    [
        ("tanh", (), full),
        ("tanh", (2, 3), diagonal),
        ("gru", (2, 3), full),
        ("lstm", (3,), full),
        ("lstm", (3,), diagonal),
        ("nested", (3,), full),
        ("lru", (), "linear"),
        ("lru", (2, 3), "linear"),
        ("lru", (3,), full),
        ("min_gru", (3,), "linear"),
        ("min_gru", (2, 3), diagonal),
    ],
    ids=lambda value: getattr(value, "jacobian", str(value)),
)
def test_equals_unroll_with_its_gradients(name, batch, method, make_problem):
    step, params, carry, initial, xs = make_problem_of(name, batch, make_problem)
    keys = jax.random.split(jax.random.key(2))
    mask = jax.random.bernoulli(keys[0], 0.7, (6, *batch))
    if batch == (3,):
        mask = mask.at[:, 2].set(False)  # an example of length 0
    reset = jax.random.bernoulli(keys[1], 0.3, (6, *batch))
    spoil = lambda leaf: jnp.where(mask[..., None], leaf, jnp.nan)

    def objective(run, params, carry, initial, xs):
        last, ys = run(step, params, carry, xs, mask=mask, reset=reset, initial=initial)
        seen = jax.tree.map(lambda y: jnp.where(mask[..., None], y, 0), ys)
        sizes = [jnp.sum(jnp.sin(a.real) + a.imag) for a in jax.tree.leaves(last)]
        return sum(sizes) + jnp.sum(jnp.cos(seen)), (last, seen)

    def parallel(*args, **options):
        return gradients.parallel_unroll(*args, method=method, **options)[0]

    differentiate = lambda run: jax.jit(
        jax.value_and_grad(partial(objective, run), argnums=(0, 1, 2, 3), has_aux=True)
    )(params, carry, initial, spoil(xs))
    got, want = differentiate(parallel), differentiate(gradients.unroll)
    chex.assert_tree_all_finite(want)
    assert_same(got, want)


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
    """Errors measured for this problem apart from this library."""
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
def test_exact_after_as_many_iterations_as_steps_whatever_the_shrinking(jacobian):
    params, carry, xs = tanh_problem(gain=2.0)
    _, want = gradients.unroll(tanh_step, params, carry, xs)

    @jax.jit
    def run(shrink):
        method = gradients.newton(jacobian, shrink, tol=1e-300, on_failure="nan")
        return gradients.parallel_unroll(tanh_step, params, carry, xs, method=method)

    for shrink in (0.0, 0.4, 1.0):  # the last is Picard's iteration
        (_, ys), info = run(shrink)
        assert_same((ys, info.carries), (want, want))
        assert info.converged
        assert info.steps <= 8  # the last finds nothing to change
        assert info.residual < 1e-15


def test_shrinking_saves_iterations_where_the_network_is_chaotic():
    @jax.jit
    def steps(shrink):
        method = gradients.newton(shrink=shrink, max_steps=200, tol=1e-8)
        return run_tanh(method, T=200, gain=5.0)[1].steps

    assert steps(0.8).item() < steps(0.0).item()


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_what_is_chaotic_is_run_in_order_and_said_to_be(jacobian):
    params, carry, xs = tanh_problem(T=40, gain=8.0, batch=(2,))
    params = jax.tree.map(lambda w: w[None] * jnp.ones((2, 1, 1)), params)
    params = (params[0].at[1].multiply(0.02), params[1])  # the second one is tame

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
    carry, xs = carry.at[1].set(0), xs.at[:, 1].set(0)  # which stays at 0

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


def test_adjoint_survives_products_that_overflow():
    """A loss at an early step: 0 times a product of 400 Jacobians is not NaN."""

    @jax.jit
    def gradient(w):
        _, ys = gradients.parallel_unroll(
            lambda w, h, x: (w * h, w * h),
            w,
            jnp.zeros(2),
            jnp.zeros((400, 1)),
            method="newton",
        )[0]
        return jnp.sum(ys[1])  # which depends on h_1

    assert jax.grad(gradient)(1000.0) == 0
    assert jax.jvp(gradient, (1000.0,), (1.0,))[1] == 0


def test_newton_is_exact_in_one_iteration_where_the_step_is_linear():
    params, carry, xs = tanh_problem(batch=(2,))
    step = lambda params, h, x: (h @ params[0] + x @ params[1], h)
    _, info = gradients.parallel_unroll(step, params, carry, xs, method="newton")
    assert info.steps == 2  # the second finds nothing to change
    assert info.converged.shape == ()


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


@pytest.mark.parametrize("method", ["newton", diagonal, "linear"], ids=str)
def test_differentiates_forward_twice_and_in_what_the_step_closes_over(method):
    (recurrent, feedforward), carry, xs = tanh_problem(n=2, T=4)
    v = jnp.array([[0.3, -0.2], [0.5, 0.7]])

    def objective(run, w):
        def step(_, h, x):
            if method == "linear":
                h = jnp.cos(w[0] * x) * h + w[1] * x
            else:
                h = jnp.tanh(h @ w + x)
            return h, h

        return jnp.sum(run(step, 0.0, carry, xs @ feedforward)[1] ** 3)

    def parallel(*args):
        if method == "newton":
            return gradients.parallel_unroll(*args, method=full)[0]
        return gradients.parallel_unroll(*args, method=method)[0]

    def derivatives(run):
        forward = lambda w: jax.jvp(partial(objective, run), (w,), (v,))[1]
        return jax.jit(jax.value_and_grad(forward))(recurrent)

    assert_same(derivatives(parallel), derivatives(gradients.unroll))


def test_scans_compose_in_the_order_of_time():
    keys = jax.random.split(jax.random.key(0))
    matrices = jax.random.normal(keys[0], (5, 2, 3, 3))
    u = jax.random.normal(keys[1], (5, 2, 3))
    for reverse in (False, True):
        h, want = np.zeros((2, 3)), np.zeros((5, 2, 3))
        for t in reversed(range(5)) if reverse else range(5):
            h = np.einsum("bij,bj->bi", matrices[t], h) + u[t]
            want[t] = h
        assert_same(dense_scan(matrices, u, reverse), jnp.array(want))
        assert_same(dense_scan_in_order(matrices, u, reverse), jnp.array(want))
        factors = matrices[..., 0]
        diagonals = factors[..., None] * jnp.eye(3).reshape(1, 1, 3, 3)
        want = dense_scan_in_order(diagonals, u, reverse)
        assert_same(elementwise_scan(factors, u, reverse), want)


NOT_AFFINE = {
    "dense": (lambda w, h, x: (h @ w, h), r"matrix product \(dot_general\)"),
    "jitted": (jax.jit(lambda w, h, x: (h @ w, h)), "matrix product"),
    "tanh": (lambda w, h, x: (jnp.tanh(h), h), "by tanh"),
    "relu": (lambda w, h, x: (jax.nn.relu(h), h), "by max"),
    "gate": (lambda w, h, x: (jax.nn.sigmoid(h), h), "by logistic"),
    "product": (lambda w, h, x: (h * h, h), r"product with itself \(mul\)"),
    "quotient": (lambda w, h, x: (1 / h, h), "by div"),
    "sum": (lambda w, h, x: (h - jnp.mean(h, -1, keepdims=True), h), "reduce_sum"),
    "threshold": (lambda w, h, x: (jnp.where(h > 0, h, 0), h), "by gt"),
}


@pytest.mark.parametrize(("step", "message"), NOT_AFFINE.values(), ids=NOT_AFFINE)
def test_linear_refuses_what_is_seen_not_to_be(step, message):
    with pytest.raises(ValueError, match=rf"needs a new carry that is A .*{message}"):
        gradients.parallel_unroll(
            step, jnp.ones((3, 3)), jnp.ones((2, 3)), jnp.ones((4, 1)), method="linear"
        )


def test_linear_refuses_leaves_that_act_on_each_other():
    swap = lambda w, carry, x: (carry[::-1], x)
    with pytest.raises(ValueError, match=r"carry\[0\] depends on the old carry\[1\]"):
        gradients.parallel_unroll(
            swap, 0.0, (jnp.ones(3), jnp.ones(3)), jnp.ones(4), method="linear"
        )


def test_linear_takes_all_forms_of_element_wise_steps():
    @jax.jit
    def step(params, carry, x):
        a, b = carry["a"], carry["b"]
        rate, w = params
        new_a = jnp.einsum("bn,n->bn", a, rate) / (1 + x**2) - x
        new_b = jnp.where(x > 0, b.at[:, 1].multiply(0.5), -b)
        y = jnp.tanh(a @ w) * b  # may be anything
        return {"a": new_a, "b": new_b}, y

    key = jax.random.key(0)
    params = jnp.array([0.5, -0.9, 1.1]), jax.random.normal(key, (3, 3))
    carry = {"a": jnp.ones((2, 3)), "b": jnp.full((2, 3), 2.0)}
    xs = jax.random.normal(key, (9, 2, 1))
    step_of = lambda params, carry, x: step(
        params, carry, jnp.broadcast_to(x, carry["a"].shape)
    )
    got, info = gradients.parallel_unroll(step_of, params, carry, xs, method="linear")
    assert_same(got, gradients.unroll(step_of, params, carry, xs))
    assert info.converged


def test_linear_is_nan_where_it_is_found_not_to_be():
    roll = lambda w, h, x: (w * jnp.where(x > 0, jnp.roll(h, 1, axis=-1), h), h)
    carry = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    xs = jnp.broadcast_to(jnp.array([[1.0], [0.0]]), (5, 2, 1))  # one is not rolled

    def objective(w, carry):
        (last, ys), info = gradients.parallel_unroll(
            roll, w, carry, xs, method="linear", batch_ndim=1
        )
        return jnp.sum(ys), (last, ys, info)

    grad, (last, ys, info) = jax.grad(objective, has_aux=True)(0.9, carry)
    assert info.converged.tolist() == [False, True]
    assert jnp.all(jnp.isnan(ys[:, 0]))
    assert jnp.all(jnp.isnan(last[0]))
    assert jnp.isnan(grad)
    assert jnp.all(ys[:, 1] == 0)


def test_nan_of_one_example_stays_there_as_in_an_unroll():
    params = cells.min_gru_params(jax.random.key(0), 2, 3)
    xs = jax.random.normal(jax.random.key(1), (5, 2, 2)).at[2, 0, 0].set(jnp.nan)
    args = cells.min_gru, params, cells.min_gru_carry(params, (2,)), xs
    want = gradients.unroll(*args)
    for method in ("linear", "newton"):
        got, info = gradients.parallel_unroll(*args, method=method)
        assert_same(got, want)  # NaN equals NaN here
        assert not info.converged


@pytest.mark.parametrize("method", ["linear", "newton"])
def test_one_step_and_nothing_but_padding(method):
    params = cells.min_gru_params(jax.random.key(0), 2, 3)
    carry = cells.min_gru_carry(params, (2,)) + 1
    run = partial(gradients.parallel_unroll, cells.min_gru, params, carry)
    xs = jnp.ones((1, 2, 2))
    got, info = run(xs, method=method)
    assert_same(got, gradients.unroll(cells.min_gru, params, carry, xs))
    assert info.converged
    assert info.steps == (1 if method == "linear" else 2)  # which moves nothing
    mask = jnp.zeros((4, 2), bool)
    xs = jnp.full((4, 2, 2), jnp.nan)
    (last, _), info = run(xs, method=method, mask=mask, reset=~mask)
    assert_same(last, carry)
    assert info.converged.tolist() == [True, True]


@pytest.mark.parametrize("method", ["linear", "newton"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keeps_dtypes(method, dtype):
    params = cells.min_gru_params(jax.random.key(0), 2, 3, dtype=dtype)
    carry = cells.min_gru_carry(params, (2,)) + 1
    xs = jax.random.normal(jax.random.key(1), (6, 2, 2), dtype)

    def objective(params):
        result, info = gradients.parallel_unroll(
            cells.min_gru, params, carry, xs, method=method, batch_ndim=1
        )
        return jnp.sum(result[1].astype(jnp.float32)), (result, info)

    grads, (got, info) = jax.jit(jax.grad(objective, has_aux=True))(params)
    want = gradients.unroll(cells.min_gru, params, carry, xs)
    chex.assert_trees_all_equal_dtypes(got, want)
    chex.assert_trees_all_equal_dtypes(grads, params)
    chex.assert_tree_all_finite(grads)
    widen = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
    atol = 3e-2 if dtype == jnp.bfloat16 else 1e-6
    chex.assert_trees_all_close(widen(got), widen(want), atol=atol)
    assert info.converged.all()


@pytest.mark.parametrize("method", ["linear", "newton"])
def test_long_sums_stay_exact_in_bfloat16(method):
    xs = jnp.ones((1000, 1), jnp.bfloat16)
    carry = jnp.zeros(1, jnp.bfloat16)
    for step in (lambda w, h, x: (h, w * x), lambda w, h, x: (x * 0 + w, h + w * x)):

        def objective(w, step=step):
            (_, ys), _ = gradients.parallel_unroll(step, w, carry, xs, method=method)
            return jnp.sum(ys.astype(jnp.float32))

        grad = jax.jit(jax.grad(objective))(jnp.ones((1,), jnp.bfloat16))
        np.testing.assert_allclose(grad.astype(float), 1000, rtol=1)
        assert grad.astype(float)[0] in (1000, 2000)


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


@pytest.mark.parametrize("name", ["lru", "min_gru"])
def test_four_devices_equal_one_sharded_by_time(name, make_problem):
    step, params, carry, _, _ = make_problem_of(name, (2,), make_problem)
    xs = jax.random.normal(jax.random.key(0), (16, 2, 2))

    @jax.jit
    def run(params, xs):
        def objective(params):
            result, info = gradients.parallel_unroll(
                step, params, carry, xs, method="linear"
            )
            return jnp.sum(result[1] ** 2), (result, info)

        return jax.grad(objective, has_aux=True)(params)

    got = run(params, jax.device_put(xs, sharded("devices")))
    assert_same(got, run(params, xs))
    _, ((_, ys), info) = got
    for along_time in (ys, info.carries):
        assert along_time.sharding.is_equivalent_to(sharded("devices"), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "deer"}, r"method must be 'linear', 'newton' or .*got 'deer'"),
        ({"method": gradients.newton}, r"or a value such as newton.*got 'newton'"),
        ({"method": "linear"}, r"method='linear' needs .*Give method='newton'"),
        ({"guess": jnp.zeros((5, 3))}, r"guess must have the structure.* of the carr"),
        ({"method": "linear", "guess": 1.0}, r"guess must be left out"),
        ({"carry": jnp.zeros((2, 3), int)}, r"carry must be floating.*int64"),
        ({"carry": ()}, r"carry has no arrays"),
        ({"batch_ndim": 3}, r"batch_ndim must be .*got 3"),
        ({"mask": jnp.ones((7, 2), int)}, r"mask must be bool"),
        ({"reset": jnp.ones((6, 2), bool)}, r"reset must have 7 time steps"),
        ({"xs": jnp.zeros((0, 2, 2))}, r"xs must have arrays whose first axis"),
        ({"initial": jnp.zeros(3)}, r"initial must have the structure"),
    ],
)
def test_mistakes_are_named(change, message):
    params, carry, xs = tanh_problem(batch=(2,))
    given = {"params": params, "carry": carry, "xs": xs, "method": "newton", **change}
    with pytest.raises(ValueError, match=message):
        gradients.parallel_unroll(tanh_step, **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jacobian": "block"}, "jacobian must be 'full' or 'diagonal', got 'block'"),
        ({"on_failure": "raise"}, "on_failure must be 'sequential' or 'nan'"),
        ({"shrink": 1.5}, "shrink must be from 0"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
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
def test_does_not_take_for_settled_what_nothing_has_seen_yet(method):
    """All slopes are 0 at the guess: the first iteration moves one step only."""
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


@pytest.mark.parametrize("kind", ["rolled", "dense"])
def test_linear_is_nan_where_units_mix_though_values_do_not_show_it(kind):
    """Weights of 0 and a carry of 0: the values are right, the gradient is not."""

    def step(weights, h, x):
        body = lambda h, _: (h @ jnp.array([[0.0, 1.0], [0.5, 0.2]]), None)
        mixed = {
            "rolled": lambda: 0.9 * jnp.roll(h, 1, -1),
            "dense": lambda: jax.lax.scan(body, h, None, length=1)[0],
        }[kind]()
        new = mixed + x @ weights
        return new, new

    xs = jax.random.normal(jax.random.key(0), (4, 3))
    (_, ys), info = gradients.parallel_unroll(
        step, jnp.zeros((3, 2)), jnp.zeros(2), xs, method="linear"
    )
    assert not info.converged
    assert jnp.all(jnp.isnan(ys))


def test_linear_is_nan_where_a_large_number_stands_beside_what_bends():
    def step(w, h, x):
        small = jax.lax.fori_loop(0, 1, lambda _, v: jnp.tanh(0.5 * v), h[1:])
        new = jnp.concatenate([0.5 * h[:1], w * small]) + x
        return new, new

    scale = jnp.array([[1e6, 1.0]])
    xs = jax.random.normal(jax.random.key(0), (20, 2)) * scale
    args = step, jnp.ones(()), jnp.zeros(2), xs
    assert not gradients.parallel_unroll(*args, method="linear")[1].converged
