"""Tests of GRprop, against a loop as in R's neuralnet, and of probabilistic Rprop."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import updates
from bpvariants.updates.resilient._probabilistic_rprop import _normal_cdf


def neuralnet(choose, grads, size=0.1, least=1e-10, greatest=0.1, delta=1e-6):
    """Update one vector of weights as R's package neuralnet does, in plain Python."""
    n = len(grads[0])
    steps, last = [size] * n, [0.0] * n
    for grad in grads:
        for i in range(n):
            product = grad[i] * last[i]
            if product > 0:
                steps[i] = min(steps[i] * 1.2, greatest)
            elif product < 0:
                steps[i] = max(steps[i] * 0.5, least)
        moving = [i for i in range(n) if grad[i] != 0]
        if moving:
            rank = lambda i: abs(grad[i]) if choose == "sag" else steps[i]  # noqa: B023
            q = min(moving, key=rank)
            others = sum(steps[i] * grad[i] for i in moving if i != q) + delta
            steps[q] = min(max(-others / grad[q], least), greatest)
        yield [
            -math.copysign(s, g) if g else 0.0 for s, g in zip(steps, grad, strict=True)
        ]
        last = list(grad)


@pytest.mark.parametrize("choose", ["sag", "slr"])
@pytest.mark.parametrize("greatest", [0.1, 50.0])
def test_grprop_is_what_neuralnet_does(choose, greatest):
    grads = np.array(jax.random.normal(jax.random.key(0), (40, 7)))
    grads[::7] = 0.0
    grads[3, 2:5] = 0.0
    optimizer = updates.grprop(0.1, max_step_size=greatest, choose=choose)
    split = lambda g: {"a": jnp.array(g[:2]), "b": [jnp.array(g[2:]).reshape(1, 5)]}
    state = optimizer.init(split(grads[0]))
    update = jax.jit(optimizer.update)
    for g, want in zip(
        grads, neuralnet(choose, grads.tolist(), greatest=greatest), strict=True
    ):
        step, state = update(split(g), state)
        got = np.concatenate([step["a"], step["b"][0][0]])
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("choose", ["sag", "slr"])
def test_thousands_of_grprop_updates_are_those_of_neuralnet(choose):
    draw = np.random.default_rng(8)
    grads = draw.normal(size=(2000, 7)) * 10.0 ** draw.integers(-6, 6, (2000, 7))
    grads[draw.random(grads.shape) < 0.2] = 0
    optimizer = updates.grprop(0.1, max_step_size=9.0, choose=choose)
    body = lambda state, g: optimizer.update(g, state)[::-1]
    _, got = jax.jit(lambda gs: jax.lax.scan(body, optimizer.init(gs[0]), gs))(
        jnp.array(grads)
    )
    want = list(neuralnet(choose, grads.tolist(), greatest=9.0))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-14)


def test_grprop_with_nothing_to_choose_from():
    optimizer = updates.grprop()
    for params in ({}, jnp.zeros((0, 2))):
        step, _ = optimizer.update(params, optimizer.init(params))
        assert jax.tree.all(jax.tree.map(lambda leaf: leaf.size == 0, step))
    with pytest.raises(ValueError, match="'sag' or 'slr', got 'asg'"):
        updates.grprop(choose="asg")


@pytest.mark.parametrize("choose", ["sag", "slr"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_grprop_after_infinite_gradients_is_the_limit_of_large_ones(choose, dtype):
    """Check that infinite gradients act like the limit of large finite gradients.

    Sums of finite gradients may overflow, too. In both cases, no NaN may stay in the
    state.
    """
    inf, top = np.inf, float(jnp.finfo(dtype).max)
    # A power of two: its products with step sizes are exact, so that terms of opposite
    # sign cancel, also where XLA fuses a product and a sum.
    big = 2.0**30
    optimizer = updates.grprop(
        0.1, min_step_size=1e-6, max_step_size=5.0, choose=choose
    )
    update = jax.jit(optimizer.update)
    for bad, like in {
        (inf, -inf, 1.0, -2.0): (big, -big, 1.0, -2.0),
        (inf, 1.0, 0.0, -2.0): (big, 1.0, 0.0, -2.0),
        (-inf, 1.0, -1.0, 2.0): (-big, 1.0, -1.0, 2.0),
        (inf, inf, -inf, 0.0): (big, big, -big, 0.0),
        (0.0, inf, -inf, inf): (0.0, big, -big, big),
        (top, top, -top, -top): (4.0, 4.0, -4.0, -4.0),
        (top, -top, -top, -top): (4.0, -4.0, -4.0, -4.0),
    }.items():
        # Start from different step sizes. With choose="slr", GRprop would select one of
        # several equal step sizes by their rounding errors.
        if choose == "slr":
            first = optimizer.init(jnp.zeros(4, dtype))
            first = first._replace(step_sizes=jnp.array([0.1, 0.11, 0.09, 0.12], dtype))
        else:
            first = optimizer.init(jnp.zeros(4, dtype))
        results = []
        for grads in (bad, like):
            step, state = update(jnp.array(grads, dtype), first)
            assert np.isfinite(state.step_sizes).all()
            results.append((step, update(jnp.ones(4, dtype), state)[0]))
        chex.assert_trees_all_close(*results, rtol=1e-5)


def test_grprop_discards_all_of_a_gradient_with_a_nan():
    optimizer = updates.grprop()
    _, state = optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)))
    step, after = optimizer.update(jnp.array([jnp.inf, jnp.nan, 1.0]), state)
    assert np.isnan(step).all()
    chex.assert_trees_all_equal(after, state)


