"""Tests of forward gradients, with all directions that the rule can draw."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.online._forward_gradient import DISTRIBUTIONS


# This network has p = 7 parameters; the carry does not depend on the readout.
def step(params, carry, x):
    h, count = carry
    h = jnp.tanh(h @ params["recurrent"] + x[..., None] * params["in"][None])
    return (h, count + 1), h[..., 0] * params["readout"]


loss = lambda y, target: (y - target) ** 2


def problem():
    params = {
        "recurrent": jnp.array([[0.6, -0.9], [0.8, 0.3]]),
        "in": jnp.array([0.7, -0.4]),
        "readout": jnp.array(1.3),
    }
    carry = jnp.array([[0.2, -0.1], [0.5, 0.3]]), jnp.zeros(2, int)
    t = jnp.arange(1.0, 6.0)[:, None]
    xs, targets = jnp.sin(t * jnp.array([[0.7, 0.4]])), jnp.cos(t * jnp.ones((1, 2)))
    flags = {
        "weight": jnp.array([[1, 0.5], [0.2, 1], [1, 1], [2, 0.1], [0.4, 1]]),
        "mask": jnp.array([[1, 1], [1, 0], [1, 1], [1, 1], [0, 1]], bool),
        "reset": jnp.array([[0, 0], [0, 1], [0, 0], [1, 0], [0, 0]], bool),
    }
    return params, carry, xs, targets, flags


def like_params(vectors):
    """Convert vectors [..., 7] to directions in the format of the online state."""
    split = lambda v: {"recurrent": v[:4].reshape(2, 2), "in": v[4:6], "readout": v[6]}
    return jax.vmap(lambda v: jax.tree.map(lambda a: a[None], split(v)))(vectors)


def as_vectors(grads):
    rows = [g.reshape(len(g), -1) for g in (grads[k] for k in ORDER)]
    return np.concatenate(rows, axis=1)


ORDER = ("recurrent", "in", "readout")


def along(params_tangent, params, carry, xs, targets, flags):
    """Return the gradient estimate for given random directions.

    Also return the directions that the last state contains.
    """
    online = gradients.forward_gradient(step, loss)
    state = online.init(params, carry, (xs[0], targets[0]))
    state = state._replace(params_tangent=params_tangent, drawn=jnp.array(True))

    def body(state, inputs):
        x, target, flags = inputs
        # The key has no effect, because the direction is given.
        key = jax.random.key(0)
        _, grads, state = online.update(params, state, x, target, key=key, **flags)
        return state, grads

    state, grads = jax.lax.scan(body, state, (xs, targets, flags))
    counts = jnp.where(flags["mask"], flags["weight"], 0).sum(1)
    total = lambda a: jnp.tensordot(counts / counts.sum(), a, axes=1)
    return jax.tree.map(total, grads), state.params_tangent


def test_mean_and_variance_over_all_directions():
    params, carry, xs, targets, flags = problem()
    vectors = jnp.array(list(itertools.product([-1.0, 1.0], repeat=7)))
    several = jax.jit(jax.vmap(along, in_axes=(0, *[None] * 5)))
    args = params, carry, xs, targets
    got, kept = several(like_params(vectors), *args, flags)
    chex.assert_trees_all_equal(kept, like_params(vectors))
    _, want = gradients.bptt(step, loss)(*args, *flags.values())
    mean = jax.tree.map(lambda g: g.mean(0), got)
    chex.assert_trees_all_close(mean, want, rtol=1e-10, atol=1e-12)
    g = as_vectors(jax.tree.map(lambda a: a[None], want))
    got = as_vectors(got)
    error = np.mean(np.sum((got - g) ** 2, axis=1))
    np.testing.assert_allclose(error, 6 * np.sum(g**2), rtol=1e-10)
    # Each estimate is (g·v) v, with gradient g and direction v.
    slopes = (vectors @ g.T)[:, 0]
    np.testing.assert_allclose(got, slopes[:, None] * vectors, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_directions_are_averaged_and_stay_from_call_to_call(distribution):
    params, carry, xs, targets, _ = problem()
    online = gradients.forward_gradient(
        step, loss, directions=3, distribution=distribution
    )
    update = jax.jit(online.update)
    state, total = online.init(params, carry, (xs[0], targets[0])), 0.0
    assert not np.any(state.params_tangent["recurrent"])
    for t in range(5):
        key = jax.random.key(t)
        _, grads, state = update(params, state, xs[t], targets[t], key=key)
        total += as_vectors(jax.tree.map(lambda a: a[None], grads))[0]
        if t == 0:
            first = state.params_tangent
    chex.assert_trees_all_equal(state.params_tangent, first)
    v = as_vectors(first)
    assert len(np.unique(v[:, 0])) > 1 or len(np.unique(v[:, 1])) > 1
    _, g = gradients.bptt(step, loss)(params, carry, xs, targets)
    g = as_vectors(jax.tree.map(lambda a: a[None], g))[0]
    want = np.mean((v @ g)[:, None] * v, axis=0)
    np.testing.assert_allclose(total / 5, want, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_draws_have_mean_0_and_variance_1(draw):
    N = 100_000
    v = np.asarray(draw(jax.random.key(0), (N // 8, 8), float))
    assert np.max(np.abs(np.mean(v, axis=0))) < 5 / np.sqrt(N / 8)
    product = v.T @ v / len(v)
    assert np.max(np.abs(product - np.eye(8))) < 5 * np.sqrt(2 / (N / 8))


def test_memory_does_not_grow_with_length():
    params, carry, _, _, _ = problem()
    rule = gradients.over_sequence(gradients.forward_gradient(step, loss))
    rule = jax.jit(rule)

    def used(length):
        xs = jax.ShapeDtypeStruct((length, 2), float)
        program = rule.lower(params, carry, xs, xs, key=jax.random.key(0)).compile()
        return program.memory_analysis().temp_size_in_bytes

    # Each time step adds memory for a loss, its weight and a key, but not for a state.
    assert used(10_000) - used(100) <= 9_900 * 40


def test_a_step_may_have_a_loop_with_no_way_back():
    def looping(w, h, x):
        going = lambda h_and_count: h_and_count[1] < 2
        body = lambda pair: (jnp.tanh(w * pair[0] + x), pair[1] + 1)
        h, _ = jax.lax.while_loop(going, body, (h, 0))
        return h, h

    twice = lambda w, h, x: (jnp.tanh(w * jnp.tanh(w * h + x) + x),) * 2
    args = jnp.array(0.7), jnp.array(0.1), jnp.ones(3), jnp.zeros(3)
    rule = gradients.over_sequence(gradients.forward_gradient(looping, loss))
    # For one parameter the direction v is ±1, so (g·v) v = g.
    got = jax.jit(rule)(*args, key=jax.random.key(0))
    want = jax.jit(gradients.bptt(twice, loss))(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-12)


def test_settings_are_checked():
    for directions in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="directions must be an integer of "):
            gradients.forward_gradient(step, loss, directions=directions)
    with pytest.raises(ValueError, match=r"distribution must be one of \['normal', "):
        gradients.forward_gradient(step, loss, distribution="uniform")
