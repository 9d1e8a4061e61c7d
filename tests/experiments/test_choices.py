"""Tests of gradient rules and updates that users choose by name."""

import dataclasses
import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import gradients, updates
from experiments import choices
from experiments.choices import _rules, _updates, make_online, make_rule, make_update
from experiments.harness import options

# E-prop warns if all of the carry h is visible to other units, because e-prop then
# stores no trace.
pytestmark = pytest.mark.filterwarnings("ignore:eprop keeps no trace")


@pytest.fixture(autouse=True, scope="module")
def _as_users_have_it(plain_jax):
    with plain_jax():
        yield


def step(params, h, x):
    return params * h + x, params * h


def loss(y, target):
    return (y - target) ** 2


visible, sgd = (lambda h: h), optax.sgd(0.01)
CALLS = [  # Format: (name, settings, library function, its arguments).
    ("bptt", {}, "bptt", ((), {"remat": None})),
    ("bptt", {"remat": "step"}, "bptt", ((), {"remat": "step"})),
    (
        "truncated_bptt",
        {"lookback": 5},
        "truncated_bptt",
        ((), {"every": 2, "lookback": 5, "update": None}),
    ),
    (
        "truncated_bptt",
        {"lookback": 5, "every": 1, "update": sgd},
        "truncated_bptt",
        ((), {"every": 1, "lookback": 5, "update": sgd}),
    ),
    ("artbp", {"lookback": 4}, "artbp", ((), {"truncation": 0.25})),
    ("rtrl", {"lookback": 5, "every": 2}, "rtrl", ((), {})),
    ("diagonal_rtrl", {}, "diagonal_rtrl", ((), {})),
    ("snap", {"order": 3}, "snap", ((), {"order": 3})),
    ("snap", {}, "snap", ((), {"order": 1})),
    ("snap_2", {"order": 3}, "snap", ((), {"order": 2})),
    ("rflo", {"feedback": "B"}, "rflo", ((), {"feedback": "B"})),
    (
        "eprop",
        {"visible": visible},
        "eprop",
        ((), {"visible": visible, "feedback": "symmetric"}),
    ),
    ("kf_rtrl", {}, "kf_rtrl", ((), {})),
    ("uoro", {}, "uoro", ((), {})),
    (
        "forward_gradient",
        {"directions": 3},
        "forward_gradient",
        ((), {"directions": 3}),
    ),
    (
        "pes",
        {"directions": 3, "sigma": 0.1, "window": 5},
        "pes",
        ((), {"pairs": 3, "sigma": 0.1, "window": 5}),
    ),
]


def test_calls_are_of_every_rule():
    assert {name.split("_2")[0] for name, *_ in CALLS} == set(choices.RULES)


@pytest.mark.parametrize(("name", "settings", "function", "call"), CALLS)
def test_rules_by_name_are_those_of_the_library(
    name, settings, function, call, monkeypatch
):
    if settings.get("feedback") != "B":
        assert callable(make_rule(name, step, loss, **settings))
    made = []

    def make(*args, **options):
        assert args[:2] == (step, loss)
        made.append((args[2:], options))
        return "rule"

    online = lambda rule, every, update: (rule, every, update)
    monkeypatch.setattr(gradients, function, make)
    monkeypatch.setattr(gradients, "over_sequence", online)
    got = make_rule(name, step, loss, **settings)
    assert made == [call]
    assert got == (
        ("rule", None, None) if name in choices.ONLINE or "_2" in name else "rule"
    )
    if got != "rule":
        learning = make_rule(
            name, step, loss, **(settings | {"update": sgd, "every": 3})
        )
        assert learning == ("rule", 3, sgd)


