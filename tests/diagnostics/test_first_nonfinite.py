"""Tests of the search for the first NaN: it must find each fault planted in a network.

All faults are planted in the same network, so that it is compiled only once. For zero
inputs, all values of the network are finite. Each input, target and parameter can make
one part of the network NaN or infinite.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import diagnostics, gradients

T, BATCH = 6, 2


def step(params, carry, x):
    fast = jnp.tanh(carry["fast"] @ params["w"] + x["u"])
    # The slope of √ is infinite at 0.
    root = jnp.sqrt(params["gain"] * (params["base"] - x["root"]))
    trap = jnp.where(x["gap"] < 1, 1 / (params["gain"] * (1 - x["gap"])), 0)
    # This line and the next compute |slow| as √slow², whose derivative is NaN at 0.
    slow = jnp.where(x["edge"] == 1, carry["slow"] ** 2, 1)
    slow = params["gain"] * carry["slow"] * jnp.sqrt(slow) / 2 + jnp.log(1 - x["log"])
    out = jnp.sum(fast, axis=-1) + slow + root + trap + jnp.exp(x["power"])
    carry = {"fast": fast, "slow": slow, "count": carry["count"] + 1}
    return carry, {"out": out, "offset": params["offset"] + jnp.zeros_like(out)}


def loss(y, target):
    edge = jnp.sqrt((1 - target["edge"]) * (1 + y["out"] ** 2))
    log = jnp.log(y["offset"] + target["log"])
    return (y["out"] - target["value"]) ** 2 + edge + log


def healthy():
    """Return arguments and options that make all values and gradients finite."""
    params = {
        "w": jnp.array([[0.5, -0.8], [0.9, 0.4]]),
        **dict.fromkeys(("gain", "base", "offset"), jnp.array(1.0)),
    }
    carry = {
        "fast": jnp.full((BATCH, 2), 0.1),
        "slow": jnp.full(BATCH, 0.5),
        "count": jnp.zeros(BATCH, int),
    }
    zeros = jnp.zeros((T, BATCH))
    xs = dict.fromkeys(("root", "gap", "edge", "log", "power"), zeros)
    xs["u"] = jnp.zeros((T, BATCH, 2))
    targets = dict.fromkeys(("value", "edge", "log"), zeros)
    options = {
        "weights": 1 + zeros,
        "mask": zeros == 0,
        "reset": zeros != 0,
        "initial": carry | {"slow": jnp.full(BATCH, 0.3)},
    }
    return {"params": params, "carry": carry, "xs": xs, "targets": targets, **options}


def put(*path, at, value):
    """Return a function that sets the array at `path` to `value`, at the index `at`."""

    def plant(given):
        *above, last = path
        node = given
        for name in above:
            node[name] = dict(node[name])
            node = node[name]
        node[last] = node[last].at[at].set(value)

    return plant


def both(*plants):
    def plant(given):
        for each in plants:
            each(given)

    return plant


NAN, INF = jnp.nan, jnp.inf
padding = put("mask", at=(3, 1), value=False)
# Inputs at padded steps are replaced by 0, where √ has an infinite slope.
UNDEFINED_IN_PADDING = both(
    padding,
    put("params", "base", at=(), value=0.0),
    put("xs", "root", at=slice(None), value=-1.0),
)
NO_LOG_IN_PADDING = both(
    padding,
    put("params", "offset", at=(), value=0.0),
    put("targets", "log", at=slice(None), value=1.0),
    lambda given: given.update(weights=None),
)
# A reset one step earlier sets `slow` to 0, where √slow² has no derivative.
BACK_TO_ZERO = both(
    put("reset", at=(2, 1), value=True),
    put("initial", "slow", at=1, value=0.0),
    put("xs", "edge", at=(3, 1), value=1.0),
)
FAULTS = {  # Format: {fault: (change, (pass, time step, place, …))}.
    "param": (
        put("params", "w", at=(0, 1), value=NAN),
        ("before", None, "params['w']"),
    ),
    "carry": (
        put("carry", "slow", at=0, value=INF),
        ("before", None, "carry['slow']"),
    ),
    "input": (put("xs", "u", at=(2, 0, 1), value=NAN), ("forward", 2, "xs['u']")),
    "target": (
        put("targets", "value", at=(4, 1), value=INF),
        ("forward", 4, "targets['value']"),
    ),
    "log of zero": (
        put("xs", "log", at=(1, 1), value=1.0),
        ("forward", 1, "carry['slow']"),
    ),
    "log of less": (
        put("xs", "log", at=(5, 0), value=2.0),
        ("forward", 5, "carry['slow']"),
    ),
    "overflow": (put("xs", "power", at=(3, 0), value=1e3), ("forward", 3, "y['out']")),
    "root of less": (
        put("xs", "root", at=(2, 1), value=2.0),
        ("forward", 2, "y['out']"),
    ),
    "loss": (put("targets", "log", at=(2, 0), value=-1.0), ("forward", 2, "loss")),
    "slope of a root": (
        put("xs", "root", at=(4, 0), value=1.0),
        ("backward", 4, "params['base']"),
    ),
    "slope in the loss": (
        put("targets", "edge", at=(1, 0), value=1.0),
        ("backward", 1, "y['out']"),
    ),
    "slope at the carry": (BACK_TO_ZERO, ("backward", 3, "carry['slow']")),
    "where": (
        put("xs", "gap", at=(2, 1), value=1.0),
        ("backward", 2, "params['gain']"),
    ),
    "mask too long": (
        both(padding, put("xs", "u", at=(slice(2, 4), 1), value=NAN)),
        ("forward", 2, "xs['u']"),
    ),
    "weight": (put("weights", at=(5, 1), value=NAN), ("forward", 5, "weights")),
    "initial": (
        both(
            put("reset", at=(4, 0), value=True),
            put("initial", "fast", at=(0, 0), value=NAN),
        ),
        ("forward", 4, "initial['fast']"),
    ),
    "slope in padding": (UNDEFINED_IN_PADDING, ("backward", 3, "params['base']")),
}


@jax.jit
def look(given):
    return diagnostics.first_nonfinite(step, loss, **given)


exact = jax.jit(lambda given: gradients.bptt(step, loss)(**given))


def is_finite(given):
    """Return whether the loss and the gradient of BPTT are finite."""
    (value, _), grads = exact(given)
    return bool(jnp.isfinite(value + sum(map(jnp.sum, jax.tree.leaves(grads)))))


@pytest.mark.parametrize("case", FAULTS)
def test_a_planted_fault_is_found(case):
    plant, expected = FAULTS[case]
    given = healthy()
    plant(given)
    assert not is_finite(given)
    found = look(given)
    assert found.first[:3] == expected
    assert found.first.numbers >= 1
    line = found.table().splitlines()[1]
    assert line.startswith(f"{expected[2]} ")
    assert expected[0] in line


HARMLESS = {
    "nothing": lambda given: None,
    "spoilt padding": both(
        padding,
        put("xs", "u", at=(3, 1), value=NAN),
        put("targets", "value", at=(3, 1), value=NAN),
        put("weights", at=(3, 1), value=NAN),
    ),
    "loss in padding": NO_LOG_IN_PADDING,
    "unused initial": put("initial", "slow", at=0, value=NAN),
    "reset in padding": both(
        padding,
        put("reset", at=(3, 1), value=True),
        put("initial", "slow", at=1, value=NAN),
    ),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_reaches_nothing_is_no_fault(case):
    given = healthy()
    HARMLESS[case](given)
    assert is_finite(given)
    found = look(given)
    assert found.first is None
    assert found.faults == []
    assert found.table() == "All is finite."


def test_sums_that_overflow_are_faults_of_their_own():
    network = lambda w, h, x: (h, w * x)
    args = jnp.float32(1), jnp.zeros(()), jnp.array([2e38, 2e38], jnp.float32)
    run = partial(diagnostics.first_nonfinite, network)
    forward = run(lambda y, target: y, *args, jnp.zeros(2), weights=jnp.array([3, 3.0]))
    # The mean of the losses is finite although their weighted sum overflows, so no
    # fault is reported.
    assert forward.first is None
    square = run(lambda y, target: y**2, *args, jnp.zeros(2))
    assert square.first[:3] == ("forward", 0, "loss")
    steep = run(lambda y, target: (y - y) * 3, *args, jnp.zeros(2))
    assert steep.first is None
    weights = jnp.array([1.5, -0.5], jnp.float32)  # the weights sum to 1
    summed = run(lambda y, target: y, *args, jnp.zeros(2), weights=weights)
    assert summed.first is None
    args = args[0], args[1], jnp.array([3e38, 3e38], jnp.float32)
    weights = jnp.array([2.0, -1.0], jnp.float32)
    product = run(lambda y, target: y, *args, jnp.zeros(2), weights=weights)
    assert product.first == diagnostics.Fault("forward", None, "value", 1)


PARAMS = {"a": jnp.array([1.0, -2.0], jnp.float32), "b": jnp.ones(2, jnp.float32)}


def planted(at, value, name="a"):
    ones = {name: jnp.ones((5, 2), jnp.float32) for name in PARAMS}
    return ones | {name: ones[name].at[at].set(value)}


def bare_adam(**options):
    return optax.adam(0.1, eps=0.0, **options)


UPDATES = {  # Format: {name: (optimizer, gradients, params, expected time and place)}.
    "nan gradient": (optax.adam(0.1), planted((3, 0), NAN), PARAMS, (3, "grads['a']")),
    "no epsilon": (
        bare_adam(),
        planted(slice(None), 0.0, "b"),
        PARAMS,
        (0, "updates['b']"),
    ),
    "square overflows": (
        optax.adam(0.1),
        planted((2, 1), 3e38),
        PARAMS,
        (2, "state[0].nu['a']"),
    ),
    "schedule": (
        optax.sgd(lambda t: 1 / (4.0 - t)),
        planted((0, 0), 1.0),
        PARAMS,
        (4, "updates['a']"),
    ),
    "sum overflows": (
        optax.sgd(1.0),
        planted((1, 0), -3e38, "b"),
        PARAMS | {"b": jnp.array([3e38, 1.0], jnp.float32)},
        (1, "params['b']"),
    ),
}


@pytest.mark.parametrize("case", UPDATES)
def test_a_fault_planted_in_an_optimizer_is_found(case):
    optimizer, grads, params, expected = UPDATES[case]
    look = jax.jit(partial(diagnostics.first_nonfinite_update, optimizer))
    # These optax updates promote dtypes, which the strict test settings forbid.
    with jax.numpy_dtype_promotion("standard"):
        found = look(params, optimizer.init(params), grads)
    assert found.first[1:3] == expected
    assert found.first.direction == "forward"
    assert found.table().splitlines()[1].startswith(expected[1])


def test_a_healthy_optimizer_that_takes_the_value():
    given = []

    def update(grads, state, params, value):
        given.append(value.shape)
        return jax.tree.map(lambda g: -value * g, grads), state

    found = diagnostics.first_nonfinite_update(
        update, PARAMS, (), planted((0, 0), 1.0), value=jnp.ones(5, jnp.float32)
    )
    assert found.first is None
    assert given[0] == ()
    assert found.params["a"].shape == (5,)


def test_state_that_is_spoilt_before():
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = jax.tree.map(lambda leaf: leaf * jnp.nan, optimizer.init(PARAMS))
    found = diagnostics.first_nonfinite_update(
        optimizer, PARAMS, state, planted((0, 0), 1.0)
    )
    assert found.first == ("before", None, "state[0].trace['a']", 2)


def test_bad_input():
    given = healthy()
    given["params"] = {"w": jnp.ones((2, 2), int)}
    with pytest.raises(ValueError, match=r"params\['w'\] must be a floating array"):
        diagnostics.first_nonfinite(step, loss, **given)
    given = healthy() | {"weights": jnp.ones(T)}
    with pytest.raises(ValueError, match="weights must have one entry for each loss"):
        diagnostics.first_nonfinite(step, loss, **given)
    optimizer = optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"each of the grads \[T, ...\] must have"):
        diagnostics.first_nonfinite_update(
            optimizer, PARAMS, optimizer.init(PARAMS), PARAMS
        )


def test_more_than_twenty_faults_are_planted():
    assert len(FAULTS) + len(UPDATES) >= 20
    assert np.unique([place for _, (_, _, place) in FAULTS.values()]).size >= 10
