"""Tests of each method of `parallel_unroll`, against the sequential `unroll`."""

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
        # Drop the counter from the carry, because a counter has no derivative.
        if name == "nested":
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
        params = cells.lru.init(key, 2, 4, 3, min_radius=0.5)
        carry = cells.lru.carry(params, batch) + (1 + 0.5j)
        return cells.lru, params, carry, carry * 2j, xs
    params = cells.min_gru.init(key, 2, 4)
    carry = cells.min_gru.carry(params, batch) + 1
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
@pytest.mark.fast_rows(2)
def test_equals_unroll_with_its_gradients(name, batch, method, make_problem):
    step, params, carry, initial, xs = make_problem_of(name, batch, make_problem)
    keys = jax.random.split(jax.random.key(2))
    mask = jax.random.bernoulli(keys[0], 0.7, (6, *batch))
    if batch == (3,):
        mask = mask.at[:, 2].set(False)  # Example 2 has length 0.
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


@pytest.mark.parametrize("method", ["newton", diagonal, "linear"], ids=str)
@pytest.mark.fast_rows(1)
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


@pytest.mark.slow
def test_nan_of_one_example_stays_there_as_in_an_unroll():
    params = cells.min_gru.init(jax.random.key(0), 2, 3)
    xs = jax.random.normal(jax.random.key(1), (5, 2, 2)).at[2, 0, 0].set(jnp.nan)
    args = cells.min_gru, params, cells.min_gru.carry(params, (2,)), xs
    want = gradients.unroll(*args)
    for method in ("linear", "newton"):
        got, info = gradients.parallel_unroll(*args, method=method)
        assert_same(got, want)  # This comparison counts NaN as equal to NaN.
        assert not info.converged


@pytest.mark.parametrize("method", ["linear", "newton"])
@pytest.mark.fast_rows(1)
def test_one_step_and_nothing_but_padding(method):
    params = cells.min_gru.init(jax.random.key(0), 2, 3)
    carry = cells.min_gru.carry(params, (2,)) + 1
    run = partial(gradients.parallel_unroll, cells.min_gru, params, carry)
    xs = jnp.ones((1, 2, 2))
    got, info = run(xs, method=method)
    assert_same(got, gradients.unroll(cells.min_gru, params, carry, xs))
    assert info.converged
    # The second iteration of "newton" changes no carry.
    assert info.steps == (1 if method == "linear" else 2)
    mask = jnp.zeros((4, 2), bool)
    xs = jnp.full((4, 2, 2), jnp.nan)
    (last, _), info = run(xs, method=method, mask=mask, reset=~mask)
    assert_same(last, carry)
    assert info.converged.tolist() == [True, True]


@pytest.mark.parametrize("method", ["linear", "newton"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.slow
def test_keeps_dtypes(method, dtype):
    params = cells.min_gru.init(jax.random.key(0), 2, 3, dtype=dtype)
    carry = cells.min_gru.carry(params, (2,)) + 1
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
@pytest.mark.fast_rows(1)
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


def sharded(*axes):
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    return jax.NamedSharding(mesh, jax.P(*axes))


@pytest.mark.parametrize("name", ["lru", "min_gru"])
@pytest.mark.slow
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
        (
            {"method": "deer"},
            r"method must be 'auto', 'linear', 'newton' or .*got 'deer'",
        ),
        ({"method": gradients.newton}, r"or a value such as newton.*got <class"),
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
