"""Test of the mean of `jacobian_penalty` over all possible random signs."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np

from bpvariants import gradients


def test_jacobian_penalty_is_unbiased():
    """With two units, the penalty depends only on whether their random signs agree.

    So the penalty has two possible values. Their mean is ‖J‖_F² / 2, with the Jacobian
    J of the map.
    """
    W, h = jnp.array([[0.3, -0.7], [0.5, 0.2]]), jnp.array([[0.4, -0.2], [0.0, 0.1]])
    f = lambda W, h, x: jnp.tanh(h @ W.T + x)
    keys = jax.random.split(jax.random.key(0), 32)
    penalty = partial(gradients.jacobian_penalty, f, batch_ndim=1)
    draws = jax.jit(jax.vmap(lambda key: penalty(W, h, 0 * h, key)))(keys)
    chex.assert_shape(draws, (32, 2))
    J = jax.vmap(jax.jacobian(lambda h: f(W, h, 0 * h)))(h)
    plus = jnp.sum((J[:, 0] + J[:, 1]) ** 2, axis=-1) / 2
    minus = jnp.sum((J[:, 0] - J[:, 1]) ** 2, axis=-1) / 2
    is_plus, is_minus = (jnp.isclose(draws, v[None], rtol=1e-12) for v in (plus, minus))
    assert jnp.all(is_plus | is_minus)
    assert jnp.all(is_plus.any(axis=0) & is_minus.any(axis=0))
    want = jnp.sum(J**2, axis=(1, 2)) / 2
    np.testing.assert_allclose((plus + minus) / 2, want, rtol=1e-12)
    total = lambda W: jnp.sum(penalty(W, h, 0 * h, keys[0]))
    jax.test_util.check_grads(jax.jit(total), (W,), order=1, modes=("rev",))
    assert jnp.all(jnp.isfinite(jax.grad(total)(0 * W)))
    tree = {"a": h, "b": (h,)}
    swap = lambda W, h, x: {"a": h["b"][0], "b": (0.5 * h["a"],)}
    value = penalty_of(swap, tree, keys[0])
    np.testing.assert_allclose(value, jnp.full(2, (1 + 0.25) / 2), rtol=1e-12)


def penalty_of(f, h, key):
    return gradients.jacobian_penalty(f, (), h, (), key, batch_ndim=1)