FACTORS = {
    "exponential": lambda flip: math.exp(-2 * math.log(1.2) * (flip - 0.5)),
    "linear": lambda flip: 0.5 * flip + 1.2 * (1 - flip),
    "step": lambda flip: 0.5 if flip > 0.5 else 1.2 if flip < 0.5 else 1.0,
}


def probabilistic(adapt, move, grads, decay, size=0.01, least=1e-9, greatest=0.05):
    """Update one weight by probabilistic Rprop, with Python's error function."""
    mean = square = 0.0
    last = 0.5
    for t, g in enumerate(grads, 1):
        mean = decay * mean + (1 - decay) * g
        square = decay * square + (1 - decay) * g * g
        m, v = mean / (1 - decay**t), square / (1 - decay**t)
        variance = v - m * m
        if variance > 1e-14 * v:
            p = (1 + math.erf(m / math.sqrt(2 * variance))) / 2
        else:
            p = (1 + np.sign(m)) / 2
        flip = p * (1 - last) + last * (1 - p)
        size = min(max(size * FACTORS[adapt](flip), least), greatest)
        yield -size * (np.sign(m) if move == "sign" else 2 * p - 1)
        last = p


@pytest.mark.parametrize("adapt", FACTORS)
@pytest.mark.parametrize("move", ["sign", "expected"])
def test_probabilistic_rprop_is_its_equations(adapt, move):
    grads = jax.random.normal(jax.random.key(0), (60,)) + jnp.sin(jnp.arange(60) / 7)
    optimizer = updates.probabilistic_rprop(0.01, ema_decay=0.9, adapt=adapt, move=move)
    body = lambda state, g: optimizer.update(g, state)[::-1]
    _, got = jax.lax.scan(body, optimizer.init(grads[0]), grads)
    want = list(probabilistic(adapt, move, grads.tolist(), 0.9))
    # In the first step, the average v of squared gradients equals m², the square of the
    # average gradient, up to rounding. Therefore, the probability p is 0 or 1 in both.
    np.testing.assert_allclose(got[1:], want[1:], rtol=1e-9)
    assert np.sign(got[0]) == np.sign(want[0])


def test_with_certain_signs_it_is_rprop_minus():
    """Compare probabilistic Rprop with Rprop− in a case where p is always 0 or 1.

    Here p is the probability of a positive gradient, and ρ is the probability of a sign
    change. With the decay μ = 0, the moving averages are the last gradient and its
    square. The standard deviation s is then 0, and ρ is 1 at a sign change, else 0.
    """
    grads = jnp.array([1.0, 2.0, 0.5, -1.0, -3.0, 1.0, 1.0, 1.0])
    settings = {"min_step_size": 1e-9, "max_step_size": 0.05}
    results = []
    for optimizer in (
        updates.probabilistic_rprop(0.01, ema_decay=0.0, adapt="step", **settings),
        updates.rprop_minus(0.01, **settings),
    ):
        body = lambda state, g, o=optimizer: o.update(g, state)[::-1]
        results.append(jax.lax.scan(body, optimizer.init(grads[0]), grads)[1])
    np.testing.assert_allclose(*results, rtol=1e-12)


def test_noise_shrinks_steps_and_a_clear_sign_grows_them():
    optimizer = updates.probabilistic_rprop(0.01, adapt="linear")
    noise = jax.random.normal(jax.random.key(0), (2000, 2)) + jnp.array([[0.0, 3.0]])
    body = lambda state, g: optimizer.update(g, state)[::-1]
    state, _ = jax.lax.scan(body, optimizer.init(noise[0]), noise)
    assert state.step_sizes[1] == pytest.approx(0.05)
    assert state.step_sizes[0] < 1e-6


def test_mistakes_in_probabilistic_rprop_are_named():
    with pytest.raises(ValueError, match=r"ema_decay < 1, got 1.0"):
        updates.probabilistic_rprop(0.1, ema_decay=1.0)
    with pytest.raises(ValueError, match=r"adapt must be one of .*'linear'"):
        updates.probabilistic_rprop(0.1, adapt="exp")
    with pytest.raises(ValueError, match=r"move must be one of .*'expected'"):
        updates.probabilistic_rprop(0.1, move="mean")


@pytest.mark.parametrize("scale", [2.0**-90, 2.0**90])
@pytest.mark.parametrize("move", ["sign", "expected"])
def test_the_unit_of_gradients_does_not_matter(scale, move):
    """Use gradients whose squares are 0 or infinite in float32."""
    grads = jax.random.normal(jax.random.key(0), (40, 2), jnp.float32) + 0.5
    optimizer = updates.probabilistic_rprop(0.01, ema_decay=0.9, move=move)
    body = lambda state, g: optimizer.update(g, state)[::-1]
    run = lambda grads: jax.lax.scan(body, optimizer.init(grads[0]), grads)[1]
    np.testing.assert_allclose(run(scale * grads), run(grads), rtol=1e-4)


@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
def test_what_is_not_finite_is_loud_and_left_out(bad):
    optimizer = updates.probabilistic_rprop(0.01)
    before = optimizer.init(jnp.zeros(2, jnp.float32))
    step, state = optimizer.update(jnp.array([bad, 1.0], jnp.float32), before)
    assert np.isnan(step).all()
    chex.assert_trees_all_equal(state, before)


def test_the_normal_distribution_function_is_as_exact_as_stated():
    x = np.linspace(-9, 9, 20001)
    want = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in x])
    for dtype, error in ((jnp.float32, 4e-7), (jnp.float64, 3e-15)):
        got = _normal_cdf(jnp.asarray(x, dtype))
        assert np.max(np.abs(np.asarray(got, float) - want)) < error
        assert (got[0], got[-1]) == (0, 1)
