"""Tests of `forgetting`: the tutorial's sum, results of optax, stability limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates

printed = partial(updates.forgetting, scale_past=False)
normalised = partial(updates.forgetting, normalise=True)
FORMS = [updates.forgetting, printed, normalised]
GRADS = np.array([[1.0, -0.3], [2.0, 0.7], [3.0, 0.0], [-1.0, 0.2], [0.5, -4.0]])
pytestmark = pytest.mark.filterwarnings("ignore:forgetting with scale_past=False")


def run(optimizer, grads=GRADS):
    body = lambda state, grad: optimizer.update(grad, state)[::-1]
    grads = jnp.asarray(grads)
    return jax.lax.scan(body, optimizer.init(grads[0]), grads)[1]


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.5])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_recursion_is_the_printed_sum(rate, decay):
    powers = decay ** np.arange(len(GRADS))
    sums = [powers[n::-1] @ GRADS[: n + 1] for n in range(len(GRADS))]
    # In the printed form, only the newest gradient is multiplied by the learning rate.
    want = -(np.array(sums) + (rate - 1) * GRADS)
    np.testing.assert_allclose(run(printed(rate, decay)), want, rtol=1e-12, atol=1e-12)
    scaled = run(updates.forgetting(rate, decay))
    np.testing.assert_allclose(scaled, -rate * np.array(sums), rtol=1e-12, atol=1e-12)
    want = -rate * (1 - decay) * np.array(sums)
    np.testing.assert_allclose(run(normalised(rate, decay)), want, rtol=1e-12)


def test_printed_form_is_optax_trace_and_a_gradient():
    want = -(run(optax.trace(0.9)) + (0.1 - 1) * GRADS)
    np.testing.assert_allclose(run(printed(0.1, 0.9)), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(run(printed(1.0, 0.9)), -run(optax.trace(0.9)))


def test_scaled_form_is_optax_sgd_exactly():
    got = run(updates.forgetting(0.1, 0.9))
    np.testing.assert_array_equal(got, run(optax.sgd(0.1, momentum=0.9)))


def test_normalised_form_is_a_moving_average():
    average = optax.chain(optax.ema(0.9, debias=False), optax.scale(-0.1))
    np.testing.assert_allclose(run(normalised(0.1, 0.9)), run(average), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_sum_of_narrow_gradients_is_rounded_once(dtype):
    """Sum low-precision gradients; a float16 sum would overflow."""
    grads = jnp.full((50, 2), 6e4, dtype)
    steps = run(updates.forgetting(1e-3, 0.9), grads)
    assert steps.dtype == dtype
    want = run(updates.forgetting(1e-3, 0.9), grads.astype(jnp.float32))
    np.testing.assert_array_equal(steps, want.astype(dtype))


@pytest.mark.parametrize("form", FORMS)
def test_without_memory_it_is_gradient_descent(form):
    np.testing.assert_array_equal(run(form(0.1, 0.0)), run(optax.sgd(0.1)))


def largest_eigenvalue(optimizer, curvature):
    """Return the spectral radius of a step (w, m) -> (w, m) on the loss h w^2 / 2.

    Here w is a weight, h is the curvature, and m is the trace of past gradients.
    """

    def step(w_and_trace):
        w, trace = w_and_trace
        state = optax.tree.set(optimizer.init(w), trace=trace)
        update, state = optimizer.update(curvature * w, state)
        return jnp.stack([w + update, optax.tree.get(state, "trace")])

    return np.abs(np.linalg.eigvals(jax.jacobian(step)(jnp.ones(2)))).max()


@pytest.mark.parametrize(
    ("form", "limits"),
    [
        (printed, [1.0101, 0.112233, 0.010203]),
        (updates.forgetting, [300.0, 380.0, 398.0]),
        (normalised, [600.0, 3800.0, 39800.0]),
    ],
)
def test_stability_limits(form, limits):
    """Check that a weight decays for curvatures below the limit, and grows above it.

    The loss is h w^2 / 2 with curvature h, and the limit depends on the decay.
    """
    for decay, limit in zip([0.5, 0.9, 0.99], limits, strict=True):
        optimizer = form(0.01, decay)
        assert largest_eigenvalue(optimizer, 0.9999 * limit) < 1
        assert largest_eigenvalue(optimizer, 1.0001 * limit) > 1


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("rate", [0.001, 0.4, 1.0, 3.0])
def test_stability_limits_are_the_formulas(rate, decay):
    bounds = [np.inf]
    if rate < 1:
        bounds.append((1 - decay) / (decay * (1 - rate)))
    if rate > 1:
        bounds.append((1 + decay) / (decay * (rate - 1)))
    if rate * (1 + decay) > decay:
        bounds.append(2 * (1 + decay) / (rate * (1 + decay) - decay))
    forms = {printed: min(bounds), updates.forgetting: 2 * (1 + decay) / rate}
    forms[normalised] = forms[updates.forgetting] / (1 - decay)
    for form, limit in forms.items():
        optimizer = form(rate, decay)
        assert largest_eigenvalue(optimizer, (1 - 1e-9) * limit) < 1
        assert largest_eigenvalue(optimizer, (1 + 1e-9) * limit) > 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradient_that_is_not_finite_is_loud_and_not_remembered(form, bad):
    optimizer = form(0.1, 0.5)
    got = run(optimizer, [[1.0, 1.0], [bad, 1.0], [2.0, 1.0]])
    assert not np.isfinite(got[1, 0])
    np.testing.assert_array_equal(got[2, 0], run(optimizer, [[1.0], [2.0]])[1, 0])
    np.testing.assert_array_equal(got[:, 1], run(optimizer, np.ones((3, 1)))[:, 0])


def test_trace_keeps_float32_where_params_are_bfloat16():
    # A bfloat16 sum of these 1000 gradients would stop growing at half its value.
    ones = jnp.ones((1000, 1))
    got = run(updates.forgetting(1.0, 0.999), ones.astype(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    want = run(updates.forgetting(1.0, 0.999), ones)
    np.testing.assert_allclose(got.astype(float), want, rtol=2**-8)


@pytest.mark.parametrize("form", FORMS)
def test_schedules_act_on_the_recursion(form):
    rates, decays = (
        np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        np.array([0.9, 0.5, 0, 0.9, 0.8]),
    )
    schedules = [lambda n, row=row: jnp.array(row)[n] for row in (rates, decays)]
    trace, want = 0.0, []
    for grad, rate, decay in zip(GRADS, rates, decays, strict=True):
        first = rate * grad + decay * trace
        trace = (1 - decay if form is normalised else 1) * grad + decay * trace
        want.append(-first if form is printed else -rate * trace)
    np.testing.assert_allclose(run(form(*schedules)), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 1.0), "0 <= decay < 1, got 1.0; .*0.9 remembers about ten"),
        ((0.1, -0.5), "0 <= decay < 1, got -0.5"),
        ((-0.1, 0.5), "learning_rate >= 0, got -0.1; to ascend"),
    ],
)
def test_mistakes_are_named(form, arguments, message):
    with pytest.raises(ValueError, match=message):
        form(*arguments)


def test_large_effective_step_is_warned_of():
    with pytest.warns(UserWarning, match=r"step of .* = 9.01, .*=0.01; .*=True") as got:
        printed(0.01, 0.9)
    assert got[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_small_effective_step_is_not_warned_of():
    printed(0.1, 0.4)
    printed(jnp.array(0.01), 0.9)
    updates.forgetting(0.01, 0.9)


def test_normalised_form_is_not_the_printed_one():
    for make in (updates.forgetting, updates.effective_step):
        with pytest.raises(ValueError, match="normalise=True cannot be combined"):
            make(0.1, 0.5, scale_past=False, normalise=True)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    "form", [{}, {"scale_past": False}, {"normalise": True}], ids=str
)
def test_effective_step_is_the_end_of_steps_along_one_gradient(form, decay):
    last = run(updates.forgetting(0.3, decay, **form), np.ones((500, 1)))[-1, 0]
    step = updates.effective_step(0.3, decay, **form)
    assert isinstance(step, float)
    assert step == pytest.approx(-float(last), rel=1e-12)
    traced = jax.vmap(lambda rate, decay: updates.effective_step(rate, decay, **form))
    got = traced(jnp.array([0.3]), jnp.array([decay]))
    np.testing.assert_allclose(got, step, rtol=1e-12)


def test_effective_step_of_the_printed_form():
    steps = [
        updates.effective_step(0.01, decay, scale_past=False)
        for decay in (0.5, 0.9, 0.99)
    ]
    np.testing.assert_allclose(steps, [1.01, 9.01, 99.01], rtol=1e-12)
    with pytest.raises(ValueError, match=r"decay must be a number .*, got a schedule"):
        updates.effective_step(0.1, lambda n: 0.5)
