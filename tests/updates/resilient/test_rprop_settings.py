"""Tests of settings of Rprop: step sizes per weight, weight decay, reverted steps."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates

PARAMS = {"layer": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "out": jnp.ones(2)}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)
same = np.testing.assert_array_equal
OPTIMIZERS = [updates.rprop, updates.probabilistic_rprop]


RPROP = (0.01, 0.5, 1.2, 1e-6, 50.0)
DEFAULTS = {
    "rprop": RPROP,
    "rprop_minus": RPROP,
    "rprop_plus": RPROP,
    "irprop_minus": RPROP,
    "irprop_plus": RPROP,
    "half_back": RPROP,
    "scale_by_rprop": RPROP,
    "grprop": (0.1, 0.5, 1.2, 1e-10, 0.1),
    "probabilistic_rprop": (0.01, 0.5, 1.2, 1e-9, 0.05),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_torch_or_of_the_source(name):
    names = ("learning_rate", "eta_minus", "eta_plus", "min_step_size", "max_step_size")
    parameters = inspect.signature(getattr(updates, name)).parameters
    assert tuple(parameters[each].default for each in names) == DEFAULTS[name]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_step_sizes_have_at_least_32_bits(dtype):
    optimizer, params = updates.rprop_minus(0.1), jnp.ones(2, dtype)
    state = optimizer.init(params)
    for _ in range(3):
        change, state = optimizer.update(params, state)
        assert change.dtype == dtype
    steps = optax.tree.get(state, "step_sizes")
    assert steps.dtype == (dtype if dtype == "float64" else "float32")
    np.testing.assert_allclose(np.abs(steps), 0.1 * 1.2**2, rtol=1e-6)


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.fast_rows(1)
def test_each_weight_may_have_its_own_numbers(make):
    first = {
        "layer": {"w": jnp.arange(6.0).reshape(2, 3) / 100 + 0.001, "b": 0.03},
        "out": jnp.array([0.01, 2.0]),
    }
    # The largest step size is 0.04 for all arrays of "layer", and 1.0 for the array
    # "out".
    greatest = {"layer": 0.04, "out": 1.0}
    for optimizer in (
        make(first, max_step_size=greatest),
        optax.masked(make(first, max_step_size=greatest), {"layer": True, "out": True}),
    ):
        steps, state = optimizer.update(GRADS, optimizer.init(PARAMS))
        close = partial(np.testing.assert_allclose, rtol=1e-12)
        close(-steps["layer"]["w"], jnp.minimum(first["layer"]["w"], 0.04))
        close(-steps["layer"]["b"], jnp.full(3, 0.03))
        close(-steps["out"], [0.01, 1.0])
        for _ in range(20):
            steps, state = optimizer.update(GRADS, state)
        close(-steps["layer"]["w"].reshape(-1)[1:], jnp.full(5, 0.04))
        np.testing.assert_allclose(-steps["out"][1], 1.0)


def test_what_is_masked_away_needs_no_numbers_and_may_have_some():
    mask = {"layer": {"w": True, "b": False}, "out": True}
    for rate in (
        {"layer": {"w": 0.1}, "out": 0.2},
        {"layer": {"w": 0.1, "b": 0.3}, "out": 0.2},
    ):
        optimizer = optax.masked(updates.rprop(rate), mask)
        steps, _ = optimizer.update(GRADS, optimizer.init(PARAMS))
        same(steps["layer"]["b"], GRADS["layer"]["b"])
        same(steps["layer"]["w"], jnp.full((2, 3), -0.1))
        same(steps["out"], jnp.full(2, -0.2))


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ({"layer": 0.1}, r"has nothing for params\['out'\]"),
        ({"layer": 0.1, "out": 0.1, "oat": 0.1}, r"\['oat'\] has no counterpart"),
        ({"layer": 0.1, "out": jnp.ones(3)}, r"\['out'\] must be .*shape \(2,\)"),
        (
            {"layer": jnp.ones(7), "out": 0.1},
            r"\['layer'\] .*\(3,\).*\['layer'\]\['b'\]",
        ),
    ],
)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_numbers_that_do_not_fit_params_are_named(make, rate, message):
    with pytest.raises(ValueError, match="learning_rate.*" + message):
        make(rate).init(PARAMS)


def test_mistakes_in_a_pytree_are_named():
    with pytest.raises(ValueError, match=r"learning_rate > 0, got -1.0"):
        updates.rprop({"layer": 0.1, "out": -1.0})
    with pytest.raises(ValueError, match=r"got min_step_size=2.0 and max_step_size=1"):
        updates.rprop(
            0.1,
            min_step_size={"layer": 0.1, "out": 2.0},
            max_step_size={"layer": 1.0, "out": 1.0},
        )
    with pytest.raises(ValueError, match="got the schedule"):
        updates.rprop({"layer": 0.1, "out": lambda step: 0.1})


def test_weight_decay_is_seen_by_the_sign():
    optimizer = updates.rprop(0.1, weight_decay=0.5)
    params, grads = jnp.array([4.0, 4.0, 0.0]), jnp.array([-1.0, -3.0, 0.0])
    steps, state = optimizer.update(grads, optimizer.init(params), params)
    # With weight decay, the gradients are −1 + ½·4 = 1 and −3 + ½·4 = −1.
    np.testing.assert_allclose(steps, [-0.1, 0.1, 0.0])
    with pytest.raises(ValueError, match="weight_decay needs params"):
        optimizer.update(grads, state)


def test_weight_decay_does_not_underflow_in_narrow_params():
    params = jnp.array([1e-3, -1e-3], jnp.float16)
    optimizer = updates.rprop(0.1, weight_decay=1e-6)
    step, _ = optimizer.update(0 * params, optimizer.init(params), params)
    # The relative precision of float16 is 1e-3.
    np.testing.assert_allclose(step, [-0.1, 0.1], rtol=1e-3)


def test_weight_decay_needs_params_of_the_shape_of_gradients():
    optimizer, w = updates.rprop(0.1, weight_decay=0.5), jnp.ones(3)
    with pytest.raises(ValueError, match=r"params must be of shape \(3,\)"):
        optimizer.update(w, optimizer.init(w), jnp.ones((3, 3)))
    optimizer = updates.rprop_plus(0.1, after=optax.identity())
    with pytest.raises(ValueError, match=r"params must be of shape \(3,\)"):
        optimizer.update(w, optimizer.init(w), jnp.ones((3, 3)))


@pytest.mark.parametrize("state", ["float32", "int8_sign", "packed", "bfloat16"])
def test_gradients_wider_than_params_keep_the_state_and_their_signs(state):
    """Check that a float64 gradient keeps its sign if it underflows in float32."""
    params = jnp.ones(3, jnp.float32)
    for optimizer in (updates.rprop(0.1, state=state), updates.grprop(0.1)):
        before = optimizer.init(params)
        step, after = optimizer.update(jnp.array([1e-100, -1e-100, 1.0]), before)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
        if "Scale" in type(before[0]).__name__:
            np.testing.assert_allclose(step, [-0.1, 0.1, -0.1], rtol=1e-2)


@pytest.mark.parametrize(
    ("decay", "message"),
    [
        (-0.1, "weight_decay must be at least 0, got -0.1"),
        (lambda step: 0.1, "weight_decay must be a number .*inject_hyperparams"),
        ({"w": 0.1}, "weight_decay must be a number .*optax.masked"),
    ],
)
def test_wrong_weight_decay_is_named(decay, message):
    with pytest.raises(ValueError, match=message):
        updates.rprop(0.1, weight_decay=decay)


def test_rates_that_are_no_rates_are_named():
    for rate in (np.array([-0.1, 0.1]), "0.1"):
        with pytest.raises(ValueError, match="learning_rate"):
            updates.rprop(rate)


def test_weight_decay_is_that_of_a_chain():
    decayed = optax.chain(optax.add_decayed_weights(0.5), updates.rprop(0.1))
    ours = updates.rprop(0.1, weight_decay=0.5)
    w, v = (jnp.array([1.0, -2.0, 0.3]) for _ in range(2))
    state, other = ours.init(w), decayed.init(v)
    for k in range(12):
        grads = jnp.sin(jnp.arange(3.0) + 0.7 * k)
        step, state = ours.update(grads, state, w)
        step_, other = decayed.update(grads, other, v)
        w, v = w + step, v + step_
        same(w, v)


CHANGES = {
    "scaled": optax.scale(0.3),
    "clipped": optax.clip(0.05),
    "decayed": optax.add_decayed_weights(-0.1),
    "kept_positive": optax.keep_params_nonnegative(),
    "traced": optax.trace(0.9),
}


@pytest.mark.parametrize("after", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", ["int8_sign", "packed", "bfloat16"])
@pytest.mark.parametrize("name", ["rprop_plus", "irprop_plus"])
@pytest.mark.fast_rows(6)
def test_steps_are_taken_back_exactly_whatever_became_of_them(name, state, after):
    key, dtype = jax.random.key(0), jnp.float32
    draw = jax.random.normal(key, (60, 300), dtype)
    optimizer = getattr(updates, name)(0.1, state=state, after=after)
    optimizer = optax.with_extra_args_support(optimizer)
    rule = updates.scale_by_rprop(0.1, variant=name, state="float32")

    @jax.jit
    def run(grads):
        def body(carry, inputs):
            w, state, bare, last = carry
            g, value = inputs
            step, state = optimizer.update(g, state, w, value=value)
            _, bare = rule.update(g, bare, value=value)
            new = optax.apply_updates(w, step)
            return (new, state, bare, w), (new, last, w, abs(bare.signs) == 2)

        w = jnp.abs(draw[0])
        start = w, optimizer.init(w), rule.init(w), w
        return jax.lax.scan(body, start, (grads, jnp.arange(60) % 4))[1]

    new, before, here, flipped = map(np.asarray, run(draw))
    worse = np.ones(60, bool) if name == "rprop_plus" else np.arange(60) % 4 > 0
    back = flipped & worse[:, None]
    a, b = np.abs(here), np.abs(before)
    near = (here * before > 0) & (a <= 2 * b) & (b <= 2 * a)
    assert back.sum() > 1000
    same(new[back & near], before[back & near])
    limit = np.spacing(np.abs(here - before)) / 2
    assert np.all(np.abs(new - before)[back] <= limit[back])
    assert (back & ~near).sum() > 10


def test_a_step_back_that_nobody_changed_needs_no_memory():
    """Compare steps reverted by their length with steps reverted by stored weights.

    With `after`, the state stores the previous weights; without `after`, the length of
    the step. The results agree up to rounding.
    """
    draw = jax.random.normal(jax.random.key(1), (50, 20))
    results = []
    for after in (None, optax.identity()):
        optimizer, w = updates.rprop_plus(0.1, after=after), jnp.zeros(20)
        state = optimizer.init(w)
        for g in draw:
            step, state = optimizer.update(g, state, w)
            w = w + step
        results.append(w)
    np.testing.assert_allclose(*results, atol=1e-14)


def test_a_nan_is_not_taken_back():
    optimizer, w = updates.rprop_plus(0.1, after=optax.identity()), jnp.ones(1)
    state = optimizer.init(w)
    # The second gradient has another sign than the first, so the state records a sign
    # change.
    for g in (1.0, -1.0):
        step, state = optimizer.update(jnp.array([g]), state, w)
        w = w + step
    step, state = optimizer.update(jnp.array([jnp.nan]), state, w)
    assert np.isnan(step)


def test_returning_needs_params():
    optimizer = updates.rprop_plus(0.1, after=optax.identity())
    with pytest.raises(ValueError, match="after needs params"):
        optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
