"""Tests of truncated BPTT in several calls, and with updates within a sequence."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients, training, updates

optax_as_it_is = pytest.mark.usefixtures("_promoting")
KINDS = ("weights", "mask", "reset", "initial")


@pytest.fixture
def _promoting():
    """Allow dtype promotion, because Adam's bias correction promotes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def network(batch=(2,), T=6, dtype=float):
    numbers = np.random.default_rng(3)
    normal = lambda *shape: jnp.asarray(numbers.normal(size=shape), dtype)
    params = {"hidden": normal(2, 2), "input": normal(2), "readout": normal(2)}
    args = params, normal(*batch, 2), normal(T, *batch), normal(T, *batch, 1)
    mask = numbers.random((T, *batch)) < 0.7
    options = {
        "weights": jnp.asarray(numbers.random((T, *batch)), dtype),
        "mask": jnp.asarray(mask),
        "reset": jnp.asarray(numbers.random((T, *batch)) < 0.2),
        "initial": normal(*batch, 2),
    }
    return step, loss, args, options


def step(params, h, x):
    h = jnp.tanh(
        h @ params["hidden"] + x[..., None] * jnp.broadcast_to(params["input"], h.shape)
    )
    return h, h @ params["readout"][:, None]


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def in_calls(rule, cuts, params, stream, xs, targets, **options):
    """Run a rule on a stream in several calls.

    Return the weighted mean of values and gradients over the calls, and the last
    stream.
    """
    stream, totals = gradients.stream(stream), None
    for part in (slice(*ends) for ends in pairwise(cuts)):
        given = {
            name: value if name == "initial" else value[part]
            for name, value in options.items()
            # The stream remembers `initial` after the first call.
            if name != "initial" or part.start == 0
        }
        (value, stream), grads = rule(params, stream, xs[part], targets[part], **given)
        weights = given.get("weights", jnp.ones(xs[part].shape))
        weight = jnp.sum(
            jnp.where(given["mask"], weights, 0) if "mask" in given else weights
        )
        parts = jax.tree.map(lambda a, w=weight: w * a, (value, grads, 1.0))
        totals = parts if totals is None else jax.tree.map(jnp.add, totals, parts)
    *means, weight = totals
    return *jax.tree.map(lambda a: a / weight, means), stream


@pytest.mark.parametrize(("every", "lookback", "T"), [(2, 3, 4), (2, 2, 4), (3, 8, 6)])
@pytest.mark.parametrize("kinds", [KINDS, ()], ids=["all", "none"])
@pytest.mark.fast_rows(1)
def test_a_stream_cut_anywhere_equals_one_long_call(every, lookback, T, kinds):
    _, _, args, options = network(T=T)
    options = {name: options[name] for name in kinds}
    rule = jax.jit(gradients.truncated_bptt(step, loss, every=every, lookback=lookback))
    (value, last), grads = rule(*args, **options)
    cuts = [(0, at, T) for at in range(1, T)] if T == 4 and kinds else [(0, T - 2, T)]
    for cut in [*cuts, range(T + 1)] if kinds else cuts:
        got, got_grads, stream = in_calls(rule, cut, *args, **options)
        want = value, grads, last
        chex.assert_trees_all_close(
            (got, got_grads, stream.carry), want, rtol=1e-12, atol=1e-12
        )


