"""Tests of stacks of layers, against the same network written as one step."""

from functools import cache, partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import pytest

from bpvariants import gradients

N, D, T, B = 3, 2, 6, 4


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def normal(seed, *shape, dtype=float):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def tanh_step(params, h, x):
    recurrent, feedforward = params
    h = jnp.tanh(h @ recurrent + x @ feedforward)
    return h, h


def tanh_params(seed, inputs):
    return normal(seed, N, N), normal(seed + 1, inputs, N)


lstm = nn.LSTMCell(features=N, param_dtype=float)


def lstm_with_skip(params, carry, x):
    """Step an LSTM whose y is a pytree: its output and its input."""
    carry, h = lstm.apply(params, carry, x)
    return carry, {"h": h, "x": [x]}


def readout(params, h, x):
    return h, {"y": x["h"] @ params, "seen": x["x"][0]}


def squared_error(y, target):
    y = y["y"] if isinstance(y, dict) else y
    return jnp.sum((y - target) ** 2, axis=-1)


@cache
def two_layers():
    """Return a tanh layer, an LSTM, and a readout that does not change its carry."""
    carry = normal(20, B, N), (normal(21, B, N), normal(22, B, N)), normal(23, B)
    params = (
        tanh_params(0, D),
        lstm.init(jax.random.key(2), carry[1], carry[0]),
        normal(3, N, 2),
    )
    args = params, carry, normal(4, T, B, D), normal(5, T, B, 2)
    options = {
        "weights": jax.random.uniform(jax.random.key(6), (T, B), float),
        "mask": jax.random.bernoulli(jax.random.key(7), 0.7, (T, B)),
        "reset": jax.random.bernoulli(jax.random.key(8), 0.3, (T, B)),
        "initial": jax.tree.map(lambda leaf: 0.5 * leaf, carry),
    }
    return gradients.stack([tanh_step, lstm_with_skip, readout]), args, options


def by_hand(params, carry, xs, targets, weights, mask, reset, initial):
    """Run the network of `two_layers` as one scan, with masks and resets."""
    choose = lambda flags, a, b: jnp.where(flags.reshape(B, 1), a, b)

    def body(state, inputs):
        x, target, real, new = inputs
        restart = jax.tree.map(partial(choose, real & new), initial[:2], state)
        first, second = restart
        first = jnp.tanh(first @ params[0][0] + x @ params[0][1])
        second, h = lstm.apply(params[1], second, first)
        losses = jnp.sum((h @ params[2] - target) ** 2, axis=-1)
        return jax.tree.map(partial(choose, real), (first, second), state), losses

    last, losses = jax.lax.scan(body, carry[:2], (xs, targets, mask, reset))
    weights = jnp.where(mask, weights, 0)
    return jnp.sum(weights * losses) / jnp.sum(weights), last


written = jax.jit(jax.value_and_grad(by_hand, has_aux=True))


@pytest.mark.fast_rows(2)
def test_stack_in_every_rule_is_the_network_written_by_hand(make_rule):
    step, args, options = two_layers()
    got, grads = jax.jit(make_rule(step, squared_error))(*args, **options)
    (value, last), want = written(*args, **options)
    assert_same((got[0], got[1][:2], grads), (value, last, want))
    assert all(jnp.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(grads))


def test_stack_of_stacks_is_a_stack():
    step, (params, carry, xs, _), _ = two_layers()
    first = gradients.stack([tanh_step, lstm_with_skip])
    nested = gradients.stack(iter([first, gradients.stack([readout])]))
    regroup = lambda tree: (tree[:2], tree[2:])
    last, ys = gradients.unroll(nested, regroup(params), regroup(carry), xs)
    want, want_ys = gradients.unroll(step, params, carry, xs)
    assert_same((last, ys), (regroup(want), want_ys))
    one = gradients.stack([tanh_step])
    got = gradients.unroll(one, [params[0]], carry[:1], xs)[1]
    assert_same(got, gradients.unroll(tanh_step, params[0], carry[0], xs)[1])


@pytest.mark.slow
def test_stack_truncates_and_keeps_bfloat16():
    step, args, options = two_layers()
    make = partial(gradients.truncated_bptt, every=2, lookback=3)
    whole = written(*args, **options)[1]
    got = jax.jit(make(step, squared_error))(*args, **options)[1]
    assert_same(got[2], whole[2])  # The gradient of the readout is not truncated.
    assert jnp.abs(got[0][0] - whole[0][0]).max() > 1e-3
    narrow = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)
    layers = gradients.stack([tanh_step, tanh_step])
    params = narrow((tanh_params(0, D), tanh_params(2, N)))
    carry, xs = narrow((normal(20, B, N), normal(21, B, N))), narrow(args[2])
    targets = narrow(normal(9, T, B, N))
    (value, _), grads = gradients.bptt(layers, squared_error)(
        params, carry, xs, targets
    )
    assert value.dtype == jnp.float32
    chex.assert_trees_all_equal_dtypes(grads, params)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps must have at least one layer, got none"),
        (tanh_step, r"steps must be a list of functions .* \[step\]"),
        (3, "steps must be a list of functions"),
        ([tanh_step, None], r"steps\[1\] must be a function .* got None"),
        ([nn.GRUCell], r"steps\[0\] must be a function .* module.apply"),
    ],
)
def test_stack_names_what_is_no_layer(steps, message):
    with pytest.raises(ValueError, match=message):
        gradients.stack(steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": (tanh_params(0, D),)}, "params must be a tuple .* 2 .* tuple of 1"),
        ({"params": {"a": 1.0, "b": 2.0}}, "params must be a tuple .* got a dict of 2"),
        ({"carry": normal(0, 2, N)}, "carry must be a tuple with one entry for each"),
        ({"carry": [normal(0, B, N)] * 2}, "carry must be a tuple .* got a list of 2"),
        ({"carry": (normal(0, B, N),) * 3}, "carry must be .* got a tuple of 3"),
        (
            {"carry": (normal(0, B, N), normal(0, 1, N))},
            r"the carry that steps\[1\] returns must have .* of carry\[1\]",
        ),
    ],
)
def test_stack_names_what_does_not_fit_its_layers(change, message):
    step = gradients.stack([tanh_step, tanh_step])
    given = {
        "params": (tanh_params(0, D), tanh_params(2, N)),
        "carry": (normal(0, B, N),) * 2,
        "xs": normal(1, T, B, D),
        "targets": normal(2, T, B, N),
    }
    with pytest.raises(ValueError, match=message):
        gradients.bptt(step, squared_error)(**given | change)


flags = jnp.array(
    [[0, 0, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0], [1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0]],
    bool,
).T
