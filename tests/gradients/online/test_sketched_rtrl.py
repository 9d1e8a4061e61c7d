"""Tests of sketched RTRL: exact at full rank, and bounds that hold at each step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients

normal = lambda i, *shape: jax.random.normal(jax.random.key(i), shape, float)
squares = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
UNITS, INPUTS, STEPS = 5, 2, 12


def looks_back(params, h, x):
    """Step a tanh cell whose output is its old carry."""
    return cells.tanh(params, h, x)[0], h


def network_of(cell, scale=1.0):
    params = cell.init(jax.random.key(0), INPUTS, UNITS)
    params = jax.tree.map(
        lambda leaf: scale * leaf + normal(1, *leaf.shape) / 5, params
    )
    return params, cell.carry(params, (2,))


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("name", ["tanh", "gru", "lstm"])
def test_at_full_rank_it_is_exact(name):
    cell = getattr(cells, name)
    params, carry = network_of(cell)
    xs, targets = normal(2, STEPS, 2, INPUTS), normal(3, STEPS, 2, UNITS)
    mask = jnp.array(np.arange(STEPS)[:, None] < [STEPS, STEPS - 3])
    reset = jnp.zeros((STEPS, 2), bool).at[4, 0].set(True)
    given = params, carry, xs, targets
    found = [
        jax.jit(gradients.over_sequence(rule))(*given, mask=mask, reset=reset)
        for rule in (
            gradients.rtrl(cell, squares),
            gradients.sketched_rtrl(cell, squares, rank=2 * UNITS),
        )
    ]
    chex.assert_trees_all_close(*found, rtol=1e-9, atol=1e-12)


def rows_of(rule, params, carry, xs, directions):
    """Return c M_{t−1} for each direction c and step t, its bounds, and the states.

    The loss is c·h_{t−1}, so its gradient is c M_{t−1}.
    """
    state = rule.init(params, carry, (xs[0], carry))

    def body(state, x):
        grads, after = jax.vmap(
            lambda target: rule.update(params, state, x, target)[1:]
        )(directions)
        leaves = jax.tree.leaves(grads)
        flat = [leaf.reshape(len(directions), -1) for leaf in leaves]
        left = jax.tree.map(lambda leaf: leaf[0], after)
        bounds = getattr(after, "gradient_bound", None)
        return left, (jnp.concatenate(flat, axis=1), bounds, state)

    return jax.jit(lambda: jax.lax.scan(body, state, xs)[1])()


def along(y, target):
    return jnp.sum(y * target, axis=-1)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(("rank", "scale"), [(2, 1.0), (1, 2.0), (4, 0.5)])
def test_bounds_hold_for_each_direction(rank, scale):
    params, carry = network_of(cells.tanh, scale)
    xs, directions = normal(2, STEPS, INPUTS), normal(4, 3, UNITS)
    directions = jnp.concatenate([jnp.eye(UNITS), directions])
    given = params, carry[0], xs, directions
    exact, _, _ = rows_of(gradients.rtrl(looks_back, along), *given)
    rule = gradients.sketched_rtrl(looks_back, along, rank=rank)
    ours, bounds, states = rows_of(rule, *given)
    errors = exact - ours
    sizes = jnp.linalg.norm(errors, axis=-1)
    slack = 1e-9 * jnp.linalg.norm(exact, axis=-1)
    assert jnp.all(sizes <= bounds + slack)
    assert jnp.max(sizes) > 1e-3  # the rank is too small for the exact influence
    units = errors[:, :UNITS]
    of_units = states.uncertainty - units @ units.mT
    least = jnp.linalg.eigvalsh(of_units)[:, 0]
    assert jnp.all(least >= -1e-9 * jnp.trace(of_units, axis1=1, axis2=2))
    frobenius = jnp.linalg.norm(units, axis=(1, 2))
    assert jnp.all(frobenius <= states.error_bound * (1 + 1e-9))
    # The bound is of use: it is not many times larger than the error.
    late = slice(3, None)
    assert jnp.all(states.error_bound[late] <= 20 * frobenius[late])


@pytest.mark.slow
def test_bounds_grow_in_chaotic_networks():
    params, carry = network_of(cells.tanh)
    params = params | {"recurrent": 3 * params["recurrent"]}
    given = params, carry[0], normal(2, 60, INPUTS), jnp.ones((1, UNITS))
    exact, _, _ = rows_of(gradients.rtrl(looks_back, along), *given)
    rule = gradients.sketched_rtrl(looks_back, along, rank=1)
    ours, bounds, _ = rows_of(rule, *given)
    sizes = jnp.linalg.norm(exact - ours, axis=-1)[:, 0]
    assert jnp.all(sizes <= bounds[:, 0] * (1 + 1e-9) + 1e-12)
    assert jnp.max(bounds[30:, 0] / sizes[30:]) > 5


@pytest.mark.slow
def test_bounds_hold_for_a_batch_and_several_blocks():
    params, carry = network_of(cells.gru)
    xs, targets = normal(2, STEPS, 2, INPUTS), normal(3, STEPS, 2, UNITS)

    def run(rule):
        state = rule.init(params, carry, (xs[0], targets[0]))

        def body(state, inputs):
            _, grads, state = rule.update(params, state, *inputs)
            flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])
            return state, (flat, getattr(state, "gradient_bound", 0.0))

        return jax.jit(lambda: jax.lax.scan(body, state, (xs, targets))[1])()

    exact, _ = run(gradients.rtrl(cells.gru, squares))
    ours, bounds = run(gradients.sketched_rtrl(cells.gru, squares, rank=2))
    sizes = jnp.linalg.norm(exact - ours, axis=1)
    assert jnp.all(sizes <= bounds + 1e-12)
    assert jnp.max(sizes) > 1e-4
    assert jnp.all(bounds[5:] < 20 * sizes[5:])


def test_resets_and_padding_change_the_bound():
    params, carry = network_of(cells.tanh)
    rule = gradients.sketched_rtrl(cells.tanh, squares, rank=1)
    x, target = normal(2, 2, INPUTS), normal(3, 2, UNITS)
    update = jax.jit(rule.update)
    state = rule.init(params, carry, (x, target))
    for _ in range(3):
        state = update(params, state, x, target)[2]
    assert jnp.all(state.error_bound > 1e-3)
    mask, reset = jnp.array([True, False]), jnp.array([True, False])
    after = update(params, state, x, target, mask=mask, reset=reset)[2]
    fresh = rule.init(params, carry, (x, target))
    fresh = fresh._replace(relevance=state.relevance)  # which resets do not change
    first = update(params, fresh, x, target)[2]
    old, new = state.error_bound, after.error_bound
    np.testing.assert_allclose(new, [first.error_bound[0], old[1]], rtol=1e-12)
    # A reset ends what NaN has spoilt, in an input or in a target.
    for spoilt in ((x.at[0].set(jnp.nan), target), (x, target.at[0].set(jnp.nan))):
        bad = update(params, state, *spoilt)[2]
        grads, after = update(params, bad, x, target, mask=mask, reset=reset)[1:]
        chex.assert_tree_all_finite((grads, after))


def test_it_works_in_low_precision_and_refuses_wrong_ranks():
    params, carry = network_of(cells.tanh)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, carry))
    rule = gradients.sketched_rtrl(cells.tanh, squares, rank=2)
    x, target = jnp.ones((2, INPUTS), jnp.bfloat16), jnp.ones((2, UNITS), jnp.bfloat16)
    state = rule.init(*low, (x, target))
    _, grads, state = jax.jit(rule.update)(low[0], state, x, target)
    assert state.uncertainty.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
    for rank in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match=r"^rank must be"):
            gradients.sketched_rtrl(cells.tanh, squares, rank=rank)
    other = gradients.sketched_rtrl(cells.tanh, squares, rank=3)
    with pytest.raises(ValueError, match=r"^state must have factors of .* shapes"):
        other.update(low[0], state, x, target)
