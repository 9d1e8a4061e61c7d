"""Tests of the training loop, whose results do not depend on the chunk length."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients, training, updates
from bpvariants.training._placement import placed
from bpvariants.training.loop._data import _stacked

rule = jax.value_and_grad(
    lambda w, x: (jnp.sum((w - x) ** 2, axis=-1), None), has_aux=True
)
sample = lambda key, data: (data[jax.random.randint(key, (), 0, len(data))],)
HEAVY_BALL = optax.sgd(0.1, momentum=0.5)
START, DATA = jnp.zeros(2), jnp.arange(8.0).reshape(4, 2)


def fit(**options):
    given = {"steps": 7, "sample": sample, "key": jax.random.key(0)} | options
    return training.fit(rule, HEAVY_BALL, START, DATA, **given)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_equals_a_plain_loop_however_it_is_cut(chunk):
    result, update, params, values = fit(chunk=chunk), HEAVY_BALL, START, []
    state = update.init(params)
    for step in range(7):
        batch = sample(jax.random.fold_in(jax.random.key(0), step), DATA)
        (value, _), grads = rule(params, *batch)
        updates_, state = update.update(grads, state, params)
        params = optax.apply_updates(params, updates_)
        values.append(value)
    chex.assert_trees_all_close(result.params, params, rtol=1e-12)
    np.testing.assert_allclose(result.values, values, rtol=1e-12)
    assert (result.steps, result.interrupted) == (7, False)


def test_runs_are_independent_and_have_their_own_keys():
    starts = jnp.stack([START, START + 1])
    together = training.fit(
        rule, HEAVY_BALL, starts, DATA, steps=5, sample=sample,
        key=jax.random.key(3), runs=2,
    )  # fmt: skip
    assert together.values.shape == (2, 5)
    for i, key in enumerate(jax.random.split(jax.random.key(3), 2)):
        alone = training.fit(
            rule, HEAVY_BALL, starts[i], DATA, steps=5, sample=sample, key=key
        )
        np.testing.assert_allclose(together.values[i], alone.values, rtol=1e-12)
        chex.assert_trees_all_close(together.params[i], alone.params, rtol=1e-12)


def test_a_carry_streams_through_the_batches():
    """Train with RTRL; the carry is passed from one batch to the next."""
    step = lambda w, h, x: (jnp.tanh(w * h + x), w * h)
    online = gradients.rtrl(step, lambda y, target: (y - target) ** 2)

    def one_step(params, state, x, target):
        value, grads, state = online.update(params, state, x, target)
        return (value, state), grads

    update, w, state = updates.forgetting(0.1, 0.5), jnp.array(0.5), None
    stream = list(zip(np.linspace(0, 1, 6), np.linspace(1, 0, 6), strict=True))
    state = online.init(w, jnp.zeros(()), stream[0])
    result = training.fit(one_step, update, w, stream, steps=6, chunk=4, carry=state)
    opt_state = update.init(w)
    for x, target in stream:
        _, grad, state = online.update(w, state, x, target)
        step_, opt_state = update.update(grad, opt_state, w)
        w = w + step_
    chex.assert_trees_all_close((result.params, result.carry), (w, state), rtol=1e-12)


def test_updates_are_given_the_value():
    result = training.fit(rule, updates.irprop_plus(0.1), START, (DATA[3],), steps=30)
    assert result.values[-1] < 1e-2 * result.values[0]


def test_the_log_sees_each_chunk_and_the_end_of_data_is_an_end():
    seen = []
    log = lambda step, metrics: seen.append((step, float(metrics["value"])))
    batches = ((row,) for row in DATA)
    result = training.fit(
        rule, optax.sgd(0.1), START, batches, steps=9, chunk=3, log=log
    )
    assert (result.steps, result.interrupted) == (4, True)
    assert seen == [(3, result.values[2]), (4, result.values[3])]


@pytest.mark.parametrize("chunks", [0, 2])
def test_an_interruption_returns_what_was_reached(chunks):
    def log(step, metrics):
        if step == 2 * chunks:
            raise KeyboardInterrupt

    def interrupted_sample(key, data):
        if chunks == 0:
            raise KeyboardInterrupt
        return sample(key, data)

    result = fit(chunk=2, log=log, sample=interrupted_sample)
    assert (result.steps, result.interrupted) == (2 * chunks, True)
    want = fit(steps=2 * chunks).params if chunks else START
    chex.assert_trees_all_close(result.params, want, rtol=1e-12)
    assert len(result.values) == 2 * chunks


def test_times_and_memory_are_told_and_compilation_is_apart():
    traces = []
    counted = lambda w, x: traces.append(w) or rule(w, x)
    result = training.fit(counted, optax.sgd(0.1), START, (DATA[0],), steps=6, chunk=2)
    assert len(traces) == 1
    assert 0 < result.seconds < result.compile_seconds
    assert result.temp_bytes >= 0


def test_mistakes_in_functions_and_data_are_named():
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"update must be an optax\.Gradient.* got 0"):
        training.fit(rule, 0.01, START, (DATA[0],), steps=1)
    plain = jax.value_and_grad(lambda w, x: jnp.sum((w - x) ** 2))
    with pytest.raises(ValueError, match="rule must return"):
        training.fit(plain, sgd, START, (DATA[0],), steps=1)
    with pytest.raises(ValueError, match=r"data must be a tuple.* an array float"):
        training.fit(rule, sgd, START, [DATA[0]], steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": None}, "steps must be an integer of at least 1, got None"),
        ({"chunk": 2.5}, "chunk must be an integer of at least 1, got 2.5"),
        ({"key": None}, "sample was given without key"),
        ({"sample": None}, r"data must be a tuple.* give sample="),
        ({"runs": 3}, r"params must have a first axis of runs=3.*shape \(2,\)"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_takes_multisteps_and_tells_it_the_loss():
    rule = jax.value_and_grad(lambda w, x: (jnp.sum((w - x) ** 2), None), has_aux=True)
    results = []
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps promotes dtypes
        for update, steps in (
            (updates.irprop_plus(0.1), 3),
            (optax.MultiSteps(updates.irprop_plus(0.1), every_k_schedule=2), 6),
        ):
            result = training.fit(rule, update, START, (DATA[0],), steps=steps)
            results.append(result.params)
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_only_what_has_the_shapes_of_params_is_divided_like_params():
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    divided = jax.sharding.NamedSharding(mesh, jax.P("data"))
    params = {"w": jax.device_put(jnp.ones((4, 2)), divided)}
    state = {"like": {"w": jnp.ones((4, 2))}, "other": {"w": jnp.ones(3)}}
    found = placed(state, params, mesh)
    assert found["like"]["w"].sharding == divided
    assert found["other"]["w"].sharding.is_fully_replicated
    assert placed(state, params, None) is state


def test_batches_that_are_divided_stay_divided_in_a_chunk():
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    divided = jax.sharding.NamedSharding(mesh, jax.P("data"))
    batches = np.arange(16.0).reshape(2, 4, 2)
    found = _stacked(tuple(jax.device_put(batch, divided) for batch in batches))
    assert found.sharding.spec == jax.P(None, "data")
    np.testing.assert_array_equal(found, batches)


def test_a_rule_may_get_a_key_as_part_of_its_batch():
    def noisy(params, x, key):
        noise = jax.random.normal(key, dtype=params.dtype)
        return ((params - x) ** 2, None), 2 * (params - x) + noise

    data, sgd = jnp.arange(8.0), optax.sgd(0.1)
    draw = lambda key, data: (data[jax.random.randint(key, (), 0, 8)], key)
    given = {"steps": 4, "sample": draw, "key": jax.random.key(0)}
    found = training.fit(noisy, sgd, jnp.array(1.0), data, **given)
    told = training.fit(noisy, sgd, jnp.array(1.0), data, draws=False, **given)
    np.testing.assert_array_equal(found.values, told.values)
