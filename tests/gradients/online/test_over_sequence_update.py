"""Tests of updates during a sequence by online rules, against plain loops."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients, updates
from bpvariants.types import OnlineRule

pytestmark = pytest.mark.usefixtures("_promoting")
T, BATCH = 7, (2,)
assert_same = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)


@pytest.fixture
def _promoting():
    """Allow dtype promotion, because Adam's bias correction promotes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def step(params, h, x):
    h = jnp.tanh(h @ params["hidden"] + x @ params["input"])
    return h, h @ params["readout"]


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


RTRL = gradients.rtrl(step, loss)


def network(batch=BATCH, dtype=float):
    numbers = np.random.default_rng(5)
    normal = lambda *shape: jnp.asarray(numbers.normal(size=shape), dtype)
    params = {"hidden": normal(2, 2), "input": normal(1, 2), "readout": normal(2, 1)}
    args = params, normal(*batch, 2), normal(T, *batch, 1), normal(T, *batch, 1)
    options = {
        "weights": jnp.asarray(numbers.random((T, *batch)), dtype),
        "mask": jnp.asarray(numbers.random((T, *batch)) < 0.7),
        "reset": jnp.asarray(numbers.random((T, *batch)) < 0.2),
        "initial": normal(*batch, 2),
    }
    return args, options


@cache
def jitted(online, every, update):
    return jax.jit(gradients.over_sequence(online, every=every, update=update))


@cache
def jitted_update(online):
    return jax.jit(online.update)


def by_hand(online, optimizer, every, args, options, keys=None, with_value=False):
    """Run an online rule; update by the mean gradient of each `every` time steps."""
    params, carry, xs, targets = args
    opt_state, losses, weight_of_all = optimizer.init(params), 0.0, 0.0
    ones = jnp.ones(xs.shape[:-1], xs.dtype)
    weights = options.get("weights", ones) * options.get("mask", ones)
    inputs, initial = (xs[0], targets[0]), options.get("initial")
    state = online.init(params, carry, inputs, initial=initial)
    names = {"weights": "weight", "mask": "mask", "reset": "reset"}
    for begin in range(0, len(xs), every):
        grads, value, total = jax.tree.map(jnp.zeros_like, params), 0.0, 0.0
        for t in range(begin, min(begin + every, len(xs))):
            given = {names[k]: v[t] for k, v in options.items() if k in names}
            given |= {} if keys is None else {"key": keys[t]}
            loss_now, grad, state = jitted_update(online)(
                params, state, xs[t], targets[t], **given
            )
            weight = jnp.sum(weights[t])
            grads = jax.tree.map(lambda a, g, w=weight: a + w * g, grads, grad)
            value, total = value + weight * loss_now, total + weight
        losses, weight_of_all = losses + value, weight_of_all + total
        if total == 0:
            continue
        grads = jax.tree.map(lambda g, total=total: g / total, grads)
        extra = {"value": value / total} if with_value else {}
        change, opt_state = optimizer.update(grads, opt_state, params, **extra)
        params = optax.apply_updates(params, change)
    return (losses / weight_of_all, state.carry), (params, opt_state)


@pytest.mark.slow
def test_one_update_for_all_is_a_step_along_the_gradient_of_bptt():
    args, options = network()
    adam = optax.adam(0.1)
    pair = args[0], adam.init(args[0])
    got = jitted(RTRL, T, adam)(pair, *args[1:], **options)
    (value, carry), grads = gradients.bptt(step, loss)(*args, **options)
    change, state = adam.update(grads, pair[1], args[0])
    want = (value, carry), (optax.apply_updates(args[0], change), state)
    assert_same(got, want)
    longer = jitted(RTRL, T + 9, adam)(pair, *args[1:], **options)
    chex.assert_trees_all_equal(longer, got)


@pytest.mark.parametrize("every", [None, 1, 2, 3])
@pytest.mark.parametrize("given", [(), ("weights", "mask", "reset", "initial")])
@pytest.mark.fast_rows(3)
def test_updates_on_the_way_equal_a_loop(every, given):
    args, options = network()
    options, adam = {name: options[name] for name in given}, optax.adam(0.1)
    pair = args[0], adam.init(args[0])
    got = jitted(RTRL, every, adam)(pair, *args[1:], **options)
    assert_same(got, by_hand(RTRL, adam, every or 1, args, options))


