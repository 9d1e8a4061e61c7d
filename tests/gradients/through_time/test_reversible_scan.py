"""Tests of `backward="reversible"`: its gradient, its memory, and its failures."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bpvariants import cells, gradients

D, N, M = 2, 3, 2
squares = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
reversible = partial(gradients.bptt, backward="reversible")


def readout(matrix, carry, x):
    return carry, x @ matrix


STACK = gradients.stack([cells.reversible_gru, cells.reversible_gru, readout])


def problem(T, batch=(3,), dtype=float, units=N):
    """Return (params, carry, xs, targets) of two reversible layers and a readout."""
    keys = iter(jax.random.split(jax.random.key(0), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    init = partial(cells.reversible_gru.init, dtype=dtype)
    params = (
        init(next(keys), D, units),
        init(next(keys), 2 * units, units),
        normal(2 * units, M),
    )
    halves = lambda: (normal(*batch, units), normal(*batch, units))
    carry = halves(), halves(), ()
    return params, carry, normal(T, *batch, D), normal(T, *batch, M)


def error(got, want):
    got, want = (ravel_pytree(tree)[0] for tree in (got, want))
    return jnp.linalg.norm(got - want) / jnp.linalg.norm(want)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("T", "batch", "dtype", "most"),
    [
        (1, (), float, 1e-12),
        (12, (3,), float, 1e-12),
        (40, (2, 1), float, 1e-12),
        (12, (3,), jnp.float32, 1e-6),
        (40, (3,), jnp.float32, 1e-5),
    ],
)
def test_gradients_are_those_of_bptt(T, batch, dtype, most):
    args = problem(T, batch, dtype)
    got, grads = jax.jit(reversible(STACK, squares))(*args)
    want, exact = jax.jit(gradients.bptt(STACK, squares))(*args)
    chex.assert_trees_all_close(got, want, rtol=10 * most)
    assert error(grads, exact) < most
    assert jnp.all(jnp.isfinite(ravel_pytree(grads)[0]))


@pytest.mark.slow
def test_padding_and_weights():
    args = problem(6)
    mask = gradients.mask_from_lengths(jnp.array([6, 3, 0]), 6)
    xs = jnp.where(mask[..., None], args[2], jnp.nan)
    weights = jax.random.uniform(jax.random.key(3), (6, 3), float)
    given = *args[:2], xs, args[3], weights, mask
    got = jax.jit(reversible(STACK, squares))(*given)
    want = jax.jit(gradients.bptt(STACK, squares))(*given)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_gradients_flow_to_carry_inputs_and_closures():
    params, carry, xs, targets = problem(5)

    def value(scale, params, carry, xs, backward):
        class Step:
            def __call__(self, params, carry, x):
                return STACK(params, carry, scale * x)

            def inverse(self, params, carry, x):
                return STACK.inverse(params, carry, scale * x)

        last, ys = gradients.unroll(Step(), params, carry, xs, backward=backward)
        return jnp.sum(squares(ys, targets)) + jnp.sum(last[0][0] ** 2)

    args = jnp.array(0.7), params, carry, xs
    of = lambda backward: jax.jit(
        jax.grad(partial(value, backward=backward), (0, 1, 2, 3))
    )(*args)
    chex.assert_trees_all_close(of("reversible"), of("scan"), rtol=1e-10, atol=1e-13)


def temporary_bytes(T):
    args = problem(T, (4,), jnp.float32, 16)
    program = jax.jit(reversible(STACK, squares)).lower(*args).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_depend_on_the_number_of_steps():
    few, many = map(temporary_bytes, (10, 10_000))
    assert abs(np.log(many / few) / np.log(1000)) < 0.02


@pytest.mark.slow
def test_carries_that_are_lost_make_gradients_nan():
    args = problem(600, (), jnp.float32)
    (value, _), grads = jax.jit(reversible(STACK, squares))(*args)
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isnan(ravel_pytree(grads)[0]))


class Spread:
    """The carry moves away from a point, or towards it: h ← b + a (h − b)."""

    def __call__(self, w, h, x):
        a, b = x
        h = b + a * (h - b)
        return h, w * h

    def inverse(self, w, h, x):
        a, b = x
        return (h - b) / a + b


@pytest.mark.parametrize("repeats", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_errors_that_vanish_before_the_first_step_make_gradients_nan(repeats):
    """Rounding errors grow by 10⁷ on the way back, and then shrink by 10⁷."""
    k = 7 * repeats
    factor = 10.0 ** (1 / repeats)
    a = jnp.repeat(jnp.array([factor, 1 / factor], jnp.float32), k)
    b = jnp.repeat(jnp.array([0.0, 5.0], jnp.float32), k)
    loss = lambda y, target: (y - target) ** 4
    one = jnp.ones([], jnp.float32)
    args = one, one * 1e-7, (a, b), jnp.zeros(2 * k, jnp.float32)
    assert jnp.isfinite(gradients.bptt(Spread(), loss)(*args)[1])
    assert jnp.isnan(reversible(Spread(), loss)(*args)[1])
    wide = jax.tree.map(lambda leaf: leaf.astype(float), args)
    _, got = reversible(Spread(), loss)(*wide)
    np.testing.assert_allclose(got, gradients.bptt(Spread(), loss)(*wide)[1], rtol=1e-6)


class Units:
    """One part of the carry is 10⁹ times as large as the other."""

    def __call__(self, w, h, x):
        large, small = h
        small = 0.5e-6 * jnp.tanh(1e6 * small) + w * x
        return (large, small), 1e6 * small

    def inverse(self, w, h, x):
        large, small = h
        return large, 1e-6 * jnp.arctanh(
            jnp.clip(2e6 * (small - w * x), -0.9999, 0.9999)
        )


def test_errors_of_a_small_part_of_the_carry_make_gradients_nan():
    xs = 1e-6 * np.random.default_rng(0).normal(size=24)
    args = 1.0, (1000.0, 1e-6), xs, np.zeros(24)
    loss = lambda y, target: (y - target) ** 2
    args = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), args)
    assert jnp.isfinite(gradients.bptt(Units(), loss)(*args)[1])
    assert jnp.isnan(reversible(Units(), loss)(*args)[1])
    few = *args[:2], *(leaf[:4] for leaf in args[2:])
    got, want = (rule(Units(), loss)(*few)[1] for rule in (reversible, gradients.bptt))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_a_wrong_inverse_makes_gradients_nan():
    class Doubled:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, w, h, x):
            return 2 * h + w * x, h

        def inverse(self, w, h, x):
            return (h - w * x) / self.factor

    loss = lambda y, target: (y - target) ** 2
    args = jnp.array(0.5), jnp.array(1.0), jnp.ones(4), jnp.zeros(4)
    _, want = gradients.bptt(Doubled(2), loss)(*args)
    _, got = reversible(Doubled(2), loss)(*args)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    _, got = reversible(Doubled(3), loss)(*args)
    assert jnp.isnan(got)


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match=r"^step must have a method inverse.*rema"):
        reversible(cells.gru, squares)
    with pytest.raises(ValueError, match=r"^remat must be None with backward='rever"):
        reversible(STACK, squares, remat="step")
    args = problem(2)
    with pytest.raises(ValueError, match=r"^reset must be None with backward='rever"):
        reversible(STACK, squares)(*args, reset=jnp.zeros((2, 3), bool))
    params = cells.gru.init(jax.random.key(0), D, N, dtype=float)
    mixed = gradients.stack([cells.gru, readout])
    with pytest.raises(ValueError, match=r"steps\[0\] must have a method inverse"):
        reversible(mixed, squares)(
            (params, jnp.ones((N, M))), (jnp.zeros((3, N)), ()), *args[2:]
        )
    with pytest.raises(ValueError, match=r"^step must have a method inverse"):
        gradients.unroll(
            cells.gru, params, jnp.zeros((3, N)), args[2], backward="reversible"
        )
    with pytest.raises(ValueError, match=r"^carry must be \(a, b\), two arrays"):
        cells.reversible_gru(args[0][0], jnp.zeros((3, N)), args[2][0])
