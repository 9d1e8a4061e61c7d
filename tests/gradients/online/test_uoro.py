"""Tests of UORO: its mean over all random signs, and its published equations."""

import itertools
import math
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.online import _uoro


def given_signs(signs, leaves):
    """Use the argument `key` as the vector of random signs, the same for both examples.

    The gradient is a sum over examples. Therefore, its mean over all signs does not
    change if all examples have the same signs.
    """
    sizes = [math.prod(leaf.shape[1:]) for leaf in leaves]
    parts = jnp.split(signs, np.cumsum(sizes)[:-1])
    return [
        jnp.broadcast_to(part.reshape(1, *leaf.shape[1:]), leaf.shape)
        for part, leaf in zip(parts, leaves, strict=True)
    ]


@cache
def with_signs(step, loss):
    """Return a function from signs [sets, T, n] to one gradient estimate per set."""
    online = _uoro._with_signs(step, loss, given_signs)

    def estimate(signs, params, carry, xs, targets, initial, flags):
        def body(state, inputs):
            signs, x, target, flags = inputs
            value, grads, state = online.update(
                params, state, x, target, key=signs, **flags
            )
            return state, (value, grads)

        state = online.init(params, carry, (xs[0], targets[0]), initial=initial)
        sequence = signs, xs, targets, flags
        state, (values, grads) = jax.lax.scan(body, state, sequence)
        counts = jnp.where(flags["mask"], flags["weight"], 0).sum(1)
        total = lambda a: jnp.tensordot(counts / counts.sum(), a, axes=1)
        return (total(values), state.carry), jax.tree.map(total, grads)

    return jax.jit(jax.vmap(estimate, in_axes=(0, *[None] * 6)))


def all_signs(steps, numbers):
    """Return all combinations of signs, [combinations, steps + 1, numbers].

    The signs of the last step are NaN, because they are unused.
    """
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=steps * numbers)))
    signs = signs.reshape(-1, steps, numbers)
    return np.concatenate([signs, np.full_like(signs[:, :1], np.nan)], axis=1)


