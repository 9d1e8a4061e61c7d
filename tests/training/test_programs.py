"""Tests that `fit` keeps compiled functions as long as the user's functions exist.

The number of traces of a rule shows whether `fit` has compiled it again.
"""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients, training, updates
from bpvariants.training.loop import _programs

DATA = (jnp.arange(2.0),)
slope = 1.0


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    monkeypatch.setattr(_programs, "_kept", {})


def counting():
    """Return a rule, and the list to which each trace of the rule appends its dtype."""
    traces = []

    def loss(w, x):
        traces.append(jnp.result_type(x))
        return jnp.sum((w - x.astype(w.dtype)) ** 2), None

    return jax.value_and_grad(loss, has_aux=True), traces


def fit(rule, update, data=DATA, **options):
    return training.fit(
        rule, update, jnp.zeros(2), data, **{"steps": 6, "chunk": 3} | options
    )


@pytest.mark.parametrize(
    "make_update",
    [
        lambda: optax.adam(0.1),
        lambda: updates.irprop_plus(0.1),
        lambda: optax.MultiSteps(optax.sgd(0.1), 2),
    ],
    ids=["adam", "irprop_plus", "multi_steps"],
)
@pytest.mark.fast_rows(1)
def test_a_second_call_does_not_trace_again(make_update):
    (rule, traces), update = counting(), make_update()
    log = lambda step, metrics: None
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps promotes dtypes
        first = fit(rule, update, log=log)
        count = len(traces)
        second = fit(rule, update, log=log, stop=lambda step, metrics: False)
    assert len(traces) == count
    assert second.temp_bytes == first.temp_bytes
    assert second.compile_seconds < first.compile_seconds
    chex.assert_trees_all_equal(first[:4], second[:4])


def test_what_differs_is_compiled_again():
    (rule, traces), sgd = counting(), optax.sgd(0.1)
    fit(rule, sgd)
    others = [
        {"chunk": 2},
        {"nonfinite": "skip"},
        {"nonfinite": "ignore"},
        {"data": (jnp.arange(2),)},
        {"data": (jnp.array([True, False]),)},
        {"data": (1.0,)},  # a Python number has a weak type
        {"data": (1,)},
        {"data": (True,)},
        {"update": optax.sgd(0.2)},
        {"sample": lambda key, data: data, "key": jax.random.key(0)},
    ]
    for options in others:
        count = len(traces)
        changed = {"update": sgd} | options
        fit(rule, **changed)
        assert len(traces) > count, options
        now = len(traces)
        fit(rule, **changed)
        assert len(traces) == now, options
    with jax.default_matmul_precision("highest"):
        fit(rule, sgd)
    assert len(traces) > now


def test_results_are_those_of_a_new_rule():
    """Compare a kept function with a new one, for other params, data and keys."""
    sample = lambda key, data: (data[0] + jax.random.normal(key, (2,)),)
    (rule, _), sgd = counting(), optax.sgd(0.1, momentum=0.9)
    for seed in (0, 1):
        options = {"sample": sample, "key": jax.random.key(seed)}
        data = (DATA[0] + seed,)
        kept = fit(rule, sgd, data, **options)
        new = fit(counting()[0], sgd, data, **options)
        chex.assert_trees_all_equal(kept[:4], new[:4])


def test_kept_functions_that_overwrite_their_state(monkeypatch):
    monkeypatch.setattr("bpvariants.training.loop._chunk.SMALL", 0)
    (rule, traces), sgd = counting(), optax.sgd(0.1, momentum=0.9)
    first = fit(rule, sgd)
    count, params = len(traces), np.array(first.params)
    second = fit(rule, sgd)
    assert len(traces) == count
    np.testing.assert_array_equal(params, first.params)  # not overwritten
    np.testing.assert_array_equal(params, second.params)


def test_callbacks_of_a_kept_function_run():
    seen = []

    def rule(w, x):
        jax.debug.callback(lambda w: seen.append(float(w)), w)
        return (w, None), jnp.ones_like(w)

    sgd = optax.sgd(1.0)
    for start in (0.0, 10.0):
        training.fit(rule, sgd, start, (0.0,), steps=2)
        jax.effects_barrier()
    assert sorted(seen) == [-1.0, 0.0, 9.0, 10.0]


@pytest.mark.parametrize("kept_by", ["rule", "update", "sample"])
def test_kept_functions_are_dropped_with_the_user_s_functions(kept_by):
    def train():
        (rule, _), sgd = counting(), optax.sgd(0.1)
        sample = lambda key, data: data
        fit(rule, sgd, sample=sample, key=jax.random.key(0))
        given = {"rule": rule, "update": sgd.update, "sample": sample}
        others = [part for name, part in given.items() if name != kept_by]
        return others, weakref.ref(given[kept_by])

    others, gone = train()
    gc.collect()
    assert gone() is None
    assert not _programs._kept
    assert len(others) == 2  # the others still exist


