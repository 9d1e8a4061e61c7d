"""Errors of printed equations, which docs/equations.md names."""

import jax.numpy as jnp
import pytest

from bpvariants import updates


def test_the_printed_resilient_equation_does_not_descend():
    """With Δw(t) = −sgn(g) Δw(t−1) and g > 0, the weight moves back and forth."""
    weight, change, weights = 1.0, -0.1, []
    for _ in range(4):
        change = -jnp.sign(2 * weight).item() * change  # the gradient of w² at w > 0
        weight += change
        weights.append(weight)
    assert weights == pytest.approx([1.1, 1.0, 1.1, 1.0])

    optimizer, weight = updates.manhattan(0.1), jnp.array(1.0)
    state = optimizer.init(weight)
    for _ in range(4):
        change, state = optimizer.update(2 * weight, state)
        weight = weight + change
    assert weight == pytest.approx(0.6)
