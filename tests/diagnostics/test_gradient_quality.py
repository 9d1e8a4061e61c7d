"""Tests of `gradient_quality` against NumPy, for biased and unbiased gradient rules."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bpvariants import diagnostics, gradients
from bpvariants._tables import short

KEYS = 400


def step(params, h, x):
    h = jnp.tanh(h @ params["recurrent"] + x @ params["input"])
    return h, h @ params["readout"]


def squared(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def problem(T=5, batch=2):
    draw = np.random.default_rng(0).normal
    shapes = {"recurrent": (3, 3), "input": (2, 3), "readout": (3, 2)}
    params = {name: draw(size=shape) for name, shape in shapes.items()}
    rest = (draw(size=shape) for shape in [(batch, 3), (T, batch, 2), (T, batch, 2)])
    return jax.tree.map(jnp.asarray, (params, *rest))


PROBLEM = problem()
EXACT = gradients.bptt(step, squared)


def noisy(draw):
    """Return a rule that multiplies the exact gradient by a random number, draw(key).

    The rule compiles faster than the random rules of the library.
    """

    def rule(*args, key, **options):
        aux, grads = EXACT(*args, **options)
        return aux, jax.tree.map(lambda g: draw(key) * g, grads)

    return rule


def ask(rule, **options):
    """Measure the quality of a rule on the test problem, in one jitted function."""
    measure = partial(diagnostics.gradient_quality, rule, step, squared)
    return jax.jit(lambda args: measure(*args, **options))(PROBLEM)


RULES = {  # Format: {name: (rule, whether it is random)}.
    "rtrl": (gradients.rtrl(step, squared), False),
    "truncated": (gradients.truncated_bptt(step, squared, every=1, lookback=1), False),
    "artbp": (gradients.artbp(step, squared, truncation=0.3), True),
    "uoro": (gradients.uoro(step, squared), True),
}


@cache
def quality(name):
    rule, random = RULES[name]
    keys = jax.random.split(jax.random.key(1), KEYS) if random else None
    return ask(rule, keys=keys)


def by_numpy(estimates, exact):
    """Compute, in NumPy, all quality measures of K gradient estimates [K, size]."""
    norm, mean = np.linalg.norm(exact), estimates.mean(axis=0)
    lengths = np.linalg.norm(estimates, axis=1)
    cosines = estimates @ exact / (lengths * norm)
    variance = np.trace(np.atleast_2d(np.cov(estimates.T))) / norm**2
    errors = np.linalg.norm(estimates - exact, axis=1)
    return {
        "norm": norm,
        "bias": np.linalg.norm(mean - exact) / norm,
        "bias_standard_error": np.sqrt(variance / len(estimates)),
        "variance": variance,
        "error": np.sqrt(np.mean(errors**2)) / norm,
        "cosine": cosines.mean(),
        "cosine_deviation": cosines.std(),
        "norm_ratio": np.mean(lengths) / norm,
        "sign_agreement": np.mean(np.sign(estimates) == np.sign(exact)),
        "zeros": np.mean(lengths == 0),
    }


def test_all_measures_are_what_they_are_defined_as():
    rule, _ = RULES["artbp"]
    keys = jax.random.split(jax.random.key(1), KEYS)
    one = lambda key: rule(*PROBLEM, key=key)[1]
    estimates = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))
    exact = jax.tree.map(np.asarray, jax.jit(EXACT)(*PROBLEM)[1])
    got = quality("artbp")
    flat = lambda name: estimates[name].reshape(KEYS, -1)
    for name in exact:
        want = by_numpy(flat(name), exact[name].ravel())
        np.testing.assert_allclose(
            list(got.leaves[name]), list(want.values()), rtol=1e-9, atol=1e-12
        )
        assert got.leaves[name]._fields == tuple(want)
    together = np.concatenate([flat(name) for name in exact], axis=1)
    want = by_numpy(together, np.concatenate([g.ravel() for g in exact.values()]))
    np.testing.assert_allclose(
        list(got.total), list(want.values()), rtol=1e-9, atol=1e-12
    )


@pytest.mark.slow
def test_a_bias_is_told_from_none():
    exact = quality("rtrl").total
    assert exact.error < 1e-14
    assert exact.cosine == pytest.approx(1, abs=1e-14)
    assert (exact.variance, exact.bias_standard_error, exact.zeros) == (0, 0, 0)
    random = quality("artbp").total
    assert random.error > 0.15
    assert random.bias < 4 * random.bias_standard_error < 0.04
    uoro = quality("uoro").total
    assert uoro.error > 0.5
    assert uoro.bias < 4 * uoro.bias_standard_error < 0.2
    truncated = quality("truncated").total
    assert truncated.bias == pytest.approx(float(truncated.error), rel=1e-12)
    assert truncated.bias > 0.15
    assert truncated.bias > 4 * truncated.bias_standard_error

    keys = jax.random.split(jax.random.key(1), KEYS)
    third = noisy(lambda key: (1 + jax.random.normal(key)) / 3)
    biased = ask(third, keys=keys).total
    assert biased.bias > 4 * biased.bias_standard_error
    assert abs(biased.bias - 2 / 3) < 4 * biased.bias_standard_error
    # The variance cannot be estimated from one gradient, so it is NaN, neither 0 nor
    # infinite.
    one = ask(third, keys=keys[:1]).total
    assert np.isnan(one.variance)
    assert np.isnan(one.bias_standard_error)
    assert one.error > 0


@pytest.mark.slow
def test_keys_a_few_at_once_and_old_keys_are_the_same():
    keys = jax.random.split(jax.random.key(1), 10)
    rule = noisy(jax.random.normal)
    want = ask(rule, keys=keys)
    assert want.total.variance > 0.1
    got = ask(rule, keys=jax.random.key_data(keys), at_once=4)
    chex.assert_trees_all_close(got, want, rtol=1e-10)


@pytest.mark.slow
def test_flags_and_weights_reach_both_rules(make_problem):
    tanh, loss, args, more = make_problem("tanh")
    measure = partial(
        diagnostics.gradient_quality, gradients.rtrl(tanh, loss), tanh, loss
    )
    found = jax.jit(lambda options: measure(*args, **options))(more)
    assert found.total.error < 1e-12
    is_measures = lambda node: isinstance(node, diagnostics.QualityMeasures)
    assert jax.tree.structure(args[0]) == jax.tree.structure(
        found.leaves, is_leaf=is_measures
    )
    # Also compare the exact gradient that `gradient_quality` computes with BPTT. An
    # error in passing masks, resets and weights to both gradients would otherwise go
    # unnoticed.
    exact = jax.jit(lambda options: gradients.bptt(tanh, loss)(*args, **options))
    flat, _ = jax.flatten_util.ravel_pytree(exact(more)[1])
    assert found.total.norm == pytest.approx(float(jnp.linalg.norm(flat)), rel=1e-12)


def test_arrays_without_gradient_are_reported():
    """Check that the cosine is NaN if the exact gradient or the estimate is zero."""

    # No loss of this network depends on the parameter `input`.
    def silent(params, h, x):
        h = jnp.tanh(h @ params["recurrent"])
        return h, h @ params["readout"]

    def forgetful(*args, **options):
        aux, grads = gradients.bptt(silent, squared)(*args, **options)
        return aux, grads | {"recurrent": 0 * grads["recurrent"]}

    measure = partial(diagnostics.gradient_quality, forgetful, silent, squared)
    found = jax.jit(measure)(*PROBLEM)
    nothing, lost, kept = (
        found.leaves[name] for name in ("input", "recurrent", "readout")
    )
    assert nothing.norm == 0
    assert nothing.zeros == nothing.sign_agreement == 1
    for measure in ("bias", "variance", "error", "cosine", "norm_ratio"):
        assert np.isnan(getattr(nothing, measure)), measure
    assert lost.zeros == lost.bias == lost.error == 1
    assert np.isnan(lost.cosine)
    assert lost.sign_agreement == lost.norm_ratio == 0
    assert kept.error == 0
    assert 0 < found.total.cosine < 1
    # Seven quality measures of the parameter `input` and two of `recurrent` are NaN.
    assert found.table().count("nan") == 7 + 2


def test_where_only_some_draws_are_zero_the_cosine_is_of_the_others():
    """Check that the cosine is averaged only over the estimates that are not zero.

    Each estimate is 0 or twice the exact gradient, so the mean cosine must be 1.
    """
    either = noisy(lambda key: 2 * jax.random.bernoulli(key).astype(float))
    found = ask(either, keys=jax.random.split(jax.random.key(0), 100)).total
    share = float(found.zeros)
    assert 0.3 < share < 0.7
    assert found.cosine == pytest.approx(1, rel=1e-12)
    assert found.cosine_deviation == pytest.approx(0, abs=1e-7)
    assert found.bias == pytest.approx(abs(1 - 2 * share), abs=1e-12)
    assert found.variance == pytest.approx(400 / 99 * share * (1 - share), rel=1e-12)


@pytest.mark.parametrize("lookback", [1, 3])
@pytest.mark.fast_rows(1)
def test_probe_p(make_probe, lookback):
    """Compare relative errors on probe P, a small network, with known values."""
    step, loss, args, _ = make_probe()
    want = {1: 0.813935, 3: 0.634267}[lookback]
    rule = gradients.truncated_bptt(step, loss, every=lookback, lookback=lookback)
    found = diagnostics.gradient_quality(rule, step, loss, *args)
    assert found.total.error == pytest.approx(want, abs=5e-7)


def test_probe_p_of_snap(make_probe):
    step, loss, args, _ = make_probe()
    rule = gradients.snap(step, loss, order=1)
    measure = partial(diagnostics.gradient_quality, rule, step, loss)
    found = jax.jit(measure)(*args).total
    assert found.error == pytest.approx(1.203647, abs=5e-7)
    assert found.cosine == pytest.approx(0.394891, abs=5e-7)


@cache
def training():
    """Measure gradient quality for three sets of params, by lax.map and one by one."""
    rule, _ = RULES["truncated"]
    params, *rest = PROBLEM
    shrink = jnp.array([1.0, 0.5, 0.1])
    snapshots = jax.tree.map(lambda p: jnp.stack([s * p for s in shrink]), params)
    traces = []

    @jax.jit
    def measure(params):
        traces.append(1)
        return diagnostics.gradient_quality(rule, step, squared, params, *rest)

    along = jax.jit(lambda stack: jax.lax.map(measure, stack))(snapshots)
    moments = [
        measure(jax.tree.map(lambda p, i=i: p[i], snapshots))
        for i in range(len(shrink))
    ]
    return along, moments, traces


@pytest.mark.slow
def test_over_a_training_it_has_an_axis_more():
    along, moments, traces = training()
    chex.assert_trees_all_close(
        along, jax.tree.map(lambda *ms: jnp.stack(ms), *moments), rtol=1e-10, atol=1e-14
    )
    # The mapped call and the separate calls use the same traced function.
    assert len(traces) == 1
    # With smaller weights, error signals decay faster, so truncation has a smaller
    # error.
    assert (np.diff(along.total.error) < 0).all()


def test_tables():
    along, moments, _ = training()
    lines = moments[0].table().splitlines()
    assert [line.split()[0] for line in lines] == [
        "norm", "total", "['input']", "['readout']", "['recurrent']",
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1
    bias = f"{float(moments[0].total.bias):.4f}".removeprefix("0")
    assert lines[1].split()[2] == bias
    names = [line.split()[0] for line in along.table([0, 100, 200]).splitlines()]
    assert names == ["norm", "0", "100", "200"]
    with pytest.raises(ValueError, match="steps must name 3 moments, got 2"):
        along.table([0, 1])
    with pytest.raises(ValueError, match="these are of one moment"):
        moments[0].table([0])
    with pytest.raises(ValueError, match=r"only one axis .* \(1, 3\)"):
        jax.tree.map(lambda a: a[None], along).table()


def test_pictures():
    along, moments, _ = training()
    left, right = Figure().subplots(1, 2)
    assert moments[0].plot(left, "bias", label="truncated") is left
    quality("artbp").plot(left, "bias", label="artbp")
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert names == ["['recurrent']", "['readout']", "['input']", "total"]
    (points,) = left.containers[1].lines[:1]
    np.testing.assert_allclose(points.get_xdata()[-1], quality("artbp").total.bias)
    along.plot(right, "cosine", [0, 100, 200])
    np.testing.assert_array_equal(right.lines[0].get_xdata(), [0, 100, 200])
    np.testing.assert_allclose(right.lines[0].get_ydata(), along.total.cosine)
    with pytest.raises(ValueError, match=r"measure must be one of norm, bias, .*'x'"):
        along.plot(right, "x")
    assert moments[0].plot().get_xlabel() == "cosine"  # in a new figure
    plt.close()


def test_a_result_is_shown_in_a_few_words():
    along, moments, _ = training()
    cosine, bias = (short(x) for x in (moments[0].total.cosine, moments[0].total.bias))
    assert repr(moments[0]) == f"GradientQuality(cosine {cosine}, bias {bias})"
    assert repr(along) == "GradientQuality(measures at 3 times)"
    total = quality("artbp").total
    assert repr(quality("artbp")) == (
        f"GradientQuality(cosine {short(total.cosine)}, bias {short(total.bias)} ± "
        f"{short(total.bias_standard_error)}, variance {short(total.variance)})"
    )


@pytest.mark.slow
def test_params_in_low_precision_are_measured_in_float32():
    args = jax.tree.map(lambda a: a.astype(jnp.bfloat16), PROBLEM)
    rule, _ = RULES["truncated"]
    found = jax.jit(partial(diagnostics.gradient_quality, rule, step, squared))(*args)
    want = quality("truncated").total
    assert found.total.error.dtype == jnp.float32
    for got, exact in zip(found.total, want, strict=True):
        assert got == pytest.approx(float(exact), abs=0.05)


def test_mistakes_are_explained():
    rule, _ = RULES["artbp"]
    key = jax.random.key(0)
    for wrong in (key, jax.random.split(key, (2, 2)), jax.random.split(key, 0)):
        with pytest.raises(ValueError, match=r"keys must have one axis.*split"):
            ask(rule, keys=wrong)
    with pytest.raises(ValueError, match=r"at_once must be an integer .* got 0"):
        ask(rule, keys=jax.random.split(key, 2), at_once=0)
    for wrong in ({"rule": "snap"}, {"rule": RULES["artbp"][0], "reference": 1}):
        with pytest.raises(ValueError, match=r"(rule|reference) must be a gradient"):
            diagnostics.gradient_quality(
                step=step, loss=squared, params=PROBLEM[0], carry=PROBLEM[1],
                xs=PROBLEM[2], targets=PROBLEM[3], **wrong,
            )  # fmt: skip
    with pytest.raises(ValueError, match=r"needs keys.*keys=jax.random.split\("):
        ask(rule)