@pytest.mark.slow
def test_gradient_rules_are_collected():
    step = lambda w, h, x: (jnp.tanh(w * h + x), w * h)
    loss = lambda y, target: (y - target) ** 2
    batch = jnp.zeros(()), jnp.ones(3), jnp.zeros(3)
    gone = []
    for make in (
        lambda: gradients.bptt(step, loss),
        lambda: gradients.artbp(step, loss, truncation=0.5),
        lambda: jax.jit(gradients.over_sequence(gradients.rtrl(step, loss))),
    ):
        rule = make()
        key = None if "bptt" in str(rule) else jax.random.key(0)
        training.fit(rule, optax.sgd(0.1), 0.5, batch, steps=2, key=key)
        gone.append(weakref.ref(rule))
        del rule
    gc.collect()
    assert [each() for each in gone] == [None] * 3


def test_the_number_of_kept_functions_is_limited(monkeypatch):
    monkeypatch.setattr(_programs, "MOST", 2)
    owner = lambda: None
    made = []
    make = lambda: made.append(1) or len(made)
    recall = lambda kind: _programs.recall((owner,), kind, (), make)
    results = [recall(kind) for kind in "aabcaba"]
    # "b" is dropped for the second "a", which "c" had dropped; and so on.
    assert results == [1, 1, 2, 3, 4, 5, 4]


def test_methods_and_objects_without_weak_references():
    class Model:
        def rule(self, w, x):
            return (jnp.sum(w), None), jnp.ones_like(w)

    class Bare:
        __slots__ = ()

        def __call__(self, w, x):
            return (jnp.sum(w), None), jnp.ones_like(w)

    made = []
    make = lambda: made.append(1)
    model, bare = Model(), Bare()
    for owner, count in ((lambda: model.rule, 1), (lambda: bare, 2)):
        made.clear()
        for _ in range(2):
            _programs.recall((owner(),), "kind", (), make)
        assert len(made) == count
    assert fit(bare, optax.sgd(0.1)).steps == fit(model.rule, optax.sgd(0.1)).steps == 6


def test_a_changed_global_is_seen_after_the_caches_are_cleared(monkeypatch):
    rule = lambda w, x: ((slope * jnp.sum(w), None), slope * jnp.ones_like(w))
    sgd = optax.sgd(1.0)
    first = fit(rule, sgd)
    monkeypatch.setitem(globals(), "slope", 2.0)
    chex.assert_trees_all_equal(fit(rule, sgd)[:4], first[:4])
    jax.clear_caches()
    chex.assert_trees_all_equal(fit(rule, sgd).params, 2 * first.params)


draws_or_not = lambda w, x, *, key=None: (
    (jnp.sum(w), None),
    jnp.ones_like(w) if key is None else jax.random.normal(key, (2,)),
)


@pytest.mark.parametrize("wrap", [lambda rule: rule, jax.jit], ids=["plain", "jit"])
def test_a_rule_that_accepts_a_key_gets_it(wrap):
    rule, key = wrap(draws_or_not), jax.random.key(0)
    given = fit(rule, optax.sgd(0.1), key=key, draws=True)
    found = fit(rule, optax.sgd(0.1), key=key)
    chex.assert_trees_all_equal(given[:4], found[:4])
    sample = lambda key, data: data
    withheld = fit(rule, optax.sgd(0.1), key=key, draws=False, sample=sample)
    chex.assert_trees_all_close(withheld.params, -0.6 * jnp.ones(2), rtol=1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        gradients.bptt(lambda w, h, x: (h, w * x), lambda y, target: (y - target) ** 2),
        jax.jit(lambda w, *batch: ((jnp.sum(w), None), jnp.ones_like(w))),
        lambda w, *batch: ((jnp.sum(w), None), jnp.ones_like(w)),
    ],
    ids=["bptt", "jit", "plain"],
)
def test_a_rule_that_refuses_a_key_gets_none(rule):
    batch = jnp.zeros(2), jnp.ones((3, 2)), jnp.ones((3, 2))
    sample = lambda key, data: data
    options = {"sample": sample, "steps": 2, "key": jax.random.key(0)}
    found = training.fit(rule, optax.sgd(0.1), jnp.ones(2), batch, **options)
    told = training.fit(
        rule, optax.sgd(0.1), jnp.ones(2), batch, draws=False, **options
    )
    chex.assert_trees_all_equal(found[:4], told[:4])


@pytest.mark.slow
def test_runs_and_a_carry_with_a_rule_that_draws():
    step = lambda w, h, x: (jnp.tanh(w * h + x), w * h)
    online = gradients.uoro(step, lambda y, target: (y - target) ** 2)

    def one_step(w, state, x, target, *, key):
        value, grads, state = online.update(w, state, x, target, key=key)
        return (value, state), grads

    w, x = jnp.array([0.5, 0.2]), jnp.array(0.3)
    state = jax.vmap(lambda w: online.init(w, jnp.zeros(()), (x, x)))(w)
    options = {"steps": 5, "key": jax.random.key(0), "carry": state, "runs": 2}
    found = training.fit(one_step, optax.sgd(0.1), w, (x, x), **options)
    told = training.fit(one_step, optax.sgd(0.1), w, (x, x), draws=True, **options)
    chex.assert_trees_all_equal(found[:4], told[:4])