def lstm_problem():
    """Return an LSTM of two units with a nested carry and a counter, and arguments."""
    keys = iter(jax.random.split(jax.random.key(3), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape)

    def step(params, carry, x):
        (h, c), count = carry["state"], carry["count"]
        gates = h @ params["W"][0] + x @ params["W"][1] + params["b"][None]
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        y = h @ params["readout"] + x
        return {"state": (h, c), "count": count + 1}, y

    params = {
        "W": (normal(2, 8), normal(1, 8)),
        "b": normal(8),
        "readout": normal(2, 1),
    }
    begin = lambda: {"state": (normal(2, 2), normal(2, 2)), "count": jnp.zeros(2, int)}
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    return step, loss, (params, begin(), normal(3, 2, 1), jnp.ones((3, 2, 1))), begin()


def tanh_problem(make_problem):
    step, loss, args, options = make_problem("tanh", batch=(2,), T=3)
    return step, loss, args, options["initial"]


# Format: weight, mask, reset, for each of three steps and two examples.
PLAIN = [[1, 1]] * 3, [[1, 1]] * 3, [[0, 0]] * 3
FLAGGED = (
    [[1.0, 0.2], [0.5, 2.0], [0.3, 0.7]],
    [[1, 1], [1, 0], [1, 1]],
    [[0, 0], [0, 1], [0, 1]],
)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_the_mean_over_all_signs_is_bptt(make_problem, cell):
    problem = tanh_problem(make_problem) if cell == "tanh" else lstm_problem()
    step, loss, args, initial = problem
    signs = all_signs(2, 3 if cell == "tanh" else 4)
    exact = jax.jit(gradients.bptt(step, loss))
    for weight, mask, reset in (PLAIN, FLAGGED):
        flags = {
            "weight": jnp.array(weight, float),
            "mask": jnp.array(mask, bool),
            "reset": jnp.array(reset, bool),
        }
        want = exact(*args, *flags.values(), initial)
        got = with_signs(step, loss)(signs, *args, initial, flags)
        same = jax.tree.map(lambda a: np.stack([a] * len(signs)), want[0])
        chex.assert_trees_all_close(got[0], same, rtol=1e-12, atol=1e-13)
        mean = jax.tree.map(lambda g: np.mean(g, axis=0), got[1])
        chex.assert_trees_all_close(mean, want[1], rtol=1e-10, atol=1e-12)
        # Signs and their negatives give the same gradient, so antithetic sampling would
        # not reduce the variance.
        flipped = with_signs(step, loss)(-signs, *args, initial, flags)
        chex.assert_trees_all_equal(flipped[1], got[1])
        spread = [np.max(np.ptp(g, axis=0)) for g in jax.tree.leaves(got[1])]
        assert max(spread) > 1e-2  # single gradient estimates are far from the mean


def test_equations_as_printed(make_problem):
    """Compare UORO's state and gradient with its published equations in NumPy."""
    step, loss, args, _ = make_problem("tanh", batch=(), T=4)
    params, h, xs, targets = jax.tree.map(np.asarray, args)
    (recurrent, feedforward), readout = params["hidden"], params["readout"]
    online = gradients.uoro(step, loss)
    state = online.init(params, h, (xs[0], targets[0]))
    update = jax.jit(online.update)
    s, theta, eps = np.zeros(3), [np.zeros((3, 3)), np.zeros((2, 3))], 1e-7
    length = lambda parts: np.sqrt(sum(np.sum(part**2) for part in parts))
    for t in range(4):
        key = jax.random.key(t)
        (signs,) = _uoro.signs_like(key, state.carry_factor)
        assert set(np.abs(signs)) == {1.0}
        _, grads, state = update(params, state, xs[t], targets[t], key=key)

        old, h = h, np.tanh(h @ recurrent + xs[t] @ feedforward)
        slope = 1 - h**2
        error = 2 * (h @ readout - targets[t])
        into_h = (error @ readout.T) * slope
        scale = (into_h @ recurrent.T) @ s
        want = [np.outer(old, into_h), np.outer(xs[t], into_h)]
        want = [direct + scale * part for direct, part in zip(want, theta, strict=True)]
        chex.assert_trees_all_close(list(grads["hidden"]), want, rtol=1e-10)
        chex.assert_trees_all_close(grads["readout"], np.outer(h, error), rtol=1e-10)

        pushed = (s @ recurrent) * slope
        pulled = [np.outer(old, signs * slope), np.outer(xs[t], signs * slope)]
        rho_0 = np.sqrt((length(theta) + eps) / (length([pushed]) + eps))
        rho_1 = np.sqrt((length(pulled) + eps) / (length([signs]) + eps))
        s = rho_0 * pushed + rho_1 * np.asarray(signs)
        theta = [a / rho_0 + b / rho_1 for a, b in zip(theta, pulled, strict=True)]
        chex.assert_trees_all_close(state.carry_factor, [s], rtol=1e-10)
        factors = list(state.params_factor["hidden"])
        chex.assert_trees_all_close(factors, theta, rtol=1e-10)


def test_nothing_is_kept_of_what_does_not_reach_the_carry(make_problem):
    step, loss, args, _ = make_problem("tanh", batch=(2, 3))
    params, carry, xs, targets = args
    online = gradients.uoro(step, loss)
    state = jax.eval_shape(online.init, params, carry, (xs[0], targets[0]))
    assert state.params_factor["readout"] is None
    shapes = [part.shape for part in state.params_factor["hidden"]]
    assert shapes == [(2, 3, 3, 3), (2, 3, 2, 3)]
    assert [part.shape for part in state.carry_factor] == [(2, 3, 3)]


@pytest.mark.slow
def test_signs_are_drawn_for_each_example(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh", batch=(3,))
    online = gradients.uoro(step, loss)
    alike = lambda a: jnp.broadcast_to(a[:1], a.shape)
    x, target, carry = alike(xs[0]), alike(targets[0]), alike(carry)
    state = online.init(params, carry, (x, target))
    update = jax.jit(online.update)
    _, _, state = update(params, state, x, target, key=jax.random.key(0))
    signs = np.sign(np.asarray(state.carry_factor[0]))
    assert len({tuple(row) for row in signs}) == 3


def test_states_and_parameters_may_differ_in_dtype_or_be_missing():
    half_square = lambda y, target: (y - target) ** 2 / 2

    # This step mixes float32 and float64, and does not use one of its parameters.
    def step(params, carry, x):
        wide, narrow = carry
        wide = jnp.tanh(params["a"] * wide + x)
        narrow = jnp.tanh(params["b"] * narrow + x.astype(jnp.float32))
        return (wide, narrow), wide + narrow.astype(float)

    params = {"a": jnp.array(0.5), "b": jnp.array(0.3, jnp.float32), "no": jnp.ones(2)}
    carry = jnp.array(0.1), jnp.array(0.2, jnp.float32)
    xs, targets = jnp.ones(4), jnp.zeros(4)
    rule = jax.jit(gradients.over_sequence(gradients.uoro(step, half_square)))
    value, grads = rule(params, carry, xs, targets, key=jax.random.key(0))
    rule = jax.jit(gradients.bptt(step, half_square))
    want, exact = rule(params, carry, xs, targets)
    chex.assert_trees_all_close(value, want, rtol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, exact)
    assert np.all(grads["no"] == 0)


def test_inputs_are_asked_for(make_problem):
    step, loss, (params, carry, xs, _), _ = make_problem("tanh")
    with pytest.raises(ValueError, match=r"inputs must be the pair \(x, target\)"):
        gradients.uoro(step, loss).init(params, carry, xs[0])


def test_richer_inputs_than_init_was_given_are_refused_not_dropped():
    def step(params, h, x):
        h = jnp.tanh(h * params["w"] + x[0])
        return (h + params["b"], h) if x.size == 3 else (h, h)

    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    rule = gradients.uoro(step, lambda y, target: jnp.sum((y - target) ** 2))
    target, key = jnp.ones(2), jax.random.key(0)
    state = rule.init(params, jnp.ones(2), (jnp.ones(2), target))
    with pytest.raises(ValueError, match=r"params\['b'\] reaches the carry now"):
        rule.update(params, state, jnp.ones(3), target, key=key)
