"""Tests of `parallel_unroll` with method="linear", and of steps that it rejects."""

import chex
import jax
import jax.numpy as jnp
import pytest

from bpvariants import cells, gradients


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


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
        y = jnp.tanh(a @ w) * b  # The output y may be any function of the carry.
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
    # Example 1 has x = 0, so its units are not mixed by the roll.
    xs = jnp.broadcast_to(jnp.array([[1.0], [0.0]]), (5, 2, 1))

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


@pytest.mark.parametrize("kind", ["rolled", "dense"])
@pytest.mark.fast_rows(1)
def test_linear_is_nan_where_units_mix_though_values_do_not_show_it(kind):
    """Expect NaN if units read each other's state, even if the state is 0.

    Otherwise, derivatives would be wrong without any error in the outputs.
    """

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


@pytest.mark.slow
def test_linear_is_nan_where_a_large_number_stands_beside_what_bends():
    def step(w, h, x):
        small = jax.lax.fori_loop(0, 1, lambda _, v: jnp.tanh(0.5 * v), h[1:])
        new = jnp.concatenate([0.5 * h[:1], w * small]) + x
        return new, new

    scale = jnp.array([[1e6, 1.0]])
    xs = jax.random.normal(jax.random.key(0), (20, 2)) * scale
    args = step, jnp.ones(()), jnp.zeros(2), xs
    assert not gradients.parallel_unroll(*args, method="linear")[1].converged


def leak(decay, h, x):
    new = decay * h + (1 - decay) * x
    return new, new


@pytest.mark.parametrize("method", ["linear", "newton"])
def test_units_that_forget_fast_keep_their_digits(method):
    """Check accuracy for tiny decays, although (decay − 1) + 1 is rounded to 0."""
    decay = jnp.array([0.9, 0.7, 1e-4, 1e-18])
    args = decay, jnp.ones(4), jnp.ones((5, 4))

    @jax.jit
    def run(*args):
        (last, ys), info = gradients.parallel_unroll(leak, *args, method=method)
        return last, ys, info.converged

    last, ys, converged = run(*args)
    assert converged
    assert_same((last, ys), gradients.unroll(leak, *args))
    by_start = jax.jacfwd(lambda h: run(args[0], h, args[2])[0])(args[1])
    chex.assert_trees_all_close(jnp.diagonal(by_start), decay**5, rtol=1e-10)
    pulled = jax.grad(lambda h: jnp.sum(run(args[0], h, args[2])[0]))(args[1])
    chex.assert_trees_all_close(pulled, decay**5, rtol=1e-10)


def test_a_gate_that_is_nearly_shut_or_open():
    params = cells.min_gru.init(jax.random.key(0), 2, 3, dtype=jnp.float32)
    weights, _ = params["gate"]
    params["gate"] = weights, jnp.array([10.0, -10.0, 30.0], jnp.float32)
    carry, xs = jnp.zeros(3, jnp.float32), jnp.ones((6, 2), jnp.float32)
    args = cells.min_gru, params, carry, xs
    got, info = gradients.parallel_unroll(*args, method="linear")
    assert info.converged
    chex.assert_trees_all_close(got, gradients.unroll(*args), rtol=1e-5)
