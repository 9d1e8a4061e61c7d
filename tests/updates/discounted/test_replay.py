"""Tests of replay and discounted least squares, against explicit discounted sums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates

close = lambda got, want, rtol=1e-12: np.testing.assert_allclose(
    got, want, rtol=rtol, atol=1e-14
)
NUMBERS = np.random.default_rng(0)
XS = jnp.array(NUMBERS.normal(size=(12, 4, 3)))
YS = jnp.array(NUMBERS.normal(size=(12, 4)))
W = jnp.array([0.3, -0.8, 0.5])
error = lambda w, x, y: jnp.mean((jnp.tanh(x @ w) - y) ** 2)


def fill(rule, n, like=0):
    push = lambda state, batch: (rule.push(state, batch), None)
    start = rule.init((XS[like], YS[like]))
    return jax.lax.scan(push, start, (XS[:n], YS[:n]))[0]


@pytest.mark.parametrize("learning_rate", [None, 0.3])
# The buffer has five slots. Store n batches, which leave slots empty, fill all slots,
# or overwrite old batches.
@pytest.mark.parametrize("n", [1, 3, 5, 12])
@pytest.mark.fast_rows(3)
def test_it_is_the_explicit_sum_at_the_current_weights(n, learning_rate):
    rule = updates.replay(error, 0.7, horizon=5)
    first = 1.0 if learning_rate is None else learning_rate
    weights = [first, *(0.7**k for k in range(1, min(n, 5)))]

    def want(w):
        terms = [c * error(w, XS[n - 1 - k], YS[n - 1 - k]) for k, c in
                 enumerate(weights)]  # fmt: skip
        return sum(terms)

    state = fill(rule, n)
    loss = lambda w: rule.discounted_loss(w, state, learning_rate=learning_rate)
    close(loss(W), want(W))
    close(jax.grad(loss)(W), jax.grad(want)(W))


@pytest.mark.slow
def test_it_trains_within_a_scan_with_any_optimizer():
    optimizer = optax.chain(optax.trace(0.5), optax.rmsprop(0.1))
    rule = updates.replay(error, 0.8, horizon=4)

    @jax.jit
    def train(xs, ys):
        def body(carry, batch):
            w, opt_state, state = carry
            state = rule.push(state, batch)
            value, grads = jax.value_and_grad(rule.discounted_loss)(w, state)
            update, opt_state = optimizer.update(grads, opt_state, w)
            return (w + update, opt_state, state), value

        start = W, optimizer.init(W), rule.init((xs[0], ys[0]))
        (w, _, _), values = jax.lax.scan(body, start, (xs, ys))
        return w, values

    w, opt_state, values = W, optimizer.init(W), []
    for n in range(len(XS)):
        past = range(max(0, n - 3), n + 1)
        loss = lambda w: sum(0.8 ** (n - k) * error(w, XS[k], YS[k]) for k in past)  # noqa: B023
        value, grads = jax.value_and_grad(loss)(w)
        update, opt_state = optimizer.update(grads, opt_state, w)
        w, values = w + update, [*values, value]
    got, got_values = train(XS, YS)
    close(got, w)
    close(got_values, values)
    both = jax.vmap(train)(jnp.stack([XS, XS[::-1]]), jnp.stack([YS, YS[::-1]]))
    close(both[0][0], w)
    close(both[0][1], train(XS[::-1], YS[::-1])[0])


def test_empty_slots_have_no_say():
    """Check that empty slots do not make value or gradient NaN.

    Empty slots of the buffer of past batches contain zeros, for which the loss is NaN.
    """
    loss = lambda w, x: jnp.sum(w / x) * jnp.log(x)
    rule = updates.replay(loss, 0.5, horizon=4)
    state = rule.init((jnp.array(0.0),))
    assert rule.discounted_loss(2.0, state) == 0
    for x in (1.0, 2.0):
        state = rule.push(state, (jnp.array(x),))
    value, slope = jax.value_and_grad(rule.discounted_loss)(2.0, state)
    close(value, np.log(2.0))
    close(slope, np.log(2.0) / 2)


def test_what_is_not_finite_is_forgotten_after_the_horizon():
    rule = updates.replay(error, 0.5, horizon=3)
    state = rule.push(fill(rule, 2), (XS[0] * jnp.nan, YS[0]))
    value, push = jax.jit(rule.discounted_loss), jax.jit(rule.push)
    for k in (3, 4, 5):
        assert np.isnan(value(W, state))
        state = push(state, (XS[k], YS[k]))
    close(value(W, state), value(W, fill(rule, 6)))


def test_the_horizon_is_as_long_as_the_tolerance_asks():
    decays = (0.0, 0.5, 0.9, 0.99)
    horizons = [updates.replay(error, decay).horizon for decay in decays]
    assert horizons == [1, 11, 88, 1146]
    assert updates.replay(error, 0.3, tol=0.99).horizon == 1


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_what_lies_beyond_the_horizon_is_less_than_the_tolerance(decay):
    """Check that gradients beyond the horizon sum to less than the tolerance.

    The gradient of every batch is 1.
    """
    rule = updates.replay(lambda w, a: w - a, decay, tol=1e-2)
    a = jnp.array(0.0)
    push = lambda state, _: (rule.push(state, (a,)), None)
    state, _ = jax.lax.scan(push, rule.init((a,)), length=rule.horizon + 5)
    missing = 1 / (1 - decay) - jax.grad(rule.discounted_loss)(0.0, state)
    close(missing, decay**rule.horizon / (1 - decay), rtol=1e-10)
    assert decay * 1e-2 < missing <= 1e-2


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_stability_limits(decay):
    """Check up to which curvature h of the loss h w² / 2 replay is stable.

    On this loss, an update of the weight w is a linear function of w.
    """
    table = {0.5: (100, 1.9802), 0.9: (20, 0.221976), 0.99: (2, 0.0202)}
    rule = updates.replay(lambda w, h: h * w**2 / 2, decay, tol=1e-7)

    @partial(jax.jit, static_argnums=1)
    def slope(curvature, learning_rate):
        full = jnp.full(rule.horizon, curvature)
        state = updates.ReplayState((full,), jnp.int32(0), jnp.int32(rule.horizon))
        loss = lambda w: rule.discounted_loss(w, state, learning_rate=learning_rate)
        step = 0.01 if learning_rate is None else 1.0
        return abs(1 - step * jax.grad(jax.grad(loss))(3.0))

    for limit, rate in zip(table[decay], (None, 0.01), strict=True):
        assert slope(0.9999 * limit, rate) < 1 < slope(1.0001 * limit, rate)


def test_without_memory_it_is_gradient_descent():
    rule = updates.replay(error, 0.0)
    state = fill(rule, 3)
    np.testing.assert_array_equal(
        jax.grad(rule.discounted_loss)(W, state), jax.grad(error)(W, XS[2], YS[2])
    )
    printed = lambda w: rule.discounted_loss(w, state, learning_rate=0.1)
    close(jax.grad(printed)(W), 0.1 * jax.grad(error)(W, XS[2], YS[2]))


def test_worked_values_of_the_printed_form():
    """Compare three updates of a weight with values computed by hand.

    The losses are (w − a)² / 2 with the targets a = 0, 1, 2.
    """
    rule = updates.replay(lambda w, a: (w - a) ** 2 / 2, 0.5)
    w, state, visited = jnp.array(3.0), rule.init((jnp.array(0.0),)), []
    for a in (0.0, 1.0, 2.0):
        state = rule.push(state, (jnp.array(a),))
        w -= jax.grad(rule.discounted_loss)(w, state, learning_rate=0.1)
        visited.append(w)
    close(visited, [2.7, 1.18, 0.877])


def test_any_pytree_any_dtype_and_a_traced_decay():
    loss = lambda w, batch, n: jnp.sum((w["a"] * batch["x"] - n) ** 2)
    batch = {"x": jnp.ones(3, jnp.bfloat16)}, jnp.ones((), jnp.bfloat16)
    params = {"a": jnp.full(3, 2, jnp.bfloat16)}

    @jax.jit
    def value_and_grad(decay, rate):
        rule = updates.replay(loss, decay, horizon=2)
        state = rule.push(rule.push(rule.init(batch), batch), batch)
        loss_now = lambda w: rule.discounted_loss(w, state, learning_rate=rate)
        return jax.value_and_grad(loss_now)(params)

    value, grads = value_and_grad(jnp.float64(0.5), jnp.float64(0.25))
    assert (value.dtype, value) == (jnp.float32, 3 * 0.75)
    assert grads["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(grads["a"].astype(float), 1.5)
    slope = jax.grad(lambda *args: value_and_grad(*args)[0])(0.0, 0.25)
    np.testing.assert_array_equal(slope, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [("data",), (None, "data")])
def test_slots_may_be_divided_over_devices(spec):
    """Shard the slots over devices along the axis of batches, or of examples."""
    rule = updates.replay(error, 0.8, horizon=4)
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    divide = partial(jax.device_put, device=jax.NamedSharding(mesh, jax.P(*spec)))
    push, value = jax.jit(rule.push), jax.jit(jax.value_and_grad(rule.discounted_loss))
    want = got = rule.init((XS[0], YS[0]))
    for batch in zip(XS[:6], YS[:6], strict=True):
        want, got = push(want, batch), push(got, batch)
        got = got._replace(slots=divide(got.slots))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(value(W, got), value(W, want), strict=True):
        close(a, b)


def test_pushing_compiles_once():
    rule, traces = updates.replay(error, 0.5), []

    @jax.jit
    def push(state, batch):
        traces.append(batch)
        return rule.push(state, batch)

    state = rule.init((jnp.full((4, 3), 1.0), jnp.full(4, 0.0)))
    for k in range(3):
        state = push(state, (XS[k], YS[k]))
    assert len(traces) == 1


def test_mistakes_are_named():
    rule = updates.replay(error, 0.5)
    state = fill(rule, 1)
    lone = updates.replay(lambda w, x: w * x, 0.5)
    for wrong, message in {
        lambda: updates.replay(error, 1.0): "0 <= decay < 1, got 1.0; the loss of k",
        lambda: updates.replay(error, 0.5, tol=0.0): "0 < tol < 1, got 0.0",
        lambda: updates.replay(error, 0.5, horizon=0): "horizon must be .* 1, got 0",
        lambda: updates.replay(error, 0.5, horizon=True): "horizon must be .* got True",
        lambda: updates.replay(error, 0.5, horizon=2.5): "horizon must be .* got 2.5",
        lambda: updates.replay(error, True): "decay must be a number, got True",
        lambda: updates.replay(error, 0.5, tol="0.1"): "tol must be .* got '0.1'",
        lambda: updates.replay(error, W[0]): "decay is an array, .* pass it as horizon",
        lambda: rule.init(XS[0]): r"batch must be a tuple, .*; give \(batch,\) if",
        lambda: rule.push(state, (XS[0], YS[0, :2])): "batch must have the structure",
        lambda: lone.discounted_loss(1.0, lone.init((W,))): r"one number .* \(3,\)",
    }.items():
        with pytest.raises(ValueError, match=message):
            wrong()


LINE = lambda w, x, y: jnp.sum((y - jnp.tensordot(x, w, axes=1)) ** 2) / 2


# Each model has 3 inputs and outputs of this shape.
@pytest.mark.parametrize("outputs", [(), (2,), (3, 2), (2, 4)])
def test_two_sums_are_the_replay_of_least_squares(outputs):
    numbers = np.random.default_rng(1)
    xs, ys = (jnp.array(numbers.normal(size=(40, *n))) for n in ((3,), outputs))
    w = jnp.array(numbers.normal(size=(3, *outputs)))
    rule = updates.replay(LINE, 0.8, horizon=40)
    sums = updates.discounted_least_squares(0.8)

    def push(states, example):
        kept, state = states
        return (rule.push(kept, example), sums.push(state, *example)), None

    start = rule.init((xs[0], ys[0])), sums.init(w)
    (kept, state), _ = jax.lax.scan(push, start, (xs, ys))
    want = jax.jit(jax.grad(rule.discounted_loss))(w, kept)
    close(sums.gradient(w, state), want, rtol=1e-13)


@pytest.mark.parametrize(
    ("decay", "outputs"),
    [(0.6, ()), (0.6, (2,)), (0.97, ()), (1.0, (2,)), (0.97, (3, 2)), (0.97, (2, 4))],
)
def test_recursive_least_squares_are_weighted_least_squares(decay, outputs):
    numbers = np.random.default_rng(2)
    xs, ys = (jnp.array(numbers.normal(size=(25, *n))) for n in ((3,), outputs))
    prior_mean = w = jnp.array(numbers.normal(size=(3, *outputs)))
    rule = updates.recursive_least_squares(decay, prior=7.0)
    sums = updates.discounted_least_squares(decay)
    state, (moments, correlations) = rule.init(w), sums.init(w)
    step = jax.jit(rule.update)
    for n, (x, y) in enumerate(zip(xs, ys, strict=True), start=1):
        w, state = step(w, state, x, y)
        moments, correlations = sums.push(
            updates.LeastSquaresState(moments, correlations), x, y
        )
        prior = decay**n / 7.0
        total = np.asarray(moments) + prior * np.eye(3)
        right = np.asarray(correlations + prior * prior_mean).reshape(3, -1)
        close(w, np.linalg.solve(total, right).reshape(w.shape), rtol=1e-11)
        close(state.covariance, np.linalg.inv(total), rtol=1e-11)
    np.testing.assert_array_equal(state.covariance, state.covariance.T)


def test_least_squares_keep_dtypes_under_traced_settings():
    def last(decay, prior, w):
        sums = updates.discounted_least_squares(decay)
        rule = updates.recursive_least_squares(decay, prior=prior)
        state, covariance = sums.init(w), rule.init(w)
        for x in (jnp.ones(3, w.dtype), 2 * jnp.ones(3, w.dtype)):
            state = sums.push(state, x, x[0])
            w, covariance = rule.update(w, covariance, x, x[0])
        return sums.gradient(w, state), w, state, covariance

    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        w = jnp.zeros(3, dtype)
        grads, new, *states = jax.jit(last)(jnp.float64(0.5), jnp.float32(9.0), w)
        assert grads.dtype == new.dtype == dtype
        wide = jnp.float32 if dtype == jnp.bfloat16 else dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(states)} == {jnp.dtype(wide)}
        want = last(0.5, 9.0, jnp.zeros(3))[1]
        close(new.astype(float), want, rtol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [(int, "floating number, got int64"), (bool, "got bool"), (complex, "be real")],
)
def test_losses_that_have_no_gradient_are_refused(dtype, message):
    """Refuse integer losses, because a decay of 0.5 would be rounded to 0."""
    rule = updates.replay(lambda w, a: (w > a).astype(dtype), 0.5)
    state = rule.init((jnp.array(0.0),))
    with pytest.raises(ValueError, match=message):
        rule.discounted_loss(1.0, state)


def test_mistakes_of_least_squares_are_named():
    sums = updates.discounted_least_squares(0.5)
    rule = updates.recursive_least_squares(0.5)
    for wrong, message in {
        lambda: updates.discounted_least_squares(-0.1): "0 <= decay <= 1, got -0.1",
        lambda: updates.recursive_least_squares(0): "0 < decay <= 1, got 0; with 0",
        lambda: updates.recursive_least_squares(1, prior=0): "prior must be .*, got 0",
        lambda: sums.init(jnp.array(1.0)): "w must be one array .* got .*; a bias is",
        lambda: rule.init({"w": W}): "w must be one array",
        lambda: rule.init(W.astype(complex)): "w must be real",
        lambda: sums.push(sums.init(W), XS[0], YS[0, 0]): r"x must be of shape \(3,\)",
        lambda: rule.update(W, rule.init(W), W, W): r"y must be of shape \(\), as w",
    }.items():
        with pytest.raises(ValueError, match=message):
            wrong()


def test_recursive_least_squares_in_float32_last_while_inputs_vary():
    """Check that float32 recursive least squares is accurate while inputs vary.

    If an input stops varying, the covariance grows until it becomes NaN, which users
    notice.
    """
    rule = updates.recursive_least_squares(0.9)
    xs = np.random.default_rng(3).normal(size=(20_000, 3)).astype(np.float32)
    w = jnp.array([1.0, -2.0, 3.0], jnp.float32)

    @jax.jit
    def last(xs):
        body = lambda carry, x: (rule.update(*carry, x, x @ w), None)
        return jax.lax.scan(body, (0 * w, rule.init(w)), xs)[0]

    got, state = last(jnp.asarray(xs))
    np.testing.assert_allclose(got, w, rtol=1e-5)
    assert np.linalg.eigvalsh(state.covariance)[0] > 0
    xs[100:, 0] = 0
    assert np.isnan(last(jnp.asarray(xs))[0]).all()
