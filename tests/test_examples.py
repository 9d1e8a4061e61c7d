"""Test of a function that computes the norm of each example in a pytree."""

import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants._examples import norm


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1.0, 1e19, 1e38])
def test_norms_are_right_where_squares_overflow_or_underflow(size):
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    tree = {"a": jnp.asarray(size * rows / 5, jnp.float32), "b": jnp.zeros((3, 1))}
    np.testing.assert_allclose(norm(tree, 1), size * np.array([1, 0, 0.2]), rtol=1e-6)
    np.testing.assert_allclose(norm(tree["a"]), size * 1.04**0.5, rtol=1e-6)


@pytest.mark.parametrize(("bad", "want"), [(np.inf, np.inf), (np.nan, np.nan)])
def test_norms_of_what_is_not_finite(bad, want):
    np.testing.assert_array_equal(norm(jnp.array([1.0, bad, -np.inf])), want)
