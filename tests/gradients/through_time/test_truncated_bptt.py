"""Tests of truncated BPTT: its definition and its memory."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from bpvariants import gradients

SETTINGS = [(1, 1), (1, 4), (2, 3), (3, 7), (4, 8), (5, 6), (9, 50)]


def by_definition(step, loss, every, lookback, params, carry, xs, targets, **options):
    """Compute BPTT(h; h′) by definition, with one gradient for each window.

    The gradient of each loss is taken over a window of time steps, whose first carry is
    a constant. Here h is the lookback, and h′ is the distance between the ends of two
    windows. If fewer than h′ steps are left at the end of a stream, the last window is
    shorter: it begins where a whole window would begin.
    """
    length, in_stream = len(xs), options.pop("in_stream", False)
    initial = options.pop("initial", carry)
    weights = options.get("weights", jnp.ones(targets.shape[:-1]))
    mask = options.get("mask", jnp.ones(weights.shape, bool))
    reset = options.get("reset", jnp.zeros(weights.shape, bool))
    weights = jnp.where(mask, weights, 0)

    def run(params, carry, start, end):
        part = slice(start, end)
        return gradients.unroll(
            step, params, carry, xs[part], mask=mask[part], reset=reset[part],
            initial=initial,
        )  # fmt: skip

    total = jax.tree.map(jnp.zeros_like, params)
    ends = [*range(0, length, every), length]
    for last_end, end in pairwise(ends):
        start = max(0, (last_end + every if in_stream else end) - lookback)
        first = carry if start == 0 else run(params, carry, 0, start)[0]

        def value(params, start=start, end=end, first=first, new=end - last_end):
            _, ys = run(params, first, start, end)
            counts = slice(end - new, end)
            losses = loss(ys[-new:], jnp.where(mask[..., None], targets, 0)[counts])
            return jnp.sum(weights[counts] * losses)

        total = jax.tree.map(jnp.add, total, jax.grad(value)(params))
    return jax.tree.map(lambda g: g / jnp.sum(weights), total)


@pytest.mark.parametrize(
    ("every", "lookback", "plain"), [*((*s, False) for s in SETTINGS), (2, 3, True)]
)
@pytest.mark.fast_rows(1)
def test_equals_its_definition(make_problem, every, lookback, plain):
    step, loss, args, extra = make_problem("tanh", batch=(2,), T=7)
    extra = {} if plain else extra
    rule = gradients.truncated_bptt(step, loss, every=every, lookback=lookback)
    (value, last), grads = rule(*args, **extra)
    want = by_definition(step, loss, every, lookback, *args, **extra)
    chex.assert_trees_all_close(grads, want, rtol=1e-10, atol=1e-12)
    exact = gradients.bptt(step, loss)(*args, **extra)[0]
    chex.assert_trees_all_close((value, last), exact, rtol=1e-12)


@pytest.mark.slow
def test_a_stream_that_ends_within_a_block_looks_back_from_its_end(make_problem):
    step, loss, args, options = make_problem("tanh", batch=(2,), T=7)
    options = {name: options[name] for name in ("weights", "mask")}
    params, carry, xs, targets = args
    rule = jax.jit(gradients.truncated_bptt(step, loss, every=3, lookback=4))
    want = by_definition(step, loss, 3, 4, *args, **options, in_stream=True)
    stream, total = gradients.stream(carry), jax.tree.map(jnp.zeros_like, params)
    weights = jnp.where(options["mask"], options["weights"], 0)
    for part in (slice(0, 4), slice(4, 5), slice(5, 7)):
        flags = {name: flag[part] for name, flag in options.items()}
        (_, stream), grads = rule(params, stream, xs[part], targets[part], **flags)
        share = jnp.sum(weights[part]) / jnp.sum(weights)
        total = jax.tree.map(lambda a, g, w=share: a + w * g, total, grads)
    chex.assert_trees_all_close(total, want, rtol=1e-10, atol=1e-12)
    alone = rule(*args, **options)[1]
    # The gradient of the readout does not depend on the lookback.
    assert abs(alone["readout"] - want["readout"]).max() < 1e-12
    assert abs(alone["hidden"][0] - want["hidden"][0]).max() > 1e-6


def test_windows_are_those_of_a_stopped_gradient(make_problem):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh", T=6)

    def stopped(params):
        def body(carry, inputs):
            t, x, target = inputs
            cut = jax.tree.map(jax.lax.stop_gradient, carry)
            carry = jax.tree.map(lambda a, b: jnp.where(t % 3 == 0, a, b), cut, carry)
            carry, y = step(params, carry, x)
            return carry, loss(y, target)

        return jnp.mean(jax.lax.scan(body, carry, (jnp.arange(6), xs, targets))[1])

    rule = gradients.truncated_bptt(step, loss, every=3, lookback=3)
    (value, _), grads = rule(params, carry, xs, targets)
    want = jax.value_and_grad(stopped)(params)
    chex.assert_trees_all_close((value, grads), want, rtol=1e-12)


def test_the_step_is_shown_no_inputs_but_those_given():
    """Check that no step is run on zeros before the sequence, where log(0) = −∞."""
    step = lambda w, h, x: (0.5 * h + w * jnp.log(x),) * 2
    loss = lambda y, target: (y - target) ** 2
    args = jnp.array(2.0), jnp.zeros(3), 2 * jnp.ones((4, 3)), jnp.zeros((4, 3))
    want = gradients.bptt(step, loss)(*args)
    got = gradients.truncated_bptt(step, loss, every=2, lookback=4)(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-12)


def test_no_loss_is_counted_twice():
    """Check that each loss counts once, although windows of time steps overlap.

    For the network x_t = w x_{t−1}, counting a loss in every window that contains it
    would give dx_3/dw = .288.
    """
    step = lambda w, h, x: (w * h, w * h)
    loss = lambda y, target: jnp.where(target == 1, y, 0)
    rule = gradients.truncated_bptt(step, loss, every=1, lookback=3)
    xs, third = jnp.zeros(3), jnp.array([0.0, 0.0, 1.0])
    _, grad = rule(0.2, jnp.array(0.9), xs, third, weights=third)
    assert grad == pytest.approx(0.108, rel=1e-12)


def test_memory_is_that_of_a_window():
    step = lambda w, h, x: (jnp.tanh(h @ w), jnp.tanh(h @ w) + x)
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)

    def temporary_bytes(rule, length):
        sequence = jnp.zeros((length, 4, 16))
        arguments = jnp.eye(16), jnp.zeros((4, 16)), sequence, sequence
        compiled = jax.jit(rule).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    full = temporary_bytes(gradients.bptt(step, loss), 512)
    for lookback in (8, 16):
        rule = gradients.truncated_bptt(step, loss, every=8, lookback=lookback)
        short, long = (temporary_bytes(rule, length) for length in (64, 512))
        assert long < 0.1 * full
        # The additional memory for a longer sequence is too small for a copy of its
        # inputs.
        assert long < 1.1 * short


def test_the_remainder_of_a_loop_that_detaches_is_a_call_of_its_own():
    step, loss = lambda w, h, x: (jnp.tanh(w * h + x),) * 2, lambda y, t: (y - t) ** 2
    xs, targets = jnp.sin(jnp.arange(5.0)), jnp.cos(jnp.arange(5.0))
    sgd, h, w = optax.sgd(0.5), jnp.array(0.1), jnp.array(0.9)
    learn = gradients.truncated_bptt(step, loss, every=3, lookback=3, update=sgd)
    _, (whole, _) = learn((w, sgd.init(w)), h, xs, targets)
    want = w
    # These slices are the two windows of the sequence.
    for part in (slice(0, 3), slice(3, 5)):
        (_, h), grad = gradients.bptt(step, loss)(want, h, xs[part], targets[part])
        want = want - 0.5 * grad
    pair, h = (w, sgd.init(w)), jnp.array(0.1)
    for part in (slice(0, 3), slice(3, 5)):
        (_, h), pair = learn(pair, h, xs[part], targets[part])
    chex.assert_trees_all_close(pair[0], want, rtol=1e-12)
    assert not jnp.allclose(whole, want, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0, "lookback": 3}, "every must be an integer of at least 1, got 0"),
        ({"every": 2, "lookback": 2.5}, "lookback must be an integer of at least 1"),
        ({"every": 4, "lookback": 3}, "got lookback=3 and every=4"),
        ({"every": 1, "lookback": 1, "update": 0.1}, "update must be an optax.Grad"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        gradients.truncated_bptt(lambda *_: None, lambda *_: None, **settings)
