"""Tests of `check_gradients` and `compare` with gradients of known values."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import diagnostics, gradients
from experiments.through_time import influence_balancing as balancing

KEY = jax.random.key(3)


@cache
def checked(make, cell):
    def run(step, loss, args, options):
        rule = make(step, loss)
        return diagnostics.check_gradients(rule, *args, key=KEY, **options)

    return jax.jit(run, static_argnums=(0, 1))


def doubled_readout(step, loss):
    """Return a wrong rule: BPTT with its gradient doubled in the leaf "readout"."""

    def rule(*args, **options):
        value, grads = gradients.bptt(step, loss)(*args, **options)
        return value, grads | {"readout": 2 * grads["readout"]}

    return rule


@pytest.mark.parametrize("cell", ["tanh", "nested"])
@pytest.mark.fast_rows(1)
def test_an_exact_gradient_passes(make_problem, cell):
    step, loss, args, options = make_problem(cell)
    check = checked(gradients.bptt, cell)(step, loss, args, options)
    assert check.total < 1e-8
    assert max(jax.tree.leaves(check.error)) < 1e-8
    assert jax.tree.structure(check.error) == jax.tree.structure(args[0])
    assert {leaf.shape for leaf in jax.tree.leaves(check.numeric)} == {(4,)}
    assert max(jax.tree.leaves(check.rounding)) < 1e-8
    lines = check.table().splitlines()
    assert len(lines) == 2 + len(jax.tree.leaves(args[0]))


def test_a_wrong_leaf_is_found(make_problem):
    step, loss, args, options = make_problem("tanh")
    check = checked(doubled_readout, "tanh")(step, loss, args, options)
    np.testing.assert_allclose(check.error["readout"], 1, rtol=1e-7)
    assert max(jax.tree.leaves(check.error["hidden"])) < 1e-8
    (line,) = [row for row in check.table().splitlines() if "readout" in row]
    assert line.split()[3] == "1.000"
    assert "x64" not in check.table()


@pytest.mark.slow
def test_what_is_narrow_is_checked_in_float64():
    rule = jax.value_and_grad(lambda p: jnp.sum(jnp.abs(p["z"]) ** 2) * p["s"])
    params = {"z": jnp.array([1 + 2j, 3 - 1j], "complex64"), "s": jnp.bfloat16(0.5)}
    check = diagnostics.check_gradients(rule, params, key=KEY, directions=2)
    assert check.total.dtype == jnp.float64
    assert check.total < 1e-9


@pytest.mark.slow
def test_without_x64_it_says_so(plain_jax):
    rule = jax.value_and_grad(lambda w: jnp.sum(jnp.tanh(w)))
    with plain_jax():
        check = diagnostics.check_gradients(rule, jnp.arange(3.0), key=KEY)
        assert not jax.config.jax_enable_x64
        assert check.total.dtype == jnp.float32
        assert 1e-12 < check.total < 1e-3
        assert "x64 is off" in check.table()


SQUARE = jax.value_and_grad(lambda w: jnp.sum(w**2))
WRONG = {
    "integer": (SQUARE, jnp.arange(2), {}, r"params must be a floating array, got int"),
    "vector": (lambda w: (w, w), jnp.ones(2), {}, "one real number as its value"),
    "no pair": (lambda w: w, jnp.ones(2), {}, r"rule must return \(value, grads\)"),
    "shape": (lambda w: (w[0], w[:1]), jnp.ones(2), {}, "gradient that rule returns"),
    "directions": (SQUARE, jnp.ones(2), {"directions": 0}, "directions must be"),
    "step": (SQUARE, jnp.ones(2), {"step": -1.0}, "step must be positive"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_of_a_check(case):
    rule, params, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        diagnostics.check_gradients(rule, params, key=KEY, **options)


def test_an_online_rule_is_to_be_made_one_over_a_sequence(make_problem):
    step, loss, args, _ = make_problem("tanh")
    online, exact = gradients.rtrl(step, loss), gradients.bptt(step, loss)
    for rules in ((online, exact), (exact, online)):
        with pytest.raises(ValueError, match=r"gradients\.over_sequence makes a rule"):
            diagnostics.compare(*rules, *args)


@pytest.mark.parametrize("K", balancing.MEASURED)
@pytest.mark.fast_rows(3)
def test_comparison_reproduces_influence_balancing(K):
    """Compare cosine, norm ratio and signs of gradients with known values."""
    exact = gradients.bptt(balancing.step, lambda y, _: y)
    short = gradients.truncated_bptt(
        balancing.step, lambda y, _: y, every=1, lookback=K
    )
    xs, targets, weights = balancing.stream(balancing.FARTHEST)
    args = jnp.asarray(0.5), jnp.ones(balancing.UNITS), xs, targets
    compare = jax.jit(partial(diagnostics.compare, exact, short))
    found = compare(*args, weights=weights).total
    sensitivity = -6 * found.cosine * found.norm_ratio
    np.testing.assert_allclose(found.norm_a, 6, rtol=1e-6)
    measured = balancing.MEASURED[K].replace("−", "-")
    if measured == "first < 0":
        assert sensitivity < 0
    else:
        np.testing.assert_allclose(sensitivity, float(measured), atol=5e-4)
    right = K >= 41
    assert (found.cosine, found.sign_agreement) == ((1, 1) if right else (-1, 0))
    np.testing.assert_allclose(found.angle, 0 if right else 180)
    np.testing.assert_allclose(
        found.relative_error, abs(sensitivity + 6) / 6, rtol=1e-6
    )


def gives(grads):
    return lambda params: (jnp.zeros(()), grads)


def test_comparison_of_known_vectors():
    a = {"right": jnp.array([1.0, 0]), "none": jnp.zeros(2), "far": jnp.array([3.0, 4])}
    b = {"right": jnp.array([0, 2.0]), "none": jnp.ones(2), "far": jnp.array([3.0, 4])}
    found = jax.jit(partial(diagnostics.compare, gives(a), gives(b)))(a)
    right, none, far = (found.leaves[name] for name in ("right", "none", "far"))
    np.testing.assert_allclose(right[:5], [1, 2, 0, 90, 2], atol=1e-14)
    assert right.sign_agreement == 0
    np.testing.assert_allclose(right.relative_error, 5**0.5)
    assert np.isnan([none.cosine, none.angle, none.norm_ratio]).all()
    # A cosine is at most 1, even after rounding.
    assert (far.angle, far.norm_ratio, far.relative_error) == (0, 1, 0)
    np.testing.assert_allclose(found.total.cosine, 25 / (26 * 31) ** 0.5)
    np.testing.assert_allclose(found.total.sign_agreement, 2 / 6)
    assert "['none']: a is zero and has no direction." in found.table()


def test_gradients_that_have_nearly_vanished_are_not_zero():
    a = jnp.array([3e-30, 4e-30], jnp.float32)
    b = jnp.array([4e-30, 3e-30], jnp.float32)
    found = diagnostics.compare(gives(a), gives(b), a)
    np.testing.assert_allclose(found.total.norm_a, 5e-30, rtol=1e-6)
    np.testing.assert_allclose(found.total.cosine, 24 / 25, rtol=1e-6)
    assert repr(found) == "Comparison(cosine .9600, relative error .2828)"


def test_nan_is_not_taken_for_zero():
    a, b = jnp.array([1.0, jnp.nan]), jnp.ones(2)
    found = diagnostics.compare(gives(a), gives(b), a)
    assert np.isnan(found.total.norm_a)
    assert "is zero" not in found.table()
