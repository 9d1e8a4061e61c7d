"""Tests of the Rprop family, against plain loops as in the papers."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from bpvariants import updates

VARIANTS = ["rprop_plus", "rprop_minus", "irprop_plus", "irprop_minus", "half_back"]


def loop(variant, grads, values, size, up=1.2, down=0.5):
    """Yield the steps of one weight, by a plain Python loop, as in the papers."""
    last_grad, last_step, last_value = 0, 0, np.inf
    for grad, value in zip(grads, values, strict=True):
        product = np.sign(last_grad) * np.sign(grad)
        if product > 0:
            size = min(size * up, 50.0)
        elif product < 0:
            size = max(size * down, 1e-6)
        step = -np.sign(grad) * size
        if product < 0 and variant == "half_back":
            grad = 0
        elif product < 0 and variant != "rprop_minus":
            back = {
                "rprop_plus": True,
                "irprop_plus": value > last_value,
                "irprop_minus": False,
            }[variant]
            step, grad = (-last_step if back else 0), 0
        yield step
        last_grad, last_step, last_value = grad, step, value


@cache
def runner(variant, **arguments):
    rule = updates.scale_by_rprop(0.1, variant=variant, **arguments)

    @jax.jit
    def run(grads, values):
        def body(state, inputs):
            grad, value = inputs
            move, state = rule.update(grad, state, value=value)
            return state, -move

        return jax.lax.scan(body, rule.init(grads[0]), (grads, values))[1]

    return run


def run(variant, grads, values=None):
    grads = jnp.asarray(grads)
    values = jnp.zeros(len(grads)) if values is None else jnp.array(values, float)
    return runner(variant)(grads, values)


signs = st.lists(st.integers(-2, 2), min_size=40, max_size=40)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None)
@given(signs, signs)
@pytest.mark.fast_rows(3)
def test_equals_the_loop_of_its_paper(variant, grads, values):
    got = run(variant, jnp.array(grads, float), values)
    want = list(loop(variant, grads, values, 0.1))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("state", ["float32", "int8_sign"])
def test_thousands_of_random_updates_equal_the_loop(variant, state):
    """Compare thousands of updates of eight weights with the plain loop.

    The gradients include zeros, infinities and tiny values.
    """
    draw = np.random.default_rng(7)
    grads = draw.normal(size=(2000, 8)) * 10.0 ** draw.integers(-200, 200, (2000, 8))
    grads += draw.normal(size=8) * (np.arange(2000) % 50 > 30)[:, None]
    grads[draw.random(grads.shape) < 0.1] = 0
    grads[draw.random(grads.shape) < 0.01] = -np.inf
    values = draw.normal(size=2000)
    got = runner(variant, state=state)(jnp.array(grads), jnp.array(values))
    for i in range(8):
        want = list(loop(variant, grads[:, i], values, 0.1))
        np.testing.assert_allclose(got[:, i], want, rtol=1e-12)


@settings(deadline=None)
@given(signs)
def test_irprop_plus_lies_between_rprop_plus_and_irprop_minus(grads):
    grads = jnp.array(grads, float)
    rising = run("irprop_plus", grads, np.arange(40))
    np.testing.assert_array_equal(rising, run("rprop_plus", grads))
    for values in (-np.arange(40), np.ones(40)):
        falling = run("irprop_plus", grads, values)
        np.testing.assert_array_equal(falling, run("irprop_minus", grads))


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None)
@given(signs)
def test_only_signs_count(variant, grads):
    grads = jnp.array(grads, float)
    scales = 10.0 ** jax.random.uniform(jax.random.key(0), (40,), float, -100, 100)
    values = np.arange(40) % 3
    want = run(variant, grads, values)
    np.testing.assert_array_equal(run(variant, scales * grads, values), want)


def test_without_adaptation_it_is_the_manhattan_rule():
    grads = jnp.array([1.0, 2.0, -1.0, -3.0, 0.0, 1.0, -1.0])
    once = {"eta_minus": jnp.array(1.0), "eta_plus": jnp.array(1.0)}
    for variant in ("rprop_plus", "rprop_minus", "half_back", "manhattan"):
        settings = {} if variant == "manhattan" else once
        rule = updates.scale_by_rprop(0.1, **settings, variant=variant)
        body = lambda state, grad, rule=rule: rule.update(grad, state)[::-1]
        _, got = jax.lax.scan(body, rule.init(grads[0]), grads)
        np.testing.assert_array_equal(-got, -0.1 * np.sign(grads))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "tiny"),
    [("float32", 1e-30), ("float16", 1e-4), ("bfloat16", 1e-30), ("float64", 1e-300)],
)
def test_products_of_small_gradients_do_not_underflow(variant, dtype, tiny):
    grads = jnp.array([1.0, 1, 1, -1, 1, 1])
    got = run(variant, (tiny * grads).astype(dtype))
    assert got.dtype == dtype
    rtol = max(1e-12, float(jnp.finfo(dtype).eps))
    np.testing.assert_allclose(got.astype(float), run(variant, grads), rtol=rtol)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nan_gradient_is_loud_and_leaves_the_state(variant):
    got = run(variant, [1.0, 1.0, jnp.nan, 1.0, jnp.nan, -1.0])
    want = run(variant, [1.0, 1.0, 1.0, -1.0])
    np.testing.assert_array_equal(got[jnp.array([0, 1, 3, 5])], want)
    assert np.isnan(got[2])
    assert np.isnan(got[4])


def test_infinite_gradient_is_an_ordinary_one():
    got = run("irprop_minus", [1.0, jnp.inf, -jnp.inf])
    np.testing.assert_allclose(got, [-0.1, -0.12, 0.0], rtol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_step_sizes_keep_float32_where_params_are_bfloat16(variant):
    want = run(variant, jnp.ones(30))
    got = run(variant, jnp.ones(30, jnp.bfloat16))
    np.testing.assert_allclose(got.astype(float), want, rtol=2**-8)


@pytest.mark.parametrize(("first", "want"), [(100.0, 50.0), (1e-9, 1e-6)])
def test_first_step_size_is_clipped(first, want):
    state = updates.rprop(first).init(jnp.array(0.0))
    assert optax.tree.get(state, "step_sizes") == want
    state = jax.jit(lambda first: updates.rprop(first).init(jnp.array(0.0)))(first)
    assert optax.tree.get(state, "step_sizes") == want


def test_two_names_are_one_rule_and_each_says_its_own():
    states = [
        make().init(jnp.zeros(2)) for make in (updates.rprop, updates.irprop_minus)
    ]
    chex.assert_trees_all_equal(*states)
    for name in ("rprop", "irprop_minus", "half_back"):
        make = getattr(updates, name)
        with pytest.raises(ValueError, match=f"^{name} needs learning_rate > 0"):
            make(-1.0)
        with pytest.raises(TypeError, match=rf"^{name}\(\) .* 'learning_rates'"):
            make(learning_rates=0.1)


FAMILY = [*VARIANTS, "rprop", "scale_by_rprop", "grprop", "probabilistic_rprop"]


@pytest.mark.parametrize("name", FAMILY)
def test_first_step_size_has_a_default(name):
    state = getattr(updates, name)().init(jnp.zeros(()))
    want = 0.1 if name == "grprop" else 0.01
    assert optax.tree.get(state, "step_sizes") == want


@pytest.mark.parametrize("name", [*FAMILY, "manhattan", "forgetting"])
def test_names_of_pytorch_are_refused_with_ours(name):
    make = getattr(updates, name)
    with pytest.raises(TypeError, match=f"{name} has no .*lr=0.1; use learning_rate"):
        make(lr=0.1)
    if name in FAMILY:
        with pytest.raises(TypeError, match=r"etas=.*; use eta_minus and eta_plus"):
            make(0.1, etas=(0.5, 1.2))
        with pytest.raises(TypeError, match="use min_step_size and max_step_size"):
            make(step_sizes=(1e-6, 50))
    if name == "forgetting":
        with pytest.raises(TypeError, match="use decay"):
            make(0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta_plus": 0.9}, "eta_minus < 1 < eta_plus, got .*eta_plus=0.9"),
        ({"eta_minus": 1.0}, "eta_minus < 1 < eta_plus, got eta_minus=1.0"),
        ({"min_step_size": 60.0}, "got min_step_size=60.0.*swap"),
        ({"min_step_size": -1.0}, "got min_step_size=-1.0"),
        ({"learning_rate": 0.0}, "learning_rate > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate > 0, got nan"),
        ({"learning_rate": lambda step: 0.1}, "learning_rate must be a number"),
        ({"learning_rate": None}, "learning_rate must be a number, got None"),
        ({"learning_rate": True}, "learning_rate must be a number, got True"),
        ({"learning_rate": jnp.array([0.1, -1.0])}, "learning_rate > 0, got .*-1"),
        ({"eta_plus": "1.2"}, "eta_plus must be a number, got '1.2'"),
        ({"eta_minus": {"w": 0.5}}, "eta_minus must be a number, got {'w'"),
        ({"min_step_size": lambda step: 0.1}, "min_step_size must be a number"),
        ({"min_step_size": jnp.array(60.0)}, "got min_step_size=60.0.*swap"),
        ({"min_step_size": np.array([1.0, 60.0])}, r"min_step_size=\[ 1. 60.\]"),
    ],
)
@pytest.mark.parametrize(
    "name", [*VARIANTS, "scale_by_rprop", "grprop", "probabilistic_rprop"]
)
def test_mistakes_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(updates, name)(**{"learning_rate": 0.1} | arguments)


def test_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"one of .*'irprop_minus'.*, got 'sarprop'"):
        updates.scale_by_rprop(0.1, variant="sarprop")
    with pytest.raises(ValueError, match=r"state must be .*'packed'.*, got 'int4'"):
        updates.rprop(0.1, state="int4")


def test_irprop_plus_says_how_to_pass_the_loss():
    optimizer, w = updates.irprop_plus(0.1), jnp.ones(3)
    state = optimizer.init(w)
    remedy = r"call optimizer.update\(grads, state, params, value=value\)"
    with pytest.raises(ValueError, match=remedy):
        optimizer.update(w, state, w)
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        optimizer.update(w, state, w, value=w)
