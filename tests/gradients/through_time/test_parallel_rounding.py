"""Newton's method stops when only rounding errors of the step are left."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

FULL, TF32, BF16 = 23, 10, 7  # bits of the mantissas of factors in a product


def rounded(array, bits):
    """Round to `bits` bits of mantissa (Veltkamp); the derivative is the identity's."""
    array_, factor = jax.lax.stop_gradient(array), 2.0 ** (23 - bits) + 1.0
    scaled = array_ * jnp.asarray(factor, array.dtype)
    return array + jax.lax.stop_gradient(scaled - (scaled - array_) - array_)


def step(params, h, x):
    w, bits = params
    product = jnp.dot(rounded(h, bits), rounded(w, bits), precision="highest")
    h = jnp.tanh(product + x)
    return h, h


def network(gain, n=4, T=200):
    """Return weights w with ‖w‖ = gain, and inputs of T steps."""
    keys = jax.random.split(jax.random.key(0))
    w = jax.random.normal(keys[0], (n, n), "float32")
    xs = jax.random.normal(keys[1], (T, n), "float32") / 2
    return gain * w / jnp.linalg.norm(w, 2), xs


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
@pytest.mark.slow
def test_coarse_products_take_few_iterations(jacobian):
    w, xs = network(0.9)
    method = gradients.newton(jacobian)

    @jax.jit
    def run(w, bits):
        def value(run):
            (_, ys), *info = run(step, (w, bits), jnp.zeros(4, "float32"), xs)
            return jnp.sum(ys**2), (ys, info)

        return value(partial(gradients.parallel_unroll, method=method))

    @jax.jit
    def in_order(w, bits):
        return gradients.unroll(step, (w, bits), jnp.zeros(4, "float32"), xs)[1]

    _, (_, (info,)) = run(w, FULL)
    plain = info.steps
    for bits in (TF32, BF16):
        _, (ys, (info,)) = run(w, bits)
        assert info.converged
        assert not info.fell_back
        assert info.steps <= plain + 12
        np.testing.assert_allclose(ys, in_order(w, bits), rtol=0, atol=8 * 0.5**bits)


@pytest.mark.parametrize("bits", [FULL, TF32])
@pytest.mark.slow
def test_chaos_is_not_taken_for_rounding(bits):
    """Rounding errors grow along a chaotic trajectory, so the steps run in order."""
    w, xs = network(8.0)
    args = step, (w, bits), jnp.zeros(4, "float32"), 0.1 * xs
    (_, ys), info = gradients.parallel_unroll(*args, method="newton")
    assert info.fell_back
    np.testing.assert_allclose(ys, gradients.unroll(*args)[1], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_rounding_of_one_leaf_does_not_hide_that_another_moves():
    """One leaf follows a chaotic map; the products of the other leaf are rounded."""

    def both(params, carry, x):
        h, u = carry
        return (step(params, h, x)[0], 4 * u * (1 - u)), u

    w, xs = network(0.9, T=120)
    args = both, (w, TF32), (jnp.zeros(4, "float32"), jnp.float32(0.3)), xs
    (_, us), info = gradients.parallel_unroll(*args, method="newton")
    assert info.fell_back
    np.testing.assert_allclose(us, gradients.unroll(*args)[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-24, 1e24])
@pytest.mark.slow
def test_jumps_are_no_rounding(scale):
    """The small unit keeps one bit, so Newton is right for one more step at a time.

    The squares of carries near 1e-24 and 1e24 underflow and overflow in float32.
    """

    def step(_, h, x):
        bit = jnp.where(h[1] < 0, -0.01, 0.01).astype(x.dtype)
        h = scale * jnp.stack([jnp.ones((), x.dtype), bit * jnp.sign(x)])
        return h, h

    xs = jax.random.normal(jax.random.key(0), (80,), "float32")
    args = step, 0.0, scale * jnp.array([1.0, 0.01], "float32"), xs
    (_, ys), info = gradients.parallel_unroll(*args, method="newton")
    np.testing.assert_array_equal(ys, gradients.unroll(*args)[1])
    assert info.converged
    assert info.steps > 70
