"""UORO by enumeration of all signs it can draw, and against its printed equations."""

import itertools
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients import _uoro


def signs_of(vector, leaves):
    """Draw nothing: take one vector of signs, the same for all examples."""
    sizes = [leaf[(0,) * BATCH_RANK].size for leaf in leaves]
    parts = jnp.split(vector, np.cumsum(sizes)[:-1])
    shapes = [leaf.shape[BATCH_RANK:] for leaf in leaves]
    parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    ones = lambda leaf: jnp.ones_like(leaf)
    return [
        ones(leaf) * jnp.expand_dims(part, tuple(range(BATCH_RANK)))
        for leaf, part in zip(leaves, parts, strict=True)
    ]


BATCH_RANK = 1


@cache
def with_signs(step, loss):
    """Return the estimates of a sequence, one for each set of signs [T, n]."""
    online = _uoro._with_signs(step, loss, signs_of)

    def estimate(signs, params, carry, xs, targets, flags, initial):
        def body(state, inputs):
            signs, x, target, flags = inputs
            value, grads, state = online.update(
                params, state, x, target, key=signs, **flags
            )
            return state, (value, grads)

        state = online.init(params, carry, initial, inputs=(xs[0], targets[0]))
        state, (values, grads) = jax.lax.scan(body, state, (signs, xs, targets, flags))
        counts = jnp.where(flags["mask"], flags["weight"], 0).sum(1)
        shares = counts / counts.sum()
        total = lambda a: jnp.tensordot(shares, a, axes=1)
        return (total(values), state.carry), jax.tree.map(total, grads)

    several = jax.vmap(estimate, in_axes=(0, *[None] * 6))
    return jax.jit(several)


def all_signs(steps, numbers):
    """Return [2^(steps·numbers), steps + 1, numbers]: the last reach no loss."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=steps * numbers)))
    signs = signs.reshape(-1, steps, numbers)
    return np.concatenate([signs, np.ones_like(signs[:, :1])], axis=1)


@pytest.mark.parametrize("cell", ["tanh", "lstm", "nested"])
def test_the_mean_over_all_signs_is_bptt(make_problem, cell):
    step, loss, args, more = make_problem(cell, batch=(2,), T=3)
    signs = all_signs(2, 3 if cell == "tanh" else 6)
    ones = jnp.ones((3, 2), bool)
    plain = {"weight": ones.astype(float), "mask": ones, "reset": ~ones}
    mask = jnp.array([[1, 1], [1, 0], [1, 1]], bool)
    reset = jnp.array([[0, 0], [0, 0], [0, 1]], bool)
    flagged = {"weight": more["weights"], "mask": mask, "reset": reset}
    for flags, initial in ((plain, None), (flagged, more["initial"])):
        given = {"mask": flags["mask"], "reset": flags["reset"], "initial": initial}
        want = gradients.bptt(step, loss)(*args, flags["weight"], **given)
        got = with_signs(step, loss)(signs, *args, flags, initial)
        same = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(signs), *a.shape)), want)
        chex.assert_trees_all_close(got[0], same[0], rtol=1e-12, atol=1e-12)
        mean = jax.tree.map(lambda g: g.mean(0), got[1])
        chex.assert_trees_all_close(mean, want[1], rtol=1e-10, atol=1e-12)
        flipped = with_signs(step, loss)(-signs, *args, flags, initial)
        chex.assert_trees_all_equal(flipped[1], got[1])
        spread = jax.tree.map(lambda g: jnp.max(jnp.ptp(g, axis=0)), got[1])
        assert max(jax.tree.leaves(spread)) > 1e-2
