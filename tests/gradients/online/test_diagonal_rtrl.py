"""Tests of RTRL for networks whose units do not read each other's state."""

import chex
import jax
import jax.numpy as jnp
import pytest

from bpvariants import cells, gradients

D, N, M, T = 2, 4, 3, 5


def squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def problem(name, batch):
    if name == "lru":
        params = cells.lru.init(jax.random.key(0), D, N, M, dtype=float)
        step, carry = cells.lru, cells.lru.carry(params, batch, complex=False)
    else:
        params = cells.min_gru.init(jax.random.key(0), D, N, dtype=float)
        step, carry = cells.min_gru, cells.min_gru.carry(params, batch)
    outputs = M if name == "lru" else N
    xs = jax.random.normal(jax.random.key(1), (T, *batch, D))
    targets = jax.random.normal(jax.random.key(2), (T, *batch, outputs))
    return step, (params, jax.tree.map(lambda a: a + 0.5, carry), xs, targets)


@pytest.mark.parametrize("batch", [(), (2,), (19,), (0,)], ids=str)
@pytest.mark.parametrize("name", ["lru", "min_gru"])
@pytest.mark.fast_rows(2)
def test_equals_bptt_at_the_memory_of_the_parameters(name, batch):
    step, args = problem(name, batch)
    rule = gradients.diagonal_rtrl(step, squared_error)
    got = jax.jit(gradients.over_sequence(rule))(*args)
    want = jax.jit(gradients.bptt(step, squared_error))(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    params, carry, xs, targets = args
    state = rule.init(params, carry, (xs[0], targets[0]))
    parts = len(jax.tree.leaves(carry))
    one = lambda leaf: (*batch, 1, *leaf.shape)
    several = lambda leaf: [(*batch, *leaf.shape)] * parts  # an array for each row
    for leaf, kept in zip(jax.tree.leaves(params), state.influence, strict=True):
        want = one(leaf) if parts == 1 else several(leaf)
        assert kept is None or jax.tree.map(jnp.shape, kept) == want


@pytest.mark.parametrize("in_init", [True, False])
def test_a_step_that_mixes_units_is_refused(in_init):
    params = cells.tanh.init(jax.random.key(0), D, N, dtype=float)
    rule = gradients.diagonal_rtrl(cells.tanh, squared_error)
    args = params, jnp.zeros(N)
    x, target = jnp.ones(D), jnp.ones(N)
    begin = lambda rule: rule.init(*args, (x, target))
    of_rtrl = begin(gradients.rtrl(cells.tanh, squared_error))
    go_on = lambda: rule.update(params, of_rtrl, x, target)
    with pytest.raises(ValueError, match="element-wise"):
        begin(rule) if in_init else go_on()
