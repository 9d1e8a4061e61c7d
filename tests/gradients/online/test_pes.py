"""Tests of persistent evolution strategies (PES), with all possible random signs."""

import itertools
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients
from bpvariants.gradients.online import _pes

T, P = 4, 2  # Numbers of steps and of parameters.


def curved(params, h, x):  # the carry does not depend on the readout
    h = jnp.tanh(params["recurrent"] * h + x)
    return h, params["readout"] * h


def straight(params, h, x):
    h = h + params["recurrent"] * x
    return h, h + params["readout"] * x


LOSSES = {
    curved: lambda y, target: (y - target) ** 2,
    straight: lambda y, target: y * target,
}


def problem():
    params = {"readout": jnp.array(1.3), "recurrent": jnp.array(0.8)}
    t = jnp.arange(1.0, T + 1)[:, None]
    xs, targets = jnp.sin(t * jnp.array([[0.7, 0.4]])), jnp.cos(t * jnp.ones((1, 2)))
    flags = {
        "weight": jnp.array([[1, 0.5], [0.2, 1], [1, 1], [2, 0.1]]),
        "mask": jnp.array([[1, 1], [1, 0], [1, 1], [1, 1]], bool),
        "reset": jnp.array([[0, 0], [0, 1], [1, 0], [0, 0]], bool),
    }
    return params, jnp.array([0.2, -0.1]), xs, targets, flags


def given_signs(signs, leaves, _):
    """Return the signs that are given as the key, instead of drawing signs."""
    return [sign.reshape(leaf.shape) for sign, leaf in zip(signs, leaves, strict=True)]


@cache
def estimates(step, window):
    """Return a function (sigma, flags) -> gradient estimates, one per set of signs."""
    params, carry, xs, targets, _ = problem()
    drawn = -(-T // window)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=drawn * P)))
    signs = jnp.array(np.repeat(signs.reshape(-1, drawn, P), window, axis=1)[:, :T])

    def along(signs, sigma, flags):
        online = gradients.pes(step, LOSSES[step], pairs=1, sigma=sigma, window=window)

        def body(state, inputs):
            signs, x, target, flags = inputs
            _, grads, state = online.update(
                params, state, x, target, key=signs, **flags
            )
            return state, grads

        state = online.init(params, carry, (xs[0], targets[0]))
        _, grads = jax.lax.scan(body, state, (signs, xs, targets, flags))
        counts = jnp.where(flags["mask"], flags["weight"], 0).sum(1)
        return jax.tree.map(lambda g: jnp.tensordot(counts / counts.sum(), g, 1), grads)

    return jax.jit(lambda *args: jax.vmap(along, (0, None, None))(signs, *args))


def mean(step, window, sigma, flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pes, "draw_like", given_signs)
        return jax.tree.map(
            lambda g: g.mean(0), estimates(step, window)(jnp.array(sigma), flags)
        )


@cache
def exact(step):
    return jax.jit(gradients.bptt(step, LOSSES[step]))


NO_RESET = jnp.zeros((T, 2), bool)
ALL_RESET = jnp.zeros((T, 2), bool).at[2].set(True)


@pytest.mark.parametrize("window", [1, 2, T])
@pytest.mark.parametrize("together", [False, True])
def test_mean_over_all_signs(window, together):
    *args, flags = problem()
    flags = flags | ({"reset": ALL_RESET} if together else {})
    for step, sigma in ((straight, 1.0), (curved, 1e-4)):
        _, want = exact(step)(*args, *flags.values())
        tolerance = 1e-10 if step is straight else 1e-6
        got = mean(step, window, sigma, flags)
        chex.assert_trees_all_close(got, want, rtol=tolerance)


def test_bias_is_of_second_order_in_sigma():
    *args, flags = problem()
    _, want = exact(curved)(*args, *flags.values())
    gaps = [mean(curved, 1, sigma, flags)["recurrent"] - want["recurrent"]
            for sigma in (0.1, 0.05)]  # fmt: skip
    assert 3.9 < gaps[0] / gaps[1] < 4.1


def test_what_is_added_up_begins_anew_where_all_examples_do():
    params, carry, xs, targets, _ = problem()
    online = gradients.pes(curved, LOSSES[curved], pairs=3, sigma=0.1, window=2)
    update = jax.jit(online.update)

    def run(reset, mask=None):
        mask = jnp.ones((T, 2), bool) if mask is None else mask
        state, seen = online.init(params, carry, (xs[0], targets[0])), []
        for t in range(T):
            flags = {"mask": mask[t], "reset": reset[t]}
            key = jax.random.key(t)
            *_, state = update(params, state, xs[t], targets[t], key=key, **flags)
            seen.append(state)
        return seen

    never = run(NO_RESET)
    together = run(ALL_RESET)
    # This reset is in the middle of a window (the time steps with the same
    # perturbation).
    late = run(jnp.roll(ALL_RESET, 1, axis=0))
    one = run(ALL_RESET.at[2, 0].set(False))
    padded = run(ALL_RESET, jnp.ones((T, 2), bool).at[2, 0].set(False))
    noise = lambda seen: [state.noise["readout"] for state in seen]
    for seen in (never, together, late, one, padded):
        first, same, second, again = noise(seen)
        np.testing.assert_array_equal(first, same)
        np.testing.assert_array_equal(second, again)
        assert np.all(first != second)
        assert len(np.unique(first)) == 3
    xi = lambda seen: seen[-1].accumulated["readout"]
    for seen in (never, one, padded):
        np.testing.assert_allclose(xi(seen), sum(noise(seen)[::2]))
    for seen in (together, late):
        np.testing.assert_array_equal(xi(seen), noise(seen)[-1])
    # A time step at which all examples are padding does not count among the steps of a
    # window (the time steps with the same perturbation).
    waits = run(NO_RESET, jnp.ones((T, 2), bool).at[1].set(False))
    first, same, still, other = noise(waits)
    np.testing.assert_array_equal(first, still)
    assert np.all(first != other)


def test_networks_without_a_derivative_have_an_estimate():
    step = lambda w, h, x: (h + x, jnp.round(w * (h + x)))
    square = lambda y, target: (y - target) ** 2
    args = jnp.array(0.7), jnp.array(0.0), jnp.full(3, 10.0), jnp.zeros(3)
    rule = gradients.over_sequence(gradients.pes(step, square, pairs=2000, sigma=0.1))
    _, grad = jax.jit(rule)(*args, key=jax.random.key(0))
    assert gradients.bptt(step, square)(*args)[1] == 0
    smooth = np.mean(2 * 0.7 * np.array([10.0, 20, 30]) ** 2)
    np.testing.assert_allclose(grad, smooth, rtol=0.1)


def test_memory_does_not_grow_with_length():
    params, carry, *_ = problem()
    rule = jax.jit(
        gradients.over_sequence(gradients.pes(curved, LOSSES[curved], pairs=2))
    )

    def used(length):
        xs = jax.ShapeDtypeStruct((length, 2), float)
        program = rule.lower(params, carry, xs, xs, key=jax.random.key(0)).compile()
        analysis = program.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    # Each time step adds memory for a loss, its weight and a key, but not for a state.
    assert used(10_000) - used(100) <= 9_900 * 40


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pairs": 0}, "pairs must be an integer of at least 1, got 0"),
        ({"window": 1.5}, "window must be an integer of at least 1, got 1.5"),
        ({"sigma": 0.0}, "sigma must be positive, got 0.0"),
        ({"distribution": "uniform"}, r"distribution must be one of \['normal', "),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        gradients.pes(curved, LOSSES[curved], **settings)
