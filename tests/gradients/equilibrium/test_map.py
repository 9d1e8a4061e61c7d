"""Tests of errors for a map f with wrong shapes or a wrong order of arguments."""

import jax
import jax.numpy as jnp
import pytest

from bpvariants import gradients

W, U = 0.1 * jnp.ones((3, 3)), jnp.ones((2, 3))
X, H = jnp.ones(2), jnp.zeros(3)
F_REVERSED = r"f\(params, h, x\), as a step does; with .* only f\(params, x, h\)"
INIT_REVERSED = "init must come before x.* Exchange init and x"


def settle(params, h, x):
    return jnp.tanh(h @ W + x @ U)


def reversed_map(params, x, h):
    return settle(params, h, x)


@pytest.mark.parametrize(
    ("f", "args", "message"),
    [
        (reversed_map, (H, X), F_REVERSED),
        (settle, (X, H), INIT_REVERSED),
        (reversed_map, (X, H), INIT_REVERSED),
    ],
    ids=["f", "init and x", "both"],
)
def test_a_reversed_order_is_named(f, args, message):
    with pytest.raises(ValueError, match=message):
        gradients.fixed_point(f, 0.0, *args)


def test_a_reversed_map_is_named_by_whoever_takes_it():
    rule = gradients.recurrent_backprop(reversed_map, lambda h, t: jnp.sum(h))
    with pytest.raises(ValueError, match=F_REVERSED):
        rule(0.0, H, X, H)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=F_REVERSED):
        gradients.jacobian_penalty(reversed_map, 0.0, H, X, key)


def test_other_mistakes_in_a_map_are_told_as_they_are():
    with pytest.raises(ZeroDivisionError):
        gradients.fixed_point(lambda params, h, x: h * (1 // 0), 0.0, H, X)
    # This map accepts its arguments in both orders, because it broadcasts them. The
    # mistake is the shape of `init`.
    with pytest.raises(ValueError, match="the result of f must have the structure"):
        gradients.fixed_point(lambda w, h, x: w * h + x, 0.5, jnp.zeros(()), X)
    with pytest.raises(ValueError, match=r"of init, float64\[3\]; got float32\[3\]"):
        gradients.fixed_point(lambda w, h, x: h.astype("float32"), 0.5, H, X)


def test_the_state_is_the_second_argument_where_shapes_cannot_tell():
    f = lambda w, h, x: w * h + x  # the fixed point is x / (1 − w)
    h, info = gradients.fixed_point(f, 0.5, 0.0, 3.0, tol=1e-12)
    assert info.converged
    assert abs(h - 6.0) < 1e-10
    penalty = gradients.jacobian_penalty(
        lambda w, h, x: w * h + 7 * x, 0.5, H, H, jax.random.key(0)
    )
    assert penalty == 0.25


def test_a_state_of_another_width_is_named():
    wide, told = jnp.zeros(5), r"init of shapes \[\(5,\)\] and x of .*: dot_general"
    with pytest.raises(ValueError, match=rf"{told}.* init must have the shapes"):
        gradients.fixed_point(settle, 0.0, wide, X)
    rule = gradients.recurrent_backprop(settle, lambda h, t: jnp.sum((h - t) ** 2))
    with pytest.raises(ValueError, match=told):
        rule(0.0, wide, X, H)
    with pytest.raises(ValueError, match=r"with h of shapes \[\(5,\)\]"):
        gradients.jacobian_penalty(settle, 0.0, wide, X, jax.random.key(0))


def test_a_step_is_no_map():
    step = lambda params, h, x: (settle(params, h, x), h)
    with pytest.raises(ValueError, match=r"tuple of 2 .* give lambda .*\)\[0\]"):
        gradients.fixed_point(step, 0.0, H, X)
