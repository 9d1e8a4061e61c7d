"""Tests of padding masks that are made from sequence lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients


@pytest.mark.parametrize("lengths", [[2, 0, 4], np.array([2, 0, 4], np.uint8)])
def test_lengths_are_integers_of_any_kind(lengths):
    got = gradients.mask_from_lengths(jnp.asarray(lengths), 4)
    assert got.T.astype(int).tolist() == [[1, 1, 0, 0], [0] * 4, [1] * 4]
    assert gradients.mask_from_lengths(3, 4).tolist() == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (jnp.array([2, -1]), "from 0 to num_steps = 4, got -1"),
        (jnp.array([[9], [2]]), "from 0 to num_steps = 4, got 9"),
        (5, "from 0 to num_steps = 4, got 5"),
        (
            jnp.array([2.7, 1.0]),
            r"from 0 to num_steps = 4, got float64: \[2.7",
        ),
        (2.0, "integers from 0 to num_steps = 4, got float"),
        (jnp.array([True, False]), "integers from 0 to num_steps = 4, got bool"),
        ("four", "lengths must be integers from 0 to num_steps = 4, got 'four'"),
        (None, "lengths must be integers from 0 to num_steps = 4, got None"),
    ],
)
def test_other_lengths_are_named(lengths, message):
    with pytest.raises(ValueError, match=message):
        gradients.mask_from_lengths(lengths, 4)


@pytest.mark.parametrize("num_steps", [2.5, True, 0, -1, None])
def test_num_steps_is_a_count(num_steps):
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1"):
        gradients.mask_from_lengths(jnp.array([1]), num_steps)
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1"):
        gradients.discounted_weights(num_steps, 0.5)


def test_traced_lengths_are_taken_as_they_are():
    got = jax.jit(lambda n: gradients.mask_from_lengths(n, 3))(jnp.array([2, 7]))
    assert got.T.tolist() == [[True, True, False], [True] * 3]
    with pytest.raises(ValueError, match="got float64"):
        jax.jit(lambda n: gradients.mask_from_lengths(n, 3))(jnp.array([2.0]))


@pytest.mark.parametrize(
    "lengths", [[2, 0, 4], np.array([2, 0, 4], np.uint8), jnp.array([2, 0, 4])]
)
def test_only_the_last_step_of_a_sequence_counts(lengths):
    weights = gradients.last_step_weights(jnp.asarray(lengths), 4)
    assert weights.T.tolist() == [[0, 1, 0, 0], [0] * 4, [0, 0, 0, 1]]
    assert weights.dtype == jnp.result_type(float)
    grid = gradients.last_step_weights(jnp.array([[1, 2], [0, 4]]), 4)
    assert grid.shape == (4, 2, 2)
    assert grid.sum(0).tolist() == [[1, 1], [0, 1]]
    assert gradients.last_step_weights(3, 4).tolist() == [0, 0, 1, 0]


def test_lengths_of_last_steps_are_checked():
    with pytest.raises(ValueError, match="from 0 to num_steps = 4, got 9"):
        gradients.last_step_weights([9, 2], 4)
    with pytest.raises(ValueError, match="integers from 0 to num_steps = 4, got float"):
        gradients.last_step_weights(2.0, 4)
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1"):
        gradients.last_step_weights([1], True)
    last = jax.jit(lambda n: gradients.last_step_weights(n, 3))(jnp.array([2, 7]))
    assert last.T.tolist() == [[0, 1, 0], [0] * 3]


def test_the_value_is_the_mean_of_last_losses():
    step, lengths = lambda w, h, x: (h + w * x, h + w * x), jnp.array([3, 1, 0])
    rule = gradients.bptt(step, lambda y, target: (y - target) ** 2)
    xs, zeros = jnp.ones((3, 3)), jnp.zeros((3, 3))
    mask = gradients.mask_from_lengths(lengths, 3)
    weights = gradients.last_step_weights(lengths, 3)
    (value, _), _ = rule(2.0, jnp.zeros(3), xs, zeros, weights, mask)
    assert value == (6.0**2 + 2.0**2) / 2