@pytest.mark.parametrize("batch", [(), (2, 1)], ids=str)
@pytest.mark.slow
def test_any_batch_shape_and_updates_that_look_at_the_loss(batch):
    args, _ = network(batch)
    rprop = updates.irprop_plus(0.1)
    pair = args[0], rprop.init(args[0])
    got = jitted(RTRL, 2, rprop)(pair, *args[1:])
    assert_same(got, by_hand(RTRL, rprop, 2, args, {}, with_value=True))


def test_windows_of_padding_change_nothing():
    (params, carry, xs, targets), _ = network()
    adam = optax.adam(0.1)
    pair = params, adam.init(params)
    # Steps 2 and 3, between the first and the second update, are padding.
    rows = np.array([0, 1, 4, 5])
    mask = jnp.zeros(T, bool).at[rows].set(True)
    xs, targets = (jnp.where(mask[:, None, None], a, jnp.nan) for a in (xs, targets))
    mask = jnp.stack([mask, mask], axis=1)
    got = jitted(RTRL, 2, adam)(pair, carry, xs, targets, mask=mask)
    want = jitted(RTRL, 2, adam)(pair, carry, xs[rows], targets[rows])
    assert_same(got, want)
    none = jnp.zeros_like(mask)
    got = jitted(RTRL, 2, adam)(pair, carry, xs, targets, mask=none)
    chex.assert_trees_all_equal(got, ((0.0, carry), pair))


@pytest.mark.filterwarnings("ignore:forgetting with scale_past=False")
@pytest.mark.parametrize("scale_past", [True, False])
def test_with_forgetting_it_is_the_recurrent_update_of_the_tutorial(scale_past):
    numbers, rate, decay = np.random.default_rng(2), 0.05, 0.6
    xs, targets = numbers.normal(size=(2, 9))
    w, h, influence, grads = 0.4, 0.0, 0.0, []
    # The network is h_t = w h_{t-1} + x_t.
    for x, target in zip(xs, targets, strict=True):
        influence = h + w * influence
        h = w * h + x
        grads.append(2 * (h - target) * influence)
        first, past = (rate, rate) if scale_past else (rate, 1.0)
        w -= first * grads[-1]
        w -= past * sum(decay**k * g for k, g in enumerate(grads[-2::-1], start=1))
    update = updates.forgetting(rate, decay, scale_past=scale_past)
    online = gradients.rtrl(
        lambda w, h, x: (w * h + x, w * h + x), lambda y, target: (y - target) ** 2
    )
    start = jnp.array(0.4), update.init(jnp.array(0.4))
    args = jnp.array(0.0), jnp.asarray(xs), jnp.asarray(targets)
    (_, last), (got, _) = jitted(online, None, update)(start, *args)
    np.testing.assert_allclose((got, last), (w, h), rtol=1e-12)


def noisy(online):
    """Return an online rule that adds noise to its gradients and checks its inputs."""

    def init(params, carry, inputs, *, initial=None):
        assert [a.shape for a in inputs] == [(*BATCH, 1)] * 2
        return online.init(params, carry, inputs, initial=initial)

    def update(*args, key, **options):
        value, grads, state = online.update(*args, **options)
        noise = jax.random.normal(key)
        return value, jax.tree.map(lambda g: g + noise, grads), state

    return OnlineRule(init, update)


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
@pytest.mark.fast_rows(1)
def test_keys_go_to_steps(make_key):
    (params, carry, xs, targets), _ = network()
    sgd, key = optax.sgd(0.1), make_key(4)
    pair = params, sgd.init(params)
    learn = jitted(noisy(RTRL), 3, sgd)
    got = learn(pair, carry, xs, targets, key=key)
    args, keys = (params, carry, xs, targets), jax.random.split(key, T)
    assert_same(got, by_hand(noisy(RTRL), sgd, 3, args, {}, keys))


def test_one_program_for_all_calls_and_learning_rates():
    (params, carry, xs, targets), options = network()

    @jax.jit
    @jax.vmap
    @chex.assert_max_traces(n=1)
    def courses(rate, params):
        sgd = optax.sgd(rate)
        learn = gradients.over_sequence(RTRL, every=2, update=sgd)
        pair = params, sgd.init(params)
        return learn(pair, carry, xs, targets, reset=options["reset"])

    rates = jnp.array([0.0, 0.1, 0.3])
    stacked = jax.tree.map(lambda a: jnp.stack([a, a, a]), params)
    courses(rates + 0.1, stacked)
    got = courses(rates, stacked)
    sgd = optax.sgd(0.3)
    args, resets = (params, carry, xs, targets), {"reset": options["reset"]}
    want = by_hand(RTRL, sgd, 2, args, resets)
    assert_same(jax.tree.map(lambda a: a[2], got)[1][0], want[1][0])
    chex.assert_trees_all_equal(jax.tree.map(lambda a: a[0], got)[1][0], params)