@pytest.mark.parametrize("name", choices.ONLINE)
def test_what_draws_takes_a_key(name):
    # KF-RTRL supports this step.
    matrix = lambda w, h, x: (h @ w + x, h @ w)
    sums = lambda y, target: jnp.sum(loss(y, target))
    online = make_online(name, matrix, sums, visible=visible)
    w, inputs = jnp.ones((1, 1)), (jnp.ones(1), jnp.zeros(1))
    state = online.init(w, jnp.ones(1), inputs)
    if choices.draws(name):
        with pytest.raises(ValueError, match="key must be given"):
            online.update(w, state, *inputs)
    else:  # this rule is not random and ignores the key
        with_key = online.update(w, state, *inputs, key=jax.random.key(0))
        assert with_key[:2] == online.update(w, state, *inputs)[:2]


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("btpp", {}, r"rule must be one of bptt, .*; got 'btpp'\. Did you mean 'bptt'"),
        ("snap_x", {}, r"rule must be one of .*; got 'snap_x'\. Did you mean 'snap'"),
        ("truncated_bptt", {}, r"truncated_bptt needs lookback, .* got None"),
        ("artbp", {"lookback": 0}, r"artbp needs lookback, .* at least 1; got 0"),
        ("eprop", {}, r"eprop needs visible, .* for an LSTM"),
        ("bptt", {"update": optax.sgd(1.0)}, r"bptt .* cannot learn on the way"),
        ("snap_0", {}, r"order"),
    ],
)
def test_rules_that_cannot_be_are_refused(name, settings, says):
    with pytest.raises(ValueError, match=says):
        make_rule(name, step, loss, **settings)


def first_step(update, grad):
    """Return an update's first change of two parameters."""
    start = jnp.zeros(2)
    state = update.init(start)
    return optax.with_extra_args_support(update).update(
        jnp.array(grad), state, start, value=jnp.array(1.0)
    )[0]


@pytest.mark.parametrize("name", choices.UPDATES)
def test_every_update_descends_at_first(name):
    change = first_step(make_update(name, steps=10), [0.3, -0.2])
    assert change[0] < 0 < change[1]
    rate = choices.UPDATES[name].learning_rate
    # The first step of RMSprop is √10 times as long as the learning rate.
    assert jnp.abs(change).max() <= 3.2 * rate


def test_updates_by_name_are_those_of_the_library():
    grad = [0.3, -0.2]
    for got, want in [
        (make_update("adam"), optax.adam(1e-3)),
        (make_update("sgd", 0.5), optax.sgd(0.5)),
        (make_update("rprop", 0.2), updates.irprop_minus(0.2)),
        (make_update("forgetting", 0.5, decay=0.3), updates.forgetting(0.5, 0.3)),
    ]:
        np.testing.assert_allclose(first_step(got, grad), first_step(want, grad))


def test_gradients_are_clipped_and_the_rate_falls():
    near = first_step(make_update("sgd", 1.0), [3.0, 4.0])
    np.testing.assert_allclose(near, [-0.6, -0.8], rtol=1e-6)
    far = first_step(make_update("sgd", 1.0, clip=None), [3.0, 4.0])
    np.testing.assert_array_equal(far, [-3, -4])
    signs = first_step(make_update("rprop", 0.25), [3.0, 4.0])
    np.testing.assert_array_equal(signs, -0.25)
    falling = make_update("sgd", 1.0, steps=4, clip=None)
    state, changes = falling.init(jnp.array(0.0)), []
    for _ in range(5):
        change, state = falling.update(jnp.array(1.0), state)
        changes.append(-float(change))
    want = [(1 + np.cos(np.pi * t / 4)) / 2 for t in range(5)]
    np.testing.assert_allclose(changes, want, atol=1e-6)


def test_rates_may_be_traced():
    go = jax.vmap(lambda rate: first_step(make_update("adam", rate), [0.3, -0.2]))
    changes = go(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(changes[:, 1], [0.1, 0.2], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("adan", {}, r"update must be one of sgd, .*; got 'adan'\. Did you mean 'adam"),
        ("adam", {"learning_rate": 0.0}, r"learning_rate must be positive, got 0"),
        ("adam", {"clip": -1.0}, r"clip must be positive, got -1"),
        ("adam", {"steps": 0}, r"steps must be positive, got 0"),
        ("forgetting", {"decay": 1.5}, r"decay"),
    ],
)
def test_updates_that_cannot_be_are_refused(name, settings, says):
    with pytest.raises(ValueError, match=says):
        make_update(name, **settings)


def test_a_config_without_such_a_size_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Config:
        quick: bool = False

    with pytest.raises(ValueError, match="sizes must name options, got units"):
        options.at_quick_size(Config(), units=3)


@pytest.mark.parametrize("module", [_rules, _updates, options])
def test_examples_in_docstrings_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
