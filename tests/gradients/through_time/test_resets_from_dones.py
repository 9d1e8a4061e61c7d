"""Resets from the done flags of a rollout, and rollouts in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

STEPS, BATCH, N = 6, 3, 2
NUMBERS = np.random.default_rng(0)
W, XS = NUMBERS.normal(size=(N, N)), NUMBERS.normal(size=(STEPS, BATCH, N))
DONES = np.zeros((STEPS, BATCH), bool)
DONES[1, 0] = DONES[2, 1] = DONES[3, 1] = DONES[2, 2] = DONES[5, 0] = True
START = NUMBERS.normal(size=(BATCH, N))


def step(w, h, x):
    h = jnp.tanh(h @ w + x)
    return h, h


def acted():
    """Act in NumPy, and clear the memory after each step that ends an episode."""
    h, ys = START, []
    for x, done in zip(XS, DONES, strict=True):
        ys.append(np.tanh(h @ W + x))
        h = np.where(done[:, None], START, ys[-1])
    return np.stack(ys)


def test_a_done_resets_before_the_next_step():
    reset = gradients.resets_from_dones(DONES)
    assert reset.dtype == bool
    np.testing.assert_array_equal(reset[1:], DONES[:-1])
    assert not reset[0].any()


@pytest.mark.parametrize("first", [True, np.array([True, False, True])])
def test_first_marks_step_one(first):
    reset = gradients.resets_from_dones(jnp.asarray(DONES), first=first)
    np.testing.assert_array_equal(reset[0], np.broadcast_to(first, BATCH))
    np.testing.assert_array_equal(reset[1:], DONES[:-1])


def test_a_replay_with_these_resets_equals_acting():
    reset = gradients.resets_from_dones(DONES)
    _, replayed = gradients.unroll(step, W, START, XS, reset=reset)
    np.testing.assert_allclose(replayed, acted(), atol=1e-12)
    # The test can fail: done flags given as resets are one step early.
    _, early = gradients.unroll(step, W, START, XS, reset=jnp.asarray(DONES))
    assert np.max(np.abs(early - acted())) > 0.1


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_chunks_carry_the_last_done_over(cut):
    """Check chunks that go on from the network's carry, which nobody has cleared."""
    whole, _ = gradients.unroll(
        step, W, START, XS, reset=gradients.resets_from_dones(DONES)
    )
    carry, first, found = START, False, []
    for part in (slice(0, cut), slice(cut, None)):
        reset = gradients.resets_from_dones(DONES[part], first=first)
        carry, ys = gradients.unroll(
            step, W, carry, XS[part], reset=reset, initial=START
        )
        found.append(ys)
        first = DONES[part][-1]
    np.testing.assert_allclose(jnp.concatenate(found), acted(), atol=1e-12)
    np.testing.assert_allclose(carry, whole, atol=1e-12)


@pytest.mark.slow
def test_online_rules_take_row_t_at_step_t():
    square = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    reset = gradients.resets_from_dones(DONES)
    exact = gradients.bptt(step, square)
    (_, _), want = exact(W, START, XS, 0 * XS, reset=reset)
    rule = gradients.rtrl(step, square)
    state, total = rule.init(W, START, (XS[0], XS[0])), jnp.zeros_like(W)
    done = jnp.zeros(BATCH, bool)
    for x, next_done in zip(XS, DONES, strict=True):
        _, grads, state = rule.update(W, state, x, 0 * x, reset=done)
        total, done = total + grads / STEPS, jnp.asarray(next_done)
    np.testing.assert_allclose(total, want, atol=1e-12)


def test_works_within_jit_and_without_a_batch():
    run = jax.jit(lambda dones, first: gradients.resets_from_dones(dones, first=first))
    got = run(jnp.array([True, False, True]), jnp.array(False))
    assert got.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("dones", "first", "message"),
    [
        (np.zeros(3), False, "dones must be bool, got float64; use `dones != 0`"),
        (np.zeros(3, bool), 0, "first must be bool, got int"),
        (np.zeros((0, 2), bool), False, r"dones must be \[T, \*batch\].*T > 0"),
        (True, False, r"got shape \(\)"),
        (np.zeros((3, 2), bool), np.ones(3, bool), r"first=dones\[-1\] of the chunk"),
        ("done", False, "dones must be an array"),
    ],
)
def test_mistakes_are_named(dones, first, message):
    with pytest.raises(ValueError, match=message):
        gradients.resets_from_dones(dones, first=first)
