"""Tests of the precision of matrix products in a map whose fixed point is found."""

from functools import partial

import jax
import jax.numpy as jnp

from bpvariants import gradients

W, X = 0.3 * jnp.eye(2, dtype="float32"), jnp.ones((2, 2), "float32")


def products(f, how):
    """Count all matrix products of a gradient, and those in full precision."""
    if how == "fixed_point":
        value = lambda W: jnp.sum(gradients.fixed_point(f, W, 0 * X, X).h)
        program = jax.jit(jax.grad(value)).lower(W).as_text()
    else:
        rule = gradients.recurrent_backprop(f, lambda h, t: jnp.sum(h, axis=-1))
        program = jax.jit(rule).lower(W, 0 * X, X, X).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    precise = [line for line in products if "[HIGHEST, HIGHEST]" in line]
    return len(products), len(precise)


def settle(W, h, x, precision=None):
    return jnp.tanh(jnp.dot(h, W, precision=precision) + x)


def test_products_are_precise_by_default_and_as_asked_otherwise():
    for how in ("fixed_point", "recurrent_backprop"):
        total, precise = products(settle, how)
        assert total == precise > 3
        with jax.default_matmul_precision("bfloat16"):
            assert products(settle, how) == (total, 0)
        of_its_own = partial(settle, precision="default")
        assert products(of_its_own, how) == (total, 0)
