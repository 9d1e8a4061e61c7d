"""Tests of bidirectional networks, against loops over the steps of each example."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

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


lstm = nn.LSTMCell(features=N, param_dtype=float)


def lstm_with_skip(params, carry, x):
    """Step an LSTM whose y is a pytree: its output and its input."""
    carry, h = lstm.apply(params, carry, x)
    return carry, {"h": h, "x": [x]}


PARAMS = tanh_params(0, D), tanh_params(10, D)
CARRIES = normal(12, B, N), normal(13, B, N)
INITIAL = normal(14, B, N), normal(15, B, N)
XS = normal(16, T, B, D)
COTANGENTS = normal(17, T, B, N), normal(18, T, B, N)
both_ways = jax.jit(partial(gradients.bidirectional, tanh_step, tanh_step))


def loss_of(run, mask):
    """Return a loss that depends on all unpadded outputs and on the last carries."""
    last, ys = run
    clean = [jnp.where(mask[..., None], y, 0) for y in ys]
    terms = [jnp.sum(c * y**2) for c, y in zip(COTANGENTS, clean, strict=True)]
    return sum(terms) + sum(jnp.sum(jnp.sin(h)) for h in last)


def one_by_one(params, carries, xs, mask, reset, initial):
    """Run a bidirectional network by loops over each example's unpadded steps."""
    mask, reset = np.asarray(mask), np.asarray(reset)
    last, ys = ([], []), (jnp.zeros((T, B, N)), jnp.zeros((T, B, N)))
    ys = list(ys)
    for b in range(B):
        real = [t for t in range(T) if mask[t, b]]
        for way, order in enumerate((real, real[::-1])):
            h = carries[way][b]
            for i, t in enumerate(order):
                begins = reset[t, b] if way == 0 else i and reset[order[i - 1], b]
                h = initial[way][b] if begins else h
                h = jnp.tanh(h @ params[way][0] + xs[t, b] @ params[way][1])
                ys[way] = ys[way].at[t, b].set(h)
            last[way].append(h)
    return tuple(map(jnp.stack, last)), tuple(ys)


lengths = gradients.mask_from_lengths(jnp.array([6, 3, 1, 0]), T)
gaps = jnp.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1], [0] * 6, [1] * 6], bool).T
flags = jnp.array(
    [[0, 0, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0], [1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0]],
    bool,
).T


@pytest.mark.parametrize(
    ("mask", "resets"),
    [(gaps, True), (None, True), (lengths, False), (lengths, True)],
    ids=["gaps, resets", "all, resets", "lengths", "lengths, resets"],
)
@pytest.mark.fast_rows(1)
def test_bidirectional_is_each_example_by_itself(mask, resets):
    reset = flags if resets else None
    real = jnp.ones((T, B), bool) if mask is None else mask
    begins = flags if resets else jnp.zeros((T, B), bool)
    spoilt = jnp.where(real[..., None], XS, jnp.nan)

    def ours(params, carries, initial, xs):
        options = {"mask": mask, "reset": reset, "initial": initial}
        run = gradients.bidirectional(
            tanh_step, tanh_step, params, carries, xs, **options
        )
        return loss_of(run, real), run

    def loops(params, carries, initial, xs):
        run = one_by_one(params, carries, xs, real, begins, initial)
        return loss_of(run, real), run

    take = lambda function: jax.value_and_grad(function, (0, 1, 2, 3), has_aux=True)
    (value, (last, ys)), grads = jax.jit(take(ours))(PARAMS, CARRIES, INITIAL, spoilt)
    want = jax.jit(take(loops))(PARAMS, CARRIES, INITIAL, XS)
    (want_value, (want_last, want_ys)), want_grads = want
    clean = [jnp.where(real[..., None], y, 0) for y in ys]
    assert_same((value, last, tuple(clean)), (want_value, want_last, want_ys))
    assert_same(grads, want_grads)
    if mask is lengths:  # An example of length 0 leaves the carry unchanged.
        assert_same([h[3] for h in last], [h[3] for h in CARRIES])


def test_bidirectional_has_the_derivatives_of_finite_differences():
    def value(params, carries, initial, xs):
        options = {"mask": gaps, "reset": flags, "initial": initial}
        run = both_ways(params, carries, xs, **options, remat=None)
        return loss_of(run, gaps)

    args = PARAMS, CARRIES, INITIAL, XS
    jax.test_util.check_grads(
        value, args, order=1, modes=["rev"], eps=1e-5, rtol=1e-7, atol=1e-8
    )