@pytest.mark.slow
def test_flags_may_come_and_go_from_call_to_call():
    _, _, args, options = network(T=6)
    mask, reset = (
        options[name].at[:2].set(name == "mask") for name in ("mask", "reset")
    )
    mask, reset = mask.at[4:].set(True), reset.at[2:4].set(False)
    rule = gradients.truncated_bptt(step, loss, every=2, lookback=5)
    (_, last), want = rule(*args, mask=mask, reset=reset, initial=options["initial"])
    params, carry, xs, targets = args
    stream, total = gradients.stream(carry), None
    flags = [{}, {"mask": mask[2:4]}, {"reset": reset[4:]}]
    for i, given in enumerate(flags):
        part = slice(2 * i, 2 * i + 2)
        (_, stream), grads = rule(
            params, stream, xs[part], targets[part], **given, initial=options["initial"]
        )
        weight = jnp.sum(mask[part]) / jnp.sum(mask)
        grads = jax.tree.map(lambda g, w=weight: w * g, grads)
        total = grads if total is None else jax.tree.map(jnp.add, total, grads)
    chex.assert_trees_all_close((stream.carry, total), (last, want), rtol=1e-12)


def test_a_stream_compiles_twice_and_holds_no_more_with_time():
    traces = []
    traced = lambda rule: jax.jit(lambda *args: traces.append(args) or rule(*args))
    for lookback in (2, 3):
        params, carry, xs, targets = network(T=4)[2]
        rule = gradients.truncated_bptt(step, loss, every=2, lookback=lookback)
        call, stream, sizes = traced(rule), gradients.stream(carry), []
        traces.clear()
        for _ in range(4):
            (_, stream), _ = call(params, stream, xs, targets)
            sizes.append([leaf.nbytes for leaf in jax.tree.leaves(stream)])
        assert len(traces) == 2
        assert sizes[0] == sizes[-1]
        assert (stream.steps is None) == (lookback == 2)


@pytest.mark.slow
def test_a_stream_goes_through_scan_and_fit():
    params, carry, xs, targets = network(T=8)[2]
    rule = gradients.truncated_bptt(step, loss, every=2, lookback=4)
    (_, begun), _ = rule(params, gradients.stream(carry), xs[:2], targets[:2])
    batches = jax.tree.map(lambda a: a[2:].reshape(3, 2, *a.shape[1:]), (xs, targets))
    body = lambda stream, batch: rule(params, stream, *batch)[0][::-1]
    stream, values = jax.lax.scan(body, begun, batches)
    result = training.fit(
        rule, optax.sgd(0.0), params, zip(*batches, strict=True), steps=3, carry=begun
    )
    chex.assert_trees_all_close(result.carry, stream, rtol=1e-12)
    np.testing.assert_allclose(result.values, values, rtol=1e-12)
    want = rule(*network(T=8)[2])[0][1]
    np.testing.assert_allclose(stream.carry, want, rtol=1e-12)


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)], ids=str)
@pytest.mark.slow
def test_streams_of_any_batch_shape_in_bfloat16(batch):
    params, carry, xs, targets = network(batch, T=5, dtype=jnp.bfloat16)[2]
    rule = gradients.truncated_bptt(step, loss, every=2, lookback=3)
    stream = gradients.stream(carry)
    for part in (slice(0, 3), slice(3, 5)):
        (value, stream), grads = rule(params, stream, xs[part], targets[part])
    chex.assert_type([value, stream.carry], [jnp.float32, jnp.bfloat16])
    chex.assert_type(jax.tree.leaves(grads), jnp.bfloat16)
    chex.assert_tree_all_finite((value, grads))


def by_hand(
    optimizer, every, lookback, params, carry, xs, targets, weights, with_value
):
    """Update after each window of time steps, whose first carry is a constant."""
    length, state, states, values = len(xs), optimizer.init(params), {0: carry}, []
    for last_end, end in pairwise([*range(0, length, every), length]):
        start = max(0, end - lookback)

        def mean_loss(params, start=start, last_end=last_end, end=end):
            h, losses, seen = states[start], [], {}
            for t in range(start, end):
                h, y = step(params, h, xs[t])
                seen[t + 1] = h
                losses += [loss(y, targets[t])] if t >= last_end else []
            counts = weights[last_end:end]
            total = jnp.sum(counts)
            return jnp.sum(counts * jnp.stack(losses)) / jnp.where(
                total, total, 1
            ), seen

        (value, seen), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
        states.update(seen)
        if jnp.sum(weights[last_end:end]) != 0:
            extra = {"value": value} if with_value else {}
            change, state = optimizer.update(grads, state, params, **extra)
            params = optax.apply_updates(params, change)
        values.append(value * jnp.sum(weights[last_end:end]))
    return (sum(values) / jnp.sum(weights), states[length]), (params, state)


