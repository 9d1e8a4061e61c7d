"""Tests that three interpretations of the forgetting equation can agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients, updates

pytestmark = pytest.mark.filterwarnings("ignore:forgetting with scale_past=False")
DECAY, RATE = 0.7, 0.3


@pytest.fixture(scope="module")
def losses_of(make_problem_once):
    step, loss, (params, carry, xs, targets) = make_problem_once

    def losses(params):
        _, ys = gradients.unroll(step, params, carry, xs)
        return jax.vmap(loss)(ys, targets)

    return jax.jit(losses), params, jax.jit(jax.jacobian(losses))


@pytest.fixture(scope="module")
def make_problem_once():
    keys = iter(jax.random.split(jax.random.key(3), 6))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = {"h": normal(3, 3), "x": normal(2, 3), "y": normal(3, 2)}

    def step(params, h, x):
        h = jnp.tanh(h @ params["h"] + x @ params["x"])
        return h, h @ params["y"]

    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    return step, loss, (params, normal(3), normal(5, 2), normal(5, 2))


@pytest.fixture(scope="module")
def rules(make_problem_once):
    """Return jitted gradient rules, which all tests of this file share."""
    step, loss, _ = make_problem_once
    online = gradients.rtrl(step, loss)
    both = (gradients.bptt(step, loss), gradients.over_sequence(online))
    return online._replace(update=jax.jit(online.update)), [*map(jax.jit, both)]


def close(got, want, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, 1e-14), got, want)


def explicit(grads, first, decay=DECAY):
    """Return the tutorial's discounted sum of the gradients [T, ...].

    `first` is the factor of the newest gradient.
    """
    length = len(jax.tree.leaves(grads)[0])
    weights = np.array([decay ** (length - 1 - t) for t in range(length)])
    weights[-1] = first
    return jax.tree.map(lambda g: jnp.tensordot(weights, g, axes=1), grads)


@pytest.mark.parametrize("decay", [DECAY, 0.0])
@pytest.mark.parametrize("scale_past", [True, False])
def test_all_readings_agree_while_params_stay(
    make_problem_once, losses_of, rules, scale_past, decay
):
    *_, args = make_problem_once
    losses, params, jacobian = losses_of
    # The Jacobian has leaves [T, ...], with one row for each loss of the sequence.
    grads = jacobian(params)
    first = 1.0 if scale_past else RATE
    scale = RATE if scale_past else 1.0
    want = jax.tree.map(lambda g: -scale * g, explicit(grads, first, decay))

    stored = updates.forgetting(RATE, decay, scale_past=scale_past)
    body = lambda state, grad: stored.update(grad, state)[::-1]
    _, steps = jax.lax.scan(body, stored.init(params), grads)
    close(jax.tree.map(lambda step: step[-1], steps), want)

    printed = None if scale_past else RATE
    rule = updates.replay(lambda params, t: losses(params)[t], decay, horizon=5)
    state = rule.init((jnp.int32(0),))
    for t in range(5):
        state = rule.push(state, (jnp.int32(t),))
    replayed = jax.grad(rule.discounted_loss)(params, state, learning_rate=printed)
    close(jax.tree.map(lambda g: -scale * g, replayed), want)

    weights = gradients.discounted_weights(5, decay, learning_rate=printed)
    for rule in rules[1]:
        _, mean = rule(*args, weights=weights)
        close(jax.tree.map(lambda g: -scale * weights.sum() * g, mean), want)


def test_online_with_forgetting_is_the_tutorials_equation(make_problem_once, rules):
    """Compare online learning with a discounted sum of RTRL's gradients.

    Each gradient is taken at the weights of its own step.
    """
    *_, (params, carry, xs, targets) = make_problem_once
    rule, _ = rules
    for form, first, scale in (
        ({}, 1.0, 0.03),
        ({"scale_past": False}, 0.03, 1.0),
    ):
        optimizer = updates.forgetting(0.03, DECAY, **form)
        w, past = params, []
        state = rule.init(params, carry, (xs[0], targets[0]))
        opt_state = optimizer.init(w)
        for t in range(5):
            _, grads, state = rule.update(w, state, xs[t], targets[t])
            change, opt_state = optimizer.update(grads, opt_state, w)
            past.append(grads)
            stacked = jax.tree.map(lambda *g: jnp.stack(g), *past)
            close(change, jax.tree.map(lambda g: -scale * g, explicit(stacked, first)))  # noqa: B023
            w = jax.tree.map(jnp.add, w, change)


def test_online_sequence_with_forgetting_at_fixed_weights(make_problem_once, rules):
    """Compare two ways to discount gradients along a sequence at fixed weights.

    One is `over_sequence` with discounted losses, and the other is
    `updates.forgetting`.
    """
    *_, args = make_problem_once
    online, (_, over_sequence) = rules
    weights = gradients.discounted_weights(5, DECAY)
    _, mean = over_sequence(*args, weights=weights)
    optimizer = updates.forgetting(RATE, DECAY)
    params, carry, xs, targets = args

    def body(states, inputs):
        state, opt_state = states
        _, grads, state = online.update(params, state, *inputs)
        change, opt_state = optimizer.update(grads, opt_state)
        return (state, opt_state), change

    state = online.init(params, carry, (xs[0], targets[0]))
    start = state, optimizer.init(params)
    _, changes = jax.lax.scan(body, start, (xs, targets))
    last = jax.tree.map(lambda change: change[-1], changes)
    close(last, jax.tree.map(lambda g: -RATE * weights.sum() * g, mean))


def test_weights_in_a_batch_are_averaged_over_it(make_problem_once):
    step, loss, (params, carry, xs, targets) = make_problem_once
    weights = gradients.discounted_weights(5, DECAY)
    repeat = lambda leaf, axis: jnp.stack([leaf, leaf], axis)
    batch = repeat(carry, 0), repeat(xs, 1), repeat(targets, 1)
    shared = jnp.broadcast_to(weights[:, None], (5, 2))
    rule = gradients.bptt(step, loss)
    (want, _), _ = rule(params, carry, xs, targets, weights=weights)
    (value, _), _ = rule(params, *batch, weights=shared)
    close(value, want)


def test_discounted_weights():
    weights = jax.jit(lambda d, r: gradients.discounted_weights(3, d, learning_rate=r))
    close(weights(jnp.float64(0.5), jnp.float32(2.0)), [0.25, 0.5, 2.0])
    assert weights(jnp.float32(0.5), 2.0).dtype == jnp.float32
    close(gradients.discounted_weights(3, 0), [0.0, 0.0, 1.0])
    close(gradients.discounted_weights(3, 1), [1.0, 1.0, 1.0])
    assert gradients.discounted_weights(300, jnp.bfloat16(0.5)).dtype == jnp.float32
    slope = jax.grad(lambda d: gradients.discounted_weights(3, d).sum())
    close(slope(0.0), 1.0)
    for wrong, message in {
        (0, 0.5): "num_steps must be an integer of at least 1, got 0",
        (3, 1.5): "0 <= decay <= 1, got 1.5; a loss k steps",
    }.items():
        with pytest.raises(ValueError, match=message):
            gradients.discounted_weights(*wrong)
    with pytest.raises(ValueError, match=r"learning_rate >= 0, got -1.0; to ascend"):
        gradients.discounted_weights(3, 0.5, learning_rate=-1.0)
