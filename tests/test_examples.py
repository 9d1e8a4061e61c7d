"""Tests of functions that compute the norm of each example in a pytree."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants._examples import norm, quick_norms


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1.0, 1e19, 1e38])
def test_norms_are_right_where_squares_overflow_or_underflow(size):
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    tree = {"a": jnp.asarray(size * rows / 5, jnp.float32), "b": jnp.zeros((3, 1))}
    np.testing.assert_allclose(norm(tree, 1), size * np.array([1, 0, 0.2]), rtol=1e-6)
    np.testing.assert_allclose(norm(tree["a"]), size * 1.04**0.5, rtol=1e-6)


@pytest.mark.parametrize(("bad", "want"), [(np.inf, np.inf), (np.nan, np.nan)])
def test_norms_of_what_is_not_finite(bad, want):
    np.testing.assert_array_equal(norm(jnp.array([1.0, bad, -np.inf])), want)


SCALES = [1.0, 1e30, 1e-30, 0.0, np.inf, np.nan]


@pytest.mark.parametrize("scale", SCALES)
def test_quick_norms_are_norms_for_all_sizes_of_numbers(scale):
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key, *shape: jax.random.normal(key, shape, jnp.float32)
    tree = {"a": draw(keys[0], 2, 3, 4), "b": draw(keys[1], 2, 1)}
    tree["a"] = tree["a"].at[1].multiply(scale)  # the other example stays in range
    other = draw(keys[2], 2, 5)
    want = [norm(tree, 1), norm(other, 1)]
    got = jax.jit(lambda *trees: quick_norms(trees, 1))(tree, other)
    chex.assert_trees_all_close(got, want, rtol=1e-6)


def test_a_sum_that_loses_squares_is_not_trusted():
    # The squares are below float32's smallest normal number; their norm is not.
    small = jnp.full((1, 100), 1e-21, jnp.float32)
    (got,) = jax.jit(lambda a: quick_norms([a], 1))(small)
    np.testing.assert_allclose(got, [1e-20], rtol=1e-6)


def test_dtypes_are_widened():
    tree = [jnp.ones((2, 4), jnp.bfloat16), jnp.ones((2, 5), jnp.float32)]
    (got,) = quick_norms([tree], 1)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [3, 3])