def test_bidirectional_by_default_restarts_from_carries_and_recomputes():
    run = partial(gradients.bidirectional, tanh_step, tanh_step, PARAMS, CARRIES)
    plain = run(XS, mask=gaps, reset=flags)
    want = run(XS, mask=gaps, reset=flags, initial=CARRIES, remat="step")
    assert_same(plain, want)
    lists = [[1, 1]] * T, [[False, True]] * T  # Masks and resets may be lists
    small = [h[:2] for h in CARRIES]
    mask, reset = (np.array(each, bool).tolist() for each in lists)
    gradients.bidirectional(
        tanh_step, tanh_step, PARAMS, small, XS[:, :2], mask=mask, reset=reset
    )


@pytest.mark.parametrize("batch", [(), (2, 2), (0,)], ids=str)
@pytest.mark.slow
def test_bidirectional_of_any_batch_and_of_two_kinds(batch):
    step = gradients.stack([tanh_step, lstm_with_skip])
    h = normal(0, *batch, N)
    params = tanh_params(0, D), lstm.init(jax.random.key(2), (h, h), h)
    run = jax.jit(partial(gradients.bidirectional, step, tanh_step))
    xs = normal(16, 1, *batch, D)
    (last, _), (ys, after) = run((params, PARAMS[1]), ((h, (h, h)), h), xs)
    want_last, want = gradients.unroll(step, params, (h, (h, h)), xs)
    assert_same((last, ys), (want_last, want))
    assert_same(after[0], tanh_step(PARAMS[1], h, xs[0])[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": PARAMS[0] * 2}, "params must be a pair, .* got a tuple of 4"),
        ({"carries": CARRIES[0]}, "carries must be a pair, of forward_step and of"),
        ({"initial": INITIAL[:1]}, "initial must be a pair, .* got a tuple of 1"),
        ({"mask": gaps.astype(int)}, "for forward_step: mask must be bool, got int64"),
        ({"mask": gaps[:4]}, "for forward_step: mask must have 6 time steps"),
        ({"reset": flags[:, :3]}, "reset must have one entry for each example"),
        ({"mask": gaps, "reset": flags[:, 0]}, "mask and reset must both have shape"),
        ({"carries": (CARRIES[0], XS)}, "for backward_step: carry, inputs and targets"),
        ({"xs": XS[:0]}, "xs must have arrays whose first axis is time"),
        ({"remat": "all"}, "remat must be"),
    ],
)
def test_bidirectional_names_mistakes(change, message):
    given = {"params": PARAMS, "carries": CARRIES, "xs": XS}
    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(ValueError, match=message),
    ):
        gradients.bidirectional(tanh_step, tanh_step, **given | change)


def test_bidirectional_compiles_once():
    traces = []

    def run(params, carries, xs, mask, reset):
        traces.append(xs)
        return gradients.bidirectional(
            tanh_step, tanh_step, params, carries, xs, mask=mask, reset=reset
        )

    jitted = jax.jit(run)
    last, _ = jitted(PARAMS, CARRIES, XS, gaps, flags)
    jitted(PARAMS, last, XS, ~gaps, ~flags)
    assert len(traces) == 1


@pytest.mark.slow
def test_a_stack_of_bidirectional_layers_has_the_derivatives_of_finite_differences():
    """Check the gradient of two bidirectional layers by finite differences."""

    def value(params, xs):
        below, above = params
        _, both = gradients.bidirectional(
            tanh_step, tanh_step, below, CARRIES, xs, mask=lengths
        )
        xs = jnp.concatenate(both, axis=-1)
        run = gradients.bidirectional(
            tanh_step, tanh_step, above, CARRIES, xs, mask=lengths
        )
        return loss_of(run, lengths)

    above = tanh_params(50, 2 * N), tanh_params(52, 2 * N)
    args = (PARAMS, above), XS
    jax.test_util.check_grads(
        jax.jit(value), args, order=1, modes=["rev"], eps=1e-5, rtol=1e-7, atol=1e-8
    )
    spoilt = jnp.where(lengths[..., None], XS, jnp.nan)
    assert_same(value(args[0], spoilt), value(*args))
