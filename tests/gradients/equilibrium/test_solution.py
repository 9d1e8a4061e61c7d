"""Tests of errors if the returned tuple (h, info) is used in place of h."""

import jax
import jax.numpy as jnp
import pytest

from bpvariants import gradients

linear = lambda w, h, x: w * h + x
TOLD = r"fixed_point returns the pair \(h, info\), not h alone"
MISTAKES = [
    lambda pair, w: pair @ w,
    lambda pair, w: w @ pair,
    lambda pair, w: 2 * pair,  # with a plain tuple, this would not raise
    lambda pair, w: pair + w,
    lambda pair, w: (pair - w) ** 2,
    lambda pair, w: jnp.sum(pair),
    lambda pair, w: jax.nn.softmax(pair),
]


def test_arithmetic_on_the_pair_is_named():
    w = jnp.ones(3)
    solve = lambda w: gradients.fixed_point(linear, 0.5, 0 * w, w)
    pair = jax.jit(solve)(w)
    for mistake in MISTAKES:
        with pytest.raises(TypeError, match=TOLD):
            mistake(pair, w)
    with pytest.raises(TypeError, match=TOLD):
        jax.eval_shape(jax.grad(lambda w: jnp.sum(solve(w) @ w)), w)
    with pytest.raises(AttributeError, match=f"no attribute 'shape': {TOLD}"):
        pair.shape  # noqa: B018


def test_it_is_a_tuple_and_a_pytree():
    pair = jax.jit(lambda x: gradients.fixed_point(linear, 0.5, 0.0, x))(1.0)
    h, info = pair
    assert (pair.h, pair.info) == (h, info) == pair
    assert isinstance(pair, tuple)
    assert info.converged