@pytest.mark.slow
def test_narrow_params_stay_narrow():
    (params, carry, xs, targets), _ = network(dtype=jnp.bfloat16)
    adam = optax.adam(0.1)
    pair = params, adam.init(params)
    (value, last), got = jitted(RTRL, 2, adam)(pair, carry, xs, targets)
    chex.assert_trees_all_equal_dtypes((last, got), (carry, pair))
    assert value.dtype == jnp.float32
    assert jnp.any(got[0]["readout"] != params["readout"])


@pytest.mark.slow
def test_memory_does_not_grow_with_time():
    (params, carry, _, _), _ = network(())
    params = params | {"input": jnp.ones((64, 2))}
    adam = optax.adam(0.1)
    learn = jax.jit(gradients.over_sequence(RTRL, every=2, update=adam))
    pair = params, adam.init(params)

    def temp_bytes(length):
        xs, targets = jnp.zeros((length, 64)), jnp.zeros((length, 1))
        program = learn.lower(pair, carry, xs, targets).compile()
        memory = program.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    more = temp_bytes(4001) - temp_bytes(401)
    # Each time step may take four float64 values of memory (32 bytes); a copy of its
    # inputs would take 64 bytes.
    assert more < 3600 * 8 * 4


def test_a_batch_of_no_examples_changes_nothing():
    args, options = network((0,))
    adam = optax.adam(0.1)
    pair = args[0], adam.init(args[0])
    truncated = gradients.truncated_bptt(step, loss, every=2, lookback=2, update=adam)
    for learn in (jitted(RTRL, 2, adam), jax.jit(truncated)):
        for given in ({}, {"reset": options["reset"]}):
            got = learn(pair, *args[1:], **given)
            chex.assert_trees_all_equal(got, ((0.0, args[1]), pair))


def test_a_state_that_is_kept_makes_one_call_of_many():
    (params, carry, xs, targets), options = network()
    adam = optax.adam(0.1)
    pair = params, adam.init(params)
    given = {"mask": options["mask"], "reset": options["reset"]}
    initial = options["initial"]
    want = jitted(RTRL, 1, adam)(pair, carry, xs, targets, **given, initial=initial)
    learn = jax.jit(gradients.over_sequence(RTRL, update=adam, keep_state=True))
    state = RTRL.init(params, carry, (xs[0], targets[0]), initial=initial)
    for part in (slice(0, 1), slice(1, 5), slice(5, T)):
        options = {name: flags[part] for name, flags in given.items()}
        (_, state), pair = learn(pair, state, xs[part], targets[part], **options)
    assert_same((state.carry, pair), (want[0][1], want[1]))


def test_mistakes_are_named():
    (params, carry, xs, targets), _ = network()
    sgd = optax.sgd(0.1)
    for settings, message in [
        ({"every": 2}, "every=2 is the number of steps between updates, but there is "),
        ({"every": 0, "update": sgd}, "every must be an integer of at least 1, got 0"),
        ({"every": 1.5, "update": sgd}, "every must be an integer .* got 1.5"),
        ({"update": 0.1}, r"update must be an optax.GradientTransformation.* got 0\.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            gradients.over_sequence(RTRL, **settings)
    learn = gradients.over_sequence(RTRL, update=optax.adam(0.1))
    state = optax.adam(0.1).init(params)
    for wrong in (params, (params, params), (params, state, state)):
        with pytest.raises(ValueError, match=r"pair \(params, opt_state\)"):
            learn(wrong, carry, xs, targets)
    kept = gradients.over_sequence(RTRL, keep_state=True)
    with pytest.raises(ValueError, match="carry must be the state of the online rule"):
        kept(params, carry, xs, targets)
    state = RTRL.init(params, carry, (xs[0], targets[0]))
    with pytest.raises(ValueError, match="initial must be given to the init"):
        kept(params, state, xs, targets, initial=carry)
    with pytest.raises(ValueError, match="targets must have 7 time steps"):
        learn((params, optax.adam(0.1).init(params)), carry, xs, targets[:3])
