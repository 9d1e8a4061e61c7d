"""Tests of steps made from NNX and Equinox modules."""

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from bpvariants import adapters, gradients


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("cell", [eqx.nn.GRUCell, eqx.nn.LSTMCell])
def test_equinox_cell_in_every_rule(cell, batch):
    module = cell(2, 3, key=jax.random.key(0))
    step, params = adapters.from_equinox(module)
    keys = jax.random.split(jax.random.key(1), 3)
    xs = jax.random.normal(keys[0], (4, *batch, 2))
    targets = jax.random.normal(keys[1], (4, *batch, 3))
    h = jax.random.normal(keys[2], (*batch, 3))
    carry = (h, h) if cell is eqx.nn.LSTMCell else h

    def by_loop(module):
        state, total = carry, 0.0
        call = lambda x, state: module(x, state)
        for _ in batch:
            call = jax.vmap(call)
        for x, target in zip(xs, targets, strict=True):
            state = call(x, state)
            y = state[0] if isinstance(state, tuple) else state
            total += jnp.mean(loss(y, target)) / len(xs)
        return total

    want, want_grads = eqx.filter_value_and_grad(by_loop)(module)
    online = gradients.over_sequence(gradients.rtrl(step, loss))
    for rule in (gradients.bptt(step, loss), online):
        (value, _), grads = rule(params, carry, xs, targets)
        chex.assert_trees_all_close(value, want, rtol=1e-10)
        got, expected = jax.tree.leaves(grads), jax.tree.leaves(want_grads)
        chex.assert_trees_all_close(got, expected, rtol=1e-9, atol=1e-12)


def test_equinox_module_with_a_call_of_its_own():
    class Network(eqx.Module):
        cell: eqx.nn.GRUCell
        readout: eqx.nn.Linear

    keys = jax.random.split(jax.random.key(0))
    cell = eqx.nn.GRUCell(2, 3, key=keys[0])
    network = Network(cell, eqx.nn.Linear(3, 4, key=keys[1]))

    def call(network, h, x):
        h = network.cell(x, h)
        return h, network.readout(h)

    step, params = adapters.from_equinox(network, call)
    h, y = step(params, jnp.zeros((5, 3)), jnp.ones((5, 2)))
    chex.assert_shape([h, y], [(5, 3), (5, 4)])
    want = call(network, jnp.zeros(3), jnp.ones(2))
    chex.assert_trees_all_close((h[0], y[0]), want, rtol=1e-10)


def test_nnx_state_that_is_no_parameter_stays_as_it_is():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.cell = nnx.SimpleCell(2, 3, dtype=float, param_dtype=float, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, carry, x):
            carry, y = self.cell(carry, x)
            return carry, self.dropout(y)

    with jax.numpy_dtype_promotion("standard"):
        step, params = adapters.from_nnx(Noisy(nnx.Rngs(0)))
        xs = jnp.ones((4, 5, 2))
        arguments = params, jnp.zeros((5, 3)), xs[0]
        first, second, jitted = step(*arguments), step(*arguments), jax.jit(step)
        chex.assert_trees_all_equal(first, second)
        chex.assert_trees_all_close(first, jitted(*arguments), rtol=1e-12)
        rule = gradients.bptt(step, loss)
        _, grads = rule(params, arguments[1], xs, jnp.zeros((4, 5, 3)))
    chex.assert_tree_all_finite(grads)


def test_what_is_no_nnx_module_is_named():
    with pytest.raises(ValueError, match=r"module must be a flax\.nnx\.Module, got a"):
        adapters.from_nnx(nn.SimpleCell(3))


def test_nnx_equals_linen_with_the_same_weights():
    with jax.numpy_dtype_promotion("standard"):  # Initialisers of Flax promote dtypes.
        module = nnx.SimpleCell(2, 3, dtype=float, param_dtype=float, rngs=nnx.Rngs(0))
    step, params = adapters.from_nnx(module)
    weights = nnx.to_pure_dict(params)
    linen = nn.SimpleCell(3, param_dtype=float)
    variables = {
        "params": {"i": weights["dense_i"], "h": weights["dense_h"]},
    }
    keys = jax.random.split(jax.random.key(1))
    xs, targets = jax.random.normal(keys[0], (2, 5, 4, 3))
    xs = xs[..., :2]
    carry = jnp.zeros((4, 3))
    (value, last), grads = gradients.bptt(step, loss)(params, carry, xs, targets)
    want, want_grads = gradients.bptt(linen.apply, loss)(variables, carry, xs, targets)
    chex.assert_trees_all_close((value, last), want, rtol=1e-12)
    grads = nnx.to_pure_dict(grads)
    got = {"i": grads["dense_i"], "h": grads["dense_h"]}
    chex.assert_trees_all_close(got, want_grads["params"], rtol=1e-10)
    nnx.update(module, params)  # Params of the step can be written back into a module.
