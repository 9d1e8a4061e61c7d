"""Stacked and bidirectional networks, and losses of one's own, against oracles."""

from functools import cache, partial

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
    """An LSTM whose y is a pytree, and which takes one as x."""
    carry, h = lstm.apply(params, carry, x)
    return carry, {"h": h, "x": [x]}


def readout(params, h, x):
    return h, {"y": x["h"] @ params, "seen": x["x"][0]}


def squared_error(y, target):
    y = y["y"] if isinstance(y, dict) else y
    return jnp.sum((y - target) ** 2, axis=-1)


@cache
def two_layers():
    """A tanh layer under an LSTM, under a readout that does nothing to its carry."""
    carry = normal(20, B, N), (normal(21, B, N), normal(22, B, N)), normal(23, B)
    params = (
        tanh_params(0, D),
        lstm.init(jax.random.key(2), carry[1], carry[0]),
        normal(3, N, 2),
    )
    args = params, carry, normal(4, T, B, D), normal(5, T, B, 2)
    options = {
        "weights": jax.random.uniform(jax.random.key(6), (T, B), float),
        "mask": jax.random.bernoulli(jax.random.key(7), 0.7, (T, B)),
        "reset": jax.random.bernoulli(jax.random.key(8), 0.3, (T, B)),
        "initial": jax.tree.map(lambda leaf: 0.5 * leaf, carry),
    }
    return gradients.stack([tanh_step, lstm_with_skip, readout]), args, options


def by_hand(params, carry, xs, targets, weights, mask, reset, initial):
    """The same network written as one scan, with its masks and resets."""
    choose = lambda flags, a, b: jnp.where(flags.reshape(B, 1), a, b)

    def body(state, inputs):
        x, target, real, new = inputs
        restart = jax.tree.map(partial(choose, real & new), initial[:2], state)
        first, second = restart
        first = jnp.tanh(first @ params[0][0] + x @ params[0][1])
        second, h = lstm.apply(params[1], second, first)
        losses = jnp.sum((h @ params[2] - target) ** 2, axis=-1)
        return jax.tree.map(partial(choose, real), (first, second), state), losses

    last, losses = jax.lax.scan(body, carry[:2], (xs, targets, mask, reset))
    weights = jnp.where(mask, weights, 0)
    return jnp.sum(weights * losses) / jnp.sum(weights), last


written = jax.jit(jax.value_and_grad(by_hand, has_aux=True))


def test_stack_in_every_rule_is_the_network_written_by_hand(make_rule):
    step, args, options = two_layers()
    got, grads = jax.jit(make_rule(step, squared_error))(*args, **options)
    (value, last), want = written(*args, **options)
    assert_same((got[0], got[1][:2], grads), (value, last, want))
    assert all(jnp.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(grads))


def test_stack_of_stacks_is_a_stack():
    step, (params, carry, xs, _), _ = two_layers()
    first = gradients.stack([tanh_step, lstm_with_skip])
    nested = gradients.stack(iter([first, gradients.stack([readout])]))
    regroup = lambda tree: (tree[:2], tree[2:])
    last, ys = gradients.unroll(nested, regroup(params), regroup(carry), xs)
    want, want_ys = gradients.unroll(step, params, carry, xs)
    assert_same((last, ys), (regroup(want), want_ys))
    one = gradients.stack([tanh_step])
    got = gradients.unroll(one, [params[0]], carry[:1], xs)[1]
    assert_same(got, gradients.unroll(tanh_step, params[0], carry[0], xs)[1])