@optax_as_it_is
@pytest.mark.parametrize(
    ("name", "every", "lookback"),
    [("adam", 2, 2), ("adam", 2, 3), ("sgd", 2, 9), ("irprop_plus", 2, 3)],
)
@pytest.mark.fast_rows(1)
def test_learning_on_the_way_equals_a_loop(name, every, lookback):
    plain = {"sgd": optax.sgd(0.3), "adam": optax.adam(0.1)}
    optimizer = plain.get(name, updates.irprop_plus(0.1))
    _, _, args, options = network(T=7)
    # The losses of steps 2 and 3 have weight 0, so there is no update for these steps.
    weights = options["weights"].at[2:4].set(0)
    pair = args[0], optimizer.init(args[0])
    learn = gradients.truncated_bptt(
        step, loss, every=every, lookback=lookback, update=optimizer
    )
    got = jax.jit(learn)(pair, *args[1:], weights)
    want = by_hand(
        optimizer, every, lookback, *args, weights, with_value=name == "irprop_plus"
    )
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


@optax_as_it_is
def test_learning_along_a_stream_equals_one_long_call():
    optimizer = optax.adam(0.1)
    _, _, (params, carry, xs, targets), options = network(T=8)
    learn = jax.jit(
        gradients.truncated_bptt(step, loss, every=2, lookback=3, update=optimizer)
    )
    pair, mask = (params, optimizer.init(params)), options["mask"]
    (value, last), want = learn(pair, carry, xs, targets, mask=mask)
    stream, total = gradients.stream(carry), 0.0
    for part in (slice(0, 2), slice(2, 6), slice(6, 8)):
        (mean, stream), pair = learn(
            pair, stream, xs[part], targets[part], mask=mask[part]
        )
        total += mean * jnp.sum(mask[part]) / jnp.sum(mask)
    chex.assert_trees_all_close((total, stream.carry, pair), (value, last, want))


@optax_as_it_is
def test_learning_where_nothing_counts_changes_nothing():
    optimizer = optax.adam(0.1)
    learn = gradients.truncated_bptt(step, loss, every=2, lookback=3, update=optimizer)
    for batch in ((0,), (2,)):
        params, *rest = network(batch, T=4)[2]
        pair = params, optimizer.init(params)
        mask = None if batch == (0,) else jnp.zeros((4, *batch), bool)
        (value, carry), got = learn(pair, *rest, mask=mask)
        chex.assert_trees_all_equal((value, carry, got), (0.0, rest[0], pair))


@optax_as_it_is
def test_mistakes_with_streams_and_updates_are_named():
    params, carry, xs, targets = network(T=4)[2]
    rule = gradients.truncated_bptt(step, loss, every=2, lookback=3)
    (_, stream), _ = rule(params, gradients.stream(carry), xs, targets)
    other = gradients.truncated_bptt(step, loss, every=1, lookback=3)
    with pytest.raises(ValueError, match="rule with every=2 and lookback=3, but this"):
        other(params, stream, xs, targets)
    with pytest.raises(ValueError, match="xs, of one step, must have the structure"):
        rule(params, stream, xs.astype(jnp.float32), targets)
    with pytest.raises(ValueError, match="got a stream"):
        gradients.stream(stream)
    optimizer = optax.adam(0.1)
    learn = gradients.truncated_bptt(step, loss, every=2, lookback=3, update=optimizer)
    for wrong in (params, (params, params), (optimizer.init(params), params)):
        with pytest.raises(ValueError, match="params"):
            learn(wrong, carry, xs, targets)
