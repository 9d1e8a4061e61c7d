"""Tests of `unroll` in losses that a user writes, such as an encoder-decoder."""

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np

from bpvariants import gradients

N, D, T, B = 3, 2, 6, 4


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def normal(seed, *shape, dtype=float):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def tanh_step(params, h, x):
    recurrent, feedforward = params
    h = jnp.tanh(h @ recurrent + x @ feedforward)
    return h, h


def tanh_params(seed, inputs):
    return normal(seed, N, N), normal(seed + 1, inputs, N)


PARAMS = tanh_params(0, D), tanh_params(10, D)
CARRIES = normal(12, B, N), normal(13, B, N)
XS = normal(16, T, B, D)
COTANGENTS = normal(17, T, B, N), normal(18, T, B, N)


lengths = gradients.mask_from_lengths(jnp.array([6, 3, 1, 0]), T)
gaps = jnp.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1], [0] * 6, [1] * 6], bool).T
flags = jnp.array(
    [[0, 0, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0], [1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0]],
    bool,
).T


LONG, SHORT = 5, 3  # Lengths of the sources and of the targets.
ENCODER, DECODER = tanh_params(30, D), tanh_params(32, N)
SOURCES, TARGETS = normal(34, LONG, B, D), normal(35, SHORT, B, N)
READ = gradients.mask_from_lengths(jnp.array([5, 2, 3, 0]), LONG)
SAID = gradients.mask_from_lengths(jnp.array([1, 3, 0, 2]), SHORT)


def encoder_decoder(params, start, sources, targets):
    """Return the loss of a decoder that starts from the encoder's last carry.

    The decoder reads the true targets (teacher forcing). Sources and targets may have
    any values in padding, because a mask is given.
    """
    encoder, decoder, first = params
    summary, _ = gradients.unroll(tanh_step, encoder, start, sources, mask=READ)
    told = jnp.concatenate([jnp.broadcast_to(first, (1, B, N)), targets[:-1]])
    _, ys = gradients.unroll(tanh_step, decoder, summary, told, mask=SAID)
    wrong = jnp.where(SAID[..., None], ys - targets, 0)
    return jnp.sum(wrong**2) / jnp.sum(SAID, dtype=float)


def encoder_decoder_by_hand(params, start, sources, targets):
    encoder, decoder, first = params
    total = 0.0
    for b, (read, said) in enumerate([(5, 1), (2, 3), (3, 0), (0, 2)]):
        h = start[b]
        for t in range(read):
            h = jnp.tanh(h @ encoder[0] + sources[t, b] @ encoder[1])
        for t in range(said):
            told = first if t == 0 else targets[t - 1, b]
            h = jnp.tanh(h @ decoder[0] + told @ decoder[1])
            total += jnp.sum((h - targets[t, b]) ** 2)
    return total / 6


def test_encoder_decoder_of_two_lengths_is_the_loops_by_hand():
    take = lambda function: jax.jit(jax.value_and_grad(function, (0, 1, 2)))
    params, start = (ENCODER, DECODER, normal(36, N)), jnp.zeros((B, N))
    want = take(encoder_decoder_by_hand)(params, start, SOURCES, TARGETS)
    # The decoder's inputs are the targets shifted by one step, without the last target.
    read = jnp.where(READ[..., None], SOURCES, jnp.nan)
    said = jnp.where(SAID[..., None], TARGETS, jnp.nan)
    got = take(encoder_decoder)(params, start, read, TARGETS)
    assert_same(got, want)
    clean = lambda function: (
        lambda *args: function(*args[:3], jnp.where(SAID[..., None], args[3], 0))
    )
    assert_same(take(clean(encoder_decoder))(params, start, read, said), want)


def test_a_learned_start_collects_every_reset():
    """Check the gradient of a learned h_0, from which every episode starts."""
    params, reset = PARAMS[0], flags

    def value(start, mask):
        carry = jnp.broadcast_to(start, (B, N))
        options = {"mask": mask, "reset": reset}
        _, ys = gradients.unroll(tanh_step, params, carry, XS, **options)
        return jnp.sum(COTANGENTS[0] * jnp.where(mask[..., None], ys, 0))

    def by_episode(start, mask):
        total, flags_of, real = 0.0, np.asarray(reset), np.asarray(mask)
        for b in range(B):
            h = start
            for t in range(T):
                if real[t, b]:
                    h = start if flags_of[t, b] else h
                    h = jnp.tanh(h @ params[0] + XS[t, b] @ params[1])
                    total += jnp.sum(COTANGENTS[0][t, b] * h)
        return total

    start = normal(40, N)
    got = jax.jit(jax.value_and_grad(value))(start, gaps)
    want = jax.jit(jax.value_and_grad(lambda s: by_episode(s, gaps)))(start)
    assert_same(got, want)
    once = jax.grad(lambda s: value(s, gaps & ~reset))(start)
    assert jnp.abs(got[1] - once).max() > 1e-3


def test_inputs_of_a_many_to_one_network_have_gradients():
    """Compare input gradients with finite differences; gradients are 0 in padding."""
    mask = lengths[:, :3]
    last = jnp.arange(T)[:, None] == jnp.array([[5, 2, 0]])

    def value(xs):
        _, ys = gradients.unroll(tanh_step, PARAMS[0], CARRIES[0][:3], xs, mask=mask)
        return jnp.sum(jnp.where(last[..., None], ys, 0) ** 2) / 3

    jax.test_util.check_grads(
        value, (XS[:, :3],), order=1, modes=["rev"], eps=1e-5, rtol=1e-7, atol=1e-8
    )
    grads = jax.grad(value)(XS[:, :3])
    assert (jnp.any(grads != 0, axis=-1) == mask).all()
