"""Tests of RTRL: its gradient is exact, and it stores no rows that are always zero."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients

N, D, T = 3, 2, 4


def squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


@cache
def jitted(rule_of, step, loss=squared_error):
    return jax.jit(rule_of(step, loss))


def online(rule, step, loss):
    return gradients.over_sequence(rule(step, loss))


rtrl = partial(online, gradients.rtrl)


def with_readout(step):
    def with_output(params, carry, x):
        cell, readout = params
        carry, y = step(cell, carry, x)
        return carry, y @ readout

    return with_output


def own_recurrence(params, h, x):
    """Step units that do not read each other and share one parameter."""
    decay, scale = params
    h = jnp.tanh(decay * h + scale * x[..., :1])
    return h, h


def gru_reset_first(params, h, x):
    """Step a GRU that multiplies h by the reset gate before the matrix product.

    Therefore, each weight of the reset gate affects all units.
    """
    reset, update, new, inputs = params
    r, z = jax.nn.sigmoid(h @ reset), jax.nn.sigmoid(h @ update)
    h = (1 - z) * h + z * jnp.tanh((r * h) @ new + x @ inputs)
    return h, h


def _random(shapes, seed=0):
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(
        lambda shape: jax.random.normal(next(keys), shape),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple) and all(map(is_int, node)),
    )


def is_int(value):
    return isinstance(value, int)


def _like(tree):
    keys = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), tree)


def _cell(name, **options):
    cell = getattr(cells, name)
    params = cell.init(jax.random.key(0), D, N, **options, dtype=float)
    return cell, _like(params), cell.carry


@cache
def problem(name, batch=()):
    """Return step, (params, carry, xs, targets) of a cell with a readout."""
    if name in ("tanh", "gru", "lstm", "min_gru"):
        step, params, carry = _cell(name)
        carry = carry(params, batch)
        step, params = with_readout(step), (params, _random((N, N)))
    elif name == "lru":
        params = _like(cells.lru.init(jax.random.key(0), D, N, N, dtype=float))
        step, carry = cells.lru, cells.lru.carry(params, batch, complex=False)
    elif name == "stack":
        layers = [cells.tanh, cells.gru]
        step = gradients.stack(layers)
        sizes = [(D, N), (N, N)]
        params = tuple(
            _like(make(jax.random.key(0), *size, dtype=float))
            for make, size in zip((cells.tanh.init, cells.gru.init), sizes, strict=True)
        )
        carry = cells.tanh.carry(params[0], batch), cells.gru.carry(params[1], batch)
    elif name == "gru_reset_first":
        step, carry = gru_reset_first, jnp.zeros((*batch, N))
        params = _random(((N, N), (N, N), (N, N), (D, N)))
    else:
        step, carry = own_recurrence, jnp.zeros((*batch, N))
        params = _random(((N,), (1,)))
    carry = jax.tree.map(lambda leaf: leaf + 0.3, _like(carry))
    xs = jax.random.normal(jax.random.key(2), (T, *batch, D))
    return step, (params, carry, xs, jnp.ones((T, *batch, N)))


NETWORKS = ["tanh", "gru", "lstm", "lru", "min_gru", "stack", "gru_reset_first", "own"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.fast_rows(2)
def test_equals_bptt_in_every_leaf_and_leaves_none_out(name):
    step, args = problem(name)
    want = jitted(gradients.bptt, step)(*args)
    got = jitted(rtrl, step)(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    for leaf in jax.tree.leaves(got[1]):
        assert jnp.all(leaf != 0)


@pytest.mark.parametrize("name", ["tanh", "stack", "gru_reset_first"])
@pytest.mark.fast_rows(1)
def test_of_a_batch_with_masks_and_resets_also_step_by_step(name):
    step, (params, carry, xs, targets) = problem(name, (2,))
    mask = jnp.arange(T)[:, None] < jnp.array([[T, T - 1]])
    reset = jnp.arange(T)[:, None] == jnp.array([[2, 1]])
    xs = jnp.where(mask[..., None], xs, jnp.nan)
    want = jitted(gradients.bptt, step)(
        params, carry, xs, targets, mask=mask, reset=reset
    )
    rule = gradients.rtrl(step, squared_error)

    @jax.jit
    def by_hand(params):
        def body(state, inputs):
            x, target, mask, reset = inputs
            value, grads, state = rule.update(
                params, state, x, target, mask=mask, reset=reset
            )
            return state, (value, grads, jnp.sum(mask))

        start = rule.init(params, carry, (xs[0], targets[0]))
        inputs = xs, targets, mask, reset
        state, (values, grads, counts) = jax.lax.scan(body, start, inputs)
        mean = partial(jnp.tensordot, counts / jnp.sum(mask), axes=1)
        return (mean(values), state.carry), jax.tree.map(mean, grads)

    got = jitted(rtrl, step)(params, carry, xs, targets, mask=mask, reset=reset)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_close(by_hand(params), want, rtol=1e-10, atol=1e-12)


def rows(name):
    step, (params, carry, xs, targets) = problem(name)
    rule = gradients.rtrl(step, squared_error)
    state = rule.init(params, carry, (xs[0], targets[0]))
    return [None if leaf is None else len(leaf) for leaf in state.influence]


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("tanh", [N, N, N, None]),  # RTRL stores no rows for the readout
        ("gru_reset_first", [N, N, N, N]),
        # Within a time step, a weight affects the state of only one unit, so RTRL
        # stores one row of the influence for it.
        ("min_gru", [1, 1, 1, 1, None]),
        # RTRL stores two rows for a weight of a complex unit: for the unit's real part
        # and its imaginary part.
        ("lru", [2, 2, 2, 2, 2, None, None, None]),
        ("own", [1, N]),
        # Weights of the second layer affect only the state of the second layer.
        ("stack", [2 * N] * 3 + [N] * 4),
    ],
)
def test_keeps_the_rows_that_can_be_other_than_zero(name, want):
    assert rows(name) == want


@pytest.mark.slow
def test_a_step_needs_no_more_memory_in_a_longer_sequence():
    step, (params, carry, xs, targets) = problem("gru")

    def memory(length):
        repeat = lambda leaf: jnp.resize(leaf, (length, *leaf.shape[1:]))
        args = params, carry, repeat(xs), repeat(targets)
        compiled = jitted(rtrl, step).lower(*args).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    arrays = 3 * 8  # bytes of three float64 values per time step
    assert memory(10_000) - memory(100) <= arrays * 9_900


def test_other_inputs_than_init_was_given_are_refused_not_dropped():
    def gated(params, h, x):
        x, extra = x
        h = jnp.tanh(h @ params["w"] + x)
        return (h, h) if extra is None else (h + extra @ params["b"], h)

    params = {"w": jnp.eye(N), "b": jnp.ones((D, N))}
    rule = gradients.rtrl(gated, squared_error)
    poor, rich = (jnp.ones(N), None), (jnp.ones(N), jnp.ones(D))
    state = rule.init(params, jnp.ones(N), (poor, jnp.ones(N)))
    with pytest.raises(ValueError, match="init"):
        rule.update(params, state, rich, jnp.ones(N))
    state = rule.init(params, jnp.ones(N), (rich, jnp.ones(N)))
    _, _, state = rule.update(params, state, rich, jnp.zeros(N))
    # If the step does not use `extra`, RTRL stores no rows for the bias b.
    with pytest.raises(ValueError, match="init"):
        rule.update(params, state, poor, jnp.zeros(N))


@pytest.mark.parametrize("once", [True, False])
def test_what_has_no_forward_derivative_is_refused(once):
    @jax.custom_vjp
    def clipped(h):
        return h

    clipped.defvjp(lambda h: (h, None), lambda _, ct: (jnp.clip(ct, -1, 1),))
    twice = lambda h: jax.lax.fori_loop(0, 2, lambda _, h: clipped(h), h)
    step = lambda w, h, x: ((clipped if once else twice)(h * w + x), h)
    rule = gradients.rtrl(step, squared_error)
    with pytest.raises(ValueError, match="custom_vjp"):
        rule.init(jnp.ones(N), jnp.ones(N), (jnp.ones(N), jnp.ones(N)))


def test_a_derivative_of_ones_own_is_honoured():
    @jax.custom_jvp
    def rounded(h):
        return jnp.round(h)

    rounded.defjvp(lambda primals, tangents: (rounded(*primals), 2 * tangents[0]))

    def step(w, h, x):
        h = rounded(h @ w + x)
        return h, h

    w, h = _random(((N, N), (N,)))
    args = w, h, jnp.ones((T, N)), jnp.zeros((T, N))
    want = jitted(gradients.bptt, step)(*args)
    assert jnp.any(want[1] != 0)
    chex.assert_trees_all_close(jitted(rtrl, step)(*args), want, rtol=1e-10)
    snap = lambda step, loss: online(partial(gradients.snap, order=2), step, loss)
    chex.assert_trees_all_close(jax.jit(snap(step, squared_error))(*args), want)


def test_arrays_that_are_spread_along_axes_of_length_1():
    """Check operands that broadcast along axes of length 1, as in outer products."""

    def step(params, h, x):
        column, row = (leaf[:, None] for leaf in (h, params[0]))
        table = column * row.T / (2 + (column - params[1][None, :]) ** 2)
        h = jnp.tanh(jnp.sum(table, axis=1) + jnp.sum(table, axis=0) + x)
        return h, h

    args = _random([((N,), (N,)), (N,), (T, N), (T, N)])
    want = jitted(gradients.bptt, step)(*args)
    chex.assert_trees_all_close(jitted(rtrl, step)(*args), want, rtol=1e-10)
    snap = lambda step, loss: online(partial(gradients.snap, order=2), step, loss)
    chex.assert_trees_all_close(jitted(snap, step)(*args), want, rtol=1e-10)


def test_inputs_that_are_no_pair_are_refused():
    rule = gradients.rtrl(own_recurrence, squared_error)
    with pytest.raises(ValueError, match="inputs must be the pair"):
        rule.init((jnp.ones(N), jnp.ones(1)), jnp.ones(N), inputs=np.ones(D))


def test_a_reference_that_the_step_closes_over_is_read_and_never_known():
    mask = jax.new_ref(jnp.tril(jnp.ones((N, N))))

    def step(w, h, x):
        h = jnp.tanh(x + h @ (w * mask[...]))
        return h, h

    args = _random([(N, N), (N,), (T, N), (T, N)])
    rule = jax.jit(lambda *args: rtrl(step, squared_error)(*args)[1])
    for numbers in (mask[...], mask[...].T):
        mask[...] = numbers
        got, want = rule(*args), jitted_bptt_of(numbers)(*args)
        chex.assert_trees_all_close(got, want, rtol=1e-9)


def jitted_bptt_of(mask):
    def step(w, h, x):
        h = jnp.tanh(x + h @ (w * mask))
        return h, h

    return lambda *args: gradients.bptt(step, squared_error)(*args)[1]


@pytest.mark.parametrize("fill", [0.5, -0.5, 1.0])
@pytest.mark.fast_rows(1)
def test_what_a_gather_fills_with_counts_as_other_than_zero(fill):
    mask = jnp.array([1.0, 0.0, 1.0])
    # Index 9 is out of range, so the gather inserts a fill value.
    places = jnp.array([0, 1, 9])

    def step(w, h, x):
        taken = jnp.take(w * mask, places, mode="fill", fill_value=fill)
        h = jnp.sin(taken * h[::-1] + h / 10 + x + w)
        return h, h

    args = _random([(3,), (3,), (T, 3), (T, 3)])
    _, got = jitted(rtrl, step)(*args)
    _, want = jitted(gradients.bptt, step)(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-10)


@pytest.mark.slow
def test_what_passes_through_refs_is_followed_or_refused():
    def written(w, h, x):
        u = h @ w + x
        ref = jax.new_ref(x)
        ref[0] = u[0]
        ref[1] = u[1] + ref[0]
        h = jnp.tanh(ref[...] + 0.1 * u)
        return h, h

    def plain(w, h, x):
        u = h @ w + x
        v = x.at[0].set(u[0])
        h = jnp.tanh(v.at[1].set(u[1] + v[0]) + 0.1 * u)
        return h, h

    args = *_random(((N, N), (N,))), jnp.ones((T, N)), jnp.zeros((T, N))
    want = jitted(gradients.bptt, plain)(*args)
    snap = partial(online, partial(gradients.snap, order=N))
    for rule in (rtrl, snap):
        got = jitted(rule, written)(*args)
        chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    # RFLO ignores the influence of one unit on another, also if the step writes to a
    # `jax.Ref`.
    rflo = partial(online, gradients.rflo)
    same = jitted(rflo, plain)(*args)
    chex.assert_trees_all_close(jitted(rflo, written)(*args), same, rtol=1e-10)
    with pytest.raises(ValueError, match="through refs"):
        online(gradients.kf_rtrl, written, squared_error)(*args, key=jax.random.key(0))