def test_stack_truncates_and_keeps_bfloat16():
    step, args, options = two_layers()
    make = partial(gradients.truncated_bptt, every=2, lookback=3)
    whole = written(*args, **options)[1]
    got = jax.jit(make(step, squared_error))(*args, **options)[1]
    assert_same(got[2], whole[2])  # the readout is not truncated
    assert jnp.abs(got[0][0] - whole[0][0]).max() > 1e-3
    narrow = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)
    layers = gradients.stack([tanh_step, tanh_step])
    params = narrow((tanh_params(0, D), tanh_params(2, N)))
    carry, xs = narrow((normal(20, B, N), normal(21, B, N))), narrow(args[2])
    targets = narrow(normal(9, T, B, N))
    (value, _), grads = gradients.bptt(layers, squared_error)(
        params, carry, xs, targets
    )
    assert value.dtype == jnp.float32
    chex.assert_trees_all_equal_dtypes(grads, params)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps must have at least one layer, got none"),
        (tanh_step, r"steps must be a list of functions .* \[step\]"),
        (3, "steps must be a list of functions"),
        ([tanh_step, None], r"steps\[1\] must be a function .* got None"),
        ([nn.GRUCell], r"steps\[0\] must be a function .* its apply"),
    ],
)
def test_stack_names_what_is_no_layer(steps, message):
    with pytest.raises(ValueError, match=message):
        gradients.stack(steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": (tanh_params(0, D),)}, "params must be a tuple .* 2 .* tuple of 1"),
        ({"params": {"a": 1.0, "b": 2.0}}, "params must be a tuple .* got a dict of 2"),
        ({"carry": normal(0, 2, N)}, "carry must be a tuple with one entry for each"),
        ({"carry": [normal(0, B, N)] * 2}, "carry must be a tuple .* got a list of 2"),
        ({"carry": (normal(0, B, N),) * 3}, "carry must be .* got a tuple of 3"),
        (
            {"carry": (normal(0, B, N), normal(0, 1, N))},
            r"the carry that steps\[1\] returns must have .* of carry\[1\]",
        ),
    ],
)
def test_stack_names_what_does_not_fit_its_layers(change, message):
    step = gradients.stack([tanh_step, tanh_step])
    given = {
        "params": (tanh_params(0, D), tanh_params(2, N)),
        "carry": (normal(0, B, N),) * 2,
        "xs": normal(1, T, B, D),
        "targets": normal(2, T, B, N),
    }
    with pytest.raises(ValueError, match=message):
        gradients.bptt(step, squared_error)(**given | change)


PARAMS = tanh_params(0, D), tanh_params(10, D)
CARRIES = normal(12, B, N), normal(13, B, N)
INITIAL = normal(14, B, N), normal(15, B, N)
XS = normal(16, T, B, D)
COTANGENTS = normal(17, T, B, N), normal(18, T, B, N)
both_ways = jax.jit(partial(gradients.bidirectional, tanh_step, tanh_step))


def loss_of(run, mask):
    """A loss of all outputs that are not padding, and of the last carries."""
    last, ys = run
    clean = [jnp.where(mask[..., None], y, 0) for y in ys]
    terms = [jnp.sum(c * y**2) for c, y in zip(COTANGENTS, clean, strict=True)]
    return sum(terms) + sum(jnp.sum(jnp.sin(h)) for h in last)


def one_by_one(params, carries, xs, mask, reset, initial):
    """The same by Python loops over each example's real steps, in either order."""
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
    [(None, True), (lengths, False), (lengths, True), (gaps, True)],
    ids=["all, resets", "lengths", "lengths, resets", "gaps, resets"],
)
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
    if mask is lengths:  # of length 0: what came in comes out
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
    lists = [[1, 1]] * T, [[False, True]] * T  # flags need not be arrays
    small = [h[:2] for h in CARRIES]
    mask, reset = (np.array(each, bool).tolist() for each in lists)
    gradients.bidirectional(
        tanh_step, tanh_step, PARAMS, small, XS[:, :2], mask=mask, reset=reset
    )


@pytest.mark.parametrize("batch", [(), (2, 2), (0,)], ids=str)
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


# What needs a loss of one's own: each example of the README's section, by hand.

LONG, SHORT = 5, 3  # steps of sources and of targets
ENCODER, DECODER = tanh_params(30, D), tanh_params(32, N)
SOURCES, TARGETS = normal(34, LONG, B, D), normal(35, SHORT, B, N)
READ = gradients.mask_from_lengths(jnp.array([5, 2, 3, 0]), LONG)
SAID = gradients.mask_from_lengths(jnp.array([1, 3, 0, 2]), SHORT)


def encoder_decoder(params, start, sources, targets):
    """What was read is the decoder's first carry; it is told what it should have said.

    Padding, in both, may be anything.
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
    # The decoder's inputs are its targets, of which the last step's are no input.
    read = jnp.where(READ[..., None], SOURCES, jnp.nan)
    said = jnp.where(SAID[..., None], TARGETS, jnp.nan)
    got = take(encoder_decoder)(params, start, read, TARGETS)
    assert_same(got, want)
    clean = lambda function: (
        lambda *args: function(*args[:3], jnp.where(SAID[..., None], args[3], 0))
    )
    assert_same(take(clean(encoder_decoder))(params, start, read, said), want)


def test_a_learned_start_collects_every_reset():
    """h_0 is a parameter, which each episode of each example begins with."""
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
    """None after an example's last step, nor in padding; finite differences agree."""
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


def test_a_stack_of_bidirectional_layers_has_the_derivatives_of_finite_differences():
    """The second layer reads both outputs of the first, with the same lengths."""

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
