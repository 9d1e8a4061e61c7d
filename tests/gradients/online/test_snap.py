"""Tests of SnAp-n, which stores entries of ∂h/∂θ that are nonzero within n steps."""

import itertools
from functools import cache, partial

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients

N, T = 5, 6


def half_squared_error(y, target):
    return 0.5 * jnp.sum((y - target) ** 2, axis=-1)


RING = np.eye(N) + np.roll(np.eye(N), 1, axis=1)


def ring_step(params, h, x):
    """Step a ring of units; each unit reads its own state and that of one neighbour."""
    recurrent, readout = params
    h = jnp.tanh(h @ (recurrent * RING) + x)
    return h, h @ readout


@cache
def snap(step, order):
    rule = gradients.snap(step, half_squared_error, order=order)
    return jax.jit(gradients.over_sequence(rule))


@cache
def bptt(step):
    return jax.jit(gradients.bptt(step, half_squared_error))


def relative_error(got, want):
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    return jnp.linalg.norm(flat(got) - flat(want)) / jnp.linalg.norm(flat(want))


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@cache
def ring():
    params = normal(N, N), normal(N, 2, seed=1)
    return params, normal(N), normal(T, N, seed=2), normal(T, 2, seed=3)


def test_golden_error_of_order_1(make_probe):
    step, _, args, _ = make_probe()
    (_, want), (_, got) = bptt(step)(*args), snap(step, 1)(*args)
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    a, b = flat(got), flat(want)
    cosine = a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)
    assert relative_error(got, want) == pytest.approx(1.203647, abs=5e-7)
    assert cosine == pytest.approx(0.394891, abs=5e-7)


def test_equals_the_masked_recursion_by_hand():
    (recurrent, readout), h, xs, targets = jax.tree.map(np.asarray, ring())
    reach = np.eye(N)[:, None, :] * RING[None] > 0  # The axes are [unit, from, to].
    # Pattern of the entries of the influence that are nonzero after two time steps
    pattern = reach | (np.einsum("ji,jab->iab", RING, reach) > 0)
    influence, total, at_readout = np.zeros((N, N, N)), 0, 0
    for x, target in zip(xs, targets, strict=True):
        old, h = h, np.tanh(h @ (recurrent * RING) + x)
        slope = 1 - h**2
        jacobian = slope[:, None] * (recurrent * RING).T
        of_weight = old[None, :, None] * RING[None]
        immediate = (slope[:, None] * np.eye(N))[:, None, :] * of_weight
        influence = pattern * (np.tensordot(jacobian, influence, 1) + immediate)
        error = h @ readout - target
        total = total + np.tensordot(readout @ error, influence, 1) / T
        at_readout = at_readout + np.outer(h, error) / T
    _, got = snap(ring_step, 2)(*ring())
    chex.assert_trees_all_close(got, (total, at_readout), rtol=1e-10)


def test_orders_are_nested_and_exact_from_the_diameter_on():
    params, h, xs, targets = ring()
    _, want = bptt(ring_step)(*ring())
    kept, errors = [], []
    for order in range(1, N + 2):
        rule = gradients.snap(ring_step, half_squared_error, order=order)
        state = rule.init(params, h, (xs[0], targets[0]))
        leaf, _ = state.layout.leaves
        shape = (N + 1, N, N)
        allowed = np.zeros(shape, bool)
        np.put_along_axis(
            allowed,
            np.broadcast_to(leaf.rows, (len(leaf.rows), N, N)),
            np.broadcast_to(leaf.allowed, (len(leaf.rows), N, N)),
            axis=0,
        )
        kept.append(allowed[:N])
        errors.append(relative_error(snap(ring_step, order)(*ring())[1], want))
    sizes = [int(pattern.sum()) for pattern in kept]
    # There are 2 N recurrent weights; each affects k units within k time steps.
    assert sizes == [2 * N * k for k in (1, 2, 3, 4, 5, 5)]
    for smaller, larger in itertools.pairwise(kept):
        assert np.all(larger | ~smaller)
    assert all(error > 1e-3 for error in errors[:2])
    assert all(error < 1e-10 for error in errors[4:])


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize(("name", "order"), [("gru", 2), ("lstm", 3), ("min_gru", 1)])
@pytest.mark.fast_rows(2)
def test_exact_for_cells_once_all_is_reached(name, order, batch):
    step = getattr(cells, name)
    params = step.init(jax.random.key(0), 2, 3, dtype=float)
    carry = step.carry(params, batch)
    args = params, carry, normal(4, *batch, 2), normal(4, *batch, 3)
    mask = jnp.arange(4).reshape(-1, *[1] * len(batch)) < 3
    flags = {"mask": jnp.broadcast_to(mask, (4, *batch)), "reset": None}
    got = snap(step, order)(*args, **flags)
    chex.assert_trees_all_close(got, bptt(step)(*args, **flags), rtol=1e-10, atol=1e-12)


def test_zeros_of_weights_do_not_shrink_the_pattern_but_constant_ones_do():
    def rows(step, params):
        rule = gradients.snap(step, half_squared_error, order=2)
        state = rule.init(params, jnp.ones(N), (jnp.ones(N), jnp.ones(N)))
        return [len(leaf) for leaf in state.influence]

    by = lambda matrix: lambda w, h, x: (jnp.tanh(h @ matrix(w) + x), h)
    assert rows(by(lambda w: w), jnp.eye(N)) == [N]
    assert rows(by(lambda w: w * jnp.eye(N)), jnp.ones((N, N))) == [1]
    assert rows(by(jnp.diag), jnp.ones(N)) == [1]
    ahead = (jnp.arange(N) + 1) % N
    scattered = lambda w: jnp.zeros((N, N)).at[jnp.arange(N), ahead].set(w)
    assert rows(by(scattered), jnp.ones(N)) == [2]
    where = lambda w: jnp.where(RING > 0, w, 0)
    assert rows(by(where), jnp.ones((N, N))) == [2]


def test_a_step_is_compiled_once(make_probe):
    step, loss, (params, h, xs, targets), _ = make_probe()
    rule = gradients.snap(step, loss, order=1)
    update = jax.jit(chex.assert_max_traces(rule.update, 1))
    state = rule.init(params, h, (xs[0], targets[0]))
    for x, target in zip(xs, targets, strict=True):
        _, _, state = update(params, state, x, target)


@pytest.mark.slow
def test_every_leaf_of_a_bf16_network_gets_its_gradient():
    cast = partial(jax.tree.map, lambda leaf: leaf.astype(jnp.bfloat16))
    params, h, xs, targets = cast(ring())
    step = lambda params, h, x: ring_bf16(params, h, x)
    rule = gradients.over_sequence(gradients.snap(step, half_squared_error, order=1))
    (value, _), grads = rule(params, h, xs, targets)
    chex.assert_type([value, *grads], [jnp.float32, jnp.bfloat16, jnp.bfloat16])
    assert jnp.all((grads[0] != 0) == (RING > 0))
    assert jnp.all(grads[1] != 0)


def ring_bf16(params, h, x):
    recurrent, readout = params
    h = jnp.tanh(h @ (recurrent * jnp.asarray(RING, jnp.bfloat16)) + x)
    return h, h @ readout


@pytest.mark.parametrize("order", [0, -1, 1.5, True, None])
def test_orders_that_are_none_are_refused(order):
    with pytest.raises(ValueError, match="order must be an integer of at least 1"):
        gradients.snap(ring_step, half_squared_error, order=order)
