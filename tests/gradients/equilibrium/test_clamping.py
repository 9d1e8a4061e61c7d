"""Tests of clamping: which functions select outputs, and what replaces them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants.gradients.equilibrium._clamping import clamp_at

STATE = {"hidden": jnp.arange(6.0).reshape(2, 3), "out": jnp.arange(4.0).reshape(2, 2)}


def test_outputs_are_replaced_and_all_else_is_kept():
    clamp = clamp_at(lambda h: (h["hidden"][..., 1:], h["out"][..., ::-1]), STATE)
    y = jnp.array([[10.0, 11], [12, 13]]), jnp.array([[20.0, 21], [22, 23]])
    h = jax.jit(clamp)(STATE, y)
    np.testing.assert_array_equal(h["hidden"], [[0, 10, 11], [3, 12, 13]])
    np.testing.assert_array_equal(h["out"], [[21, 20], [23, 22]])


def test_kept_elements_may_be_nan():
    h = jnp.array([jnp.nan, 1.0, 2.0])
    clamp = clamp_at(lambda h: h[1:2], h)
    np.testing.assert_array_equal(clamp(h, jnp.array([5.0])), [jnp.nan, 5, 2])


def test_many_outputs_in_a_short_dtype():
    """Probes above 256 are rounded in bfloat16; they are still checked correctly."""
    h = jnp.zeros(600, jnp.bfloat16)
    new = clamp_at(lambda h: h[100:], h)(h, jnp.ones(500, jnp.bfloat16))
    np.testing.assert_array_equal(new.astype(float), np.arange(600) >= 100)


@pytest.mark.parametrize(
    "outputs",
    [
        lambda h: h["out"] + 1,
        lambda h: 2 * h["out"],
        lambda h: -h["out"],
        lambda h: jnp.tanh(h["out"]),
        lambda h: (h["out"], h["out"]),
        lambda h: h["out"][..., :1] + h["out"][..., 1:],
        lambda h: h["out"][..., :0],
        lambda h: 0 * h["out"],
    ],
    ids=["shift", "scale", "sign", "tanh", "twice", "sum", "none", "zero"],
)
def test_other_functions_of_the_state_are_refused(outputs):
    with pytest.raises(ValueError, match="outputs must select different elements"):
        clamp_at(outputs, STATE)
