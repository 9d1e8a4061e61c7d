"""Tests of `gradient_flow` and `jacobian_spectrum` with known values."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from bpvariants import cells, diagnostics, gradients

close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-14)
# Reference values, computed without this library by NumPy recursions and derivatives.
DELTAS = [1.22882744, 2.05800928, 3.01940056, 2.16949113, 1.51598639, 1.00844310]
LAGS = [1.00844310, 0.55788272, 0.39546143, 0.37645375, 0.26797889, 0.26921870]


@cache
def flowing(step, loss):
    """Run `gradient_flow`, compiled only once per network and shapes."""
    flow = partial(diagnostics.gradient_flow, step, loss)
    return jax.jit(flow, static_argnames=("samples", "tau"))


def test_flow_of_the_probe_problem(make_probe):
    step, loss, args, _ = make_probe()
    flow = flowing(step, loss)(*args)
    np.testing.assert_allclose(flow.deltas, DELTAS, atol=5e-9)
    np.testing.assert_allclose(flow.norms[-1], LAGS, atol=5e-9)
    assert flow.sources.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(flow.norms[0, 1:]).all()
    close(flow.curve, np.nanmean(flow.norms, axis=0))
    slope = np.polyfit(np.arange(1, 6), np.log(flow.curve[1:]), 1)[0]
    close(flow.beta, np.exp(slope))
    assert flow.verdict == "steady"


@pytest.mark.parametrize(("cell", "padded"), [("lstm", False), ("nested", True)])
@pytest.mark.fast_rows(1)
def test_lags_are_those_of_adaptive_truncation(make_problem, cell, padded):
    """Compare the norms of error signals at each lag with `adaptive_truncation`.

    The sequences have padding and resets.
    """
    step, loss, (params, carry, xs, targets), more = make_problem(cell)
    flags = {"reset": jnp.zeros((5, 3), bool).at[3, 0].set(True)}
    last = jnp.zeros((5, 3)).at[4].set(1)
    if padded:
        mask = jnp.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]], bool)
        last = jnp.zeros((5, 3)).at[4, 0].set(1).at[3, 1].set(1)
        xs, flags["mask"] = jnp.where(mask[..., None], xs, jnp.nan), mask
    args, flags["initial"] = (params, carry, xs, targets), more["initial"]
    flow = flowing(step, loss)(*args, **flags, weights=last)
    find = partial(diagnostics.adaptive_truncation, step, loss, bias=0.1, tau=1)
    known = jax.jit(find)(*args, **flags)
    # In example 1, only two time steps are not padding, so error signals exist only up
    # to lag 2.
    lags = 2 if padded else 4
    close(flow.curve[1 : lags + 1], known.norms[:lags])
    assert (known.norms[:lags] > 0).all()
    assert flow.sources.tolist() == ([3, 4] if padded else [4]) + [-1] * (4 - padded)
    assert flow.curve[0] > 0


def test_lag_zero_is_what_the_output_reads(make_problem):
    """Check ∂ℓ_s/∂h_s (lag 0) of a jitted step whose output reads only part of h_s."""
    step, loss, args, _ = make_problem("nested")
    params, carry, xs, targets = args
    flow = flowing(step, loss)(*args, samples=1)
    assert flow.sources.tolist() == [4]
    last, _ = gradients.unroll(step, params, carry, xs)

    def read(h):
        (fast,), (slow, _) = h
        out = params[1]["out"][0]
        return jnp.sum(loss(fast @ out + slow**2 @ out, targets[-1]))

    h = last["fast"], last["slow"]
    errors = jax.grad(read, allow_int=True)(h)
    rows = jnp.concatenate([errors[0][0], errors[1][0]], axis=1)
    expected = np.mean(np.linalg.norm(rows, axis=1))
    close(flow.curve[0], expected)
    close(flow.deltas[-1], expected)


def leak(a, h, x):
    h = a * h + x
    return h, h


def identity(y, target):
    return y


@pytest.mark.parametrize(
    ("a", "verdict", "lookback"),
    [(0.1, "vanishing", 1), (0.9, "steady", 7), (3.0, "exploding", 10)],
)
def test_decay_of_a_leak(a, verdict, lookback):
    """Check that a leaky unit with decay a has the error norm a^k at each lag k."""
    args = jnp.zeros(()), jnp.ones(10), jnp.zeros(10)
    flow = flowing(leak, identity)(a, *args, tolerance=0.2)
    close(flow.curve, a ** np.arange(10.0))
    close(flow.deltas, np.cumsum(a ** np.arange(10.0))[::-1])
    close(flow.beta, a)
    assert flow.verdict == verdict
    phi = a ** np.arange(10.0)
    kept = np.cumsum(phi) / phi.sum()
    assert int(flow.lookback) == np.argmax(kept >= 0.8) + 1 == lookback
    assert verdict in flow.table()


def test_verdicts_of_what_has_no_decay():
    flow = lambda a, T: flowing(leak, identity)(
        a, jnp.zeros(()), jnp.ones(T), jnp.zeros(T)
    )
    assert flow(0.9, 1).verdict == "unknown"
    assert flow(jnp.nan, 10).verdict == "not finite"
    assert flow(1e200, 10).verdict == "exploding"
    gone = flow(0.0, 10)
    assert (gone.verdict, gone.beta, int(gone.lookback)) == ("vanishing", 0, 1)


def test_losses_to_look_back_from_are_spread_over_those_that_count():
    args = 0.5, jnp.zeros(()), jnp.ones(10), jnp.zeros(10)
    run = flowing(leak, identity)
    weights = jnp.array([0, 1, 0, 1, 1, 0, 0, 1, 1, 0.0])
    assert run(*args, weights=weights, samples=3).sources.tolist() == [1, 4, 8]
    assert run(*args, weights=weights, samples=1).sources.tolist() == [8]
    none = run(*args, weights=0 * weights, samples=3)
    assert none.sources.tolist() == [-1, -1, -1]
    assert np.isnan(none.curve).all()


def test_weights_count_in_means_over_losses():
    a, T = jnp.array([0.5, 2.0]), 3
    step = lambda a, h, x: (a * h + x, a * h + x)
    args = a, jnp.zeros(2), jnp.ones((T, 2)), jnp.zeros((T, 2))
    weights = jnp.array([[0, 0], [0, 0], [3, 1.0]])
    flow = flowing(leak, identity)(*args, weights=weights)
    close(flow.curve[2], (3 * 0.25 + 1 * 4) / 4)
    apart = flowing(step, identity)(*args, weights=weights)
    # The output y_t of this network reads only h_{t−1}, so ∂ℓ_t/∂h_t (lag 0) is 0.
    close(apart.curve, [0, *flow.curve[1:]])


def test_pictures_have_labels(make_probe):
    step, loss, args, _ = make_probe()
    flow = flowing(step, loss)(*args)
    left, right = Figure().subplots(1, 2)
    assert flow.plot(left, label="tanh") is left
    assert flow.plot(right, against="time") is right
    assert left.get_xlabel() == "lag k (steps back)"
    assert right.get_ylabel() == "‖δ_t‖"
    assert left.get_yscale() == "log"
    close(left.lines[0].get_ydata(), flow.curve)
    with pytest.raises(ValueError, match="against must be 'lag' or 'time'"):
        flow.plot(left, against="depth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be an integer of at least 1"),
        ({"tau": 10}, "tau must be an integer from 0 to 5"),
        ({"tolerance": 1.5}, "tolerance must be between 0 and 1"),
        ({"loss": lambda y, target: (y - target)[None]}, "one number for each example"),
        ({"params": jnp.arange(3)}, "params must be a floating array"),
        ({"mask": jnp.ones(3, bool)}, "mask must have 6 time steps"),
    ],
)
def test_bad_input_of_a_flow(make_probe, options, message):
    step, loss, (params, *args), _ = make_probe()
    options = {"loss": loss, "params": params, **options}
    loss, params = options.pop("loss"), options.pop("params")
    with pytest.raises(ValueError, match=message):
        diagnostics.gradient_flow(step, loss, params, *args, **options)


def linear(A, h, x):
    h = h @ A.T
    return h, h


A = np.array([[1.5, 1.0, -0.4], [0.0, -0.8, 0.7], [0.0, 0.0, 0.3]])
# These Jacobians are chosen so that their product is not triangular.
A = np.array([[1, 0, 0.5], [0.3, 1, 0], [0, -0.6, 1]]) @ A


@cache
def spectrum(step, **options):
    return jax.jit(partial(diagnostics.jacobian_spectrum, step, **options))


def test_spectrum_of_a_linear_map():
    eigenvalues = np.linalg.eigvals(A)
    assert np.unique(np.abs(eigenvalues).round(3)).size == 3
    run = spectrum(linear, exponents=3, skip=200)
    found = run(jnp.asarray(A), jnp.ones(3), jnp.zeros((300, 0)))
    close(found.exponents, np.sort(np.log(np.abs(eigenvalues)))[::-1])
    close(found.singular_values, np.full(300, np.linalg.norm(A, 2)))
    assert found.residuals[-1] < 1e-10
    powers = [np.linalg.norm(np.linalg.matrix_power(A, t), 2) for t in (1, 2, 9)]
    close(found.log_sensitivity[np.array([0, 1, 8])], np.log(powers))
    assert np.isnan(found.running[:200]).all()


def henon(params, h, x):
    """Step the Hénon map, x ← 1 − a x² + y, y ← b x.

    The Jacobian of the map has the determinant −b.
    """
    x, y = h[..., 0], h[..., 1]
    h = jnp.stack([1 - params[0] * x**2 + y, params[1] * x], axis=-1)
    return h, h


def test_spectrum_of_chaos():
    run = spectrum(henon, exponents=2, skip=100, batch_shape=(2,), power_iterations=1)
    starts = jnp.array([[0.1, 0.0], [0.3, 0.2]])
    found = run(jnp.array([1.4, 0.3]), starts, jnp.zeros((5000, 2, 0)))
    # Published value of the largest Lyapunov exponent of the Hénon map: 0.419
    np.testing.assert_allclose(found.exponents[:, 0], 0.419, atol=0.02)
    close(found.exponents.sum(axis=1), [np.log(0.3)] * 2)
    assert found.verdict.startswith(
        "expanding: perturbations grow by a factor of e in 2."
    )


@pytest.mark.parametrize("cell", ["lstm", "nested"])
@pytest.mark.fast_rows(1)
def test_spectrum_of_networks_is_that_of_their_jacobians(make_problem, cell):
    step, _, (params, carry, xs, _), _ = make_problem(cell)
    run = spectrum(step, exponents=6, batch_shape=(3,), power_iterations=50)
    mask = jnp.ones((5, 3), bool).at[2:4, 1].set(False)
    spoilt = jnp.where(mask[..., None], xs, jnp.nan)
    found = run(params, carry, spoilt, mask=mask)
    floating = lambda h: [a for a in jax.tree.leaves(h) if a.dtype == float]
    counter = [jnp.zeros((), int)] if cell == "nested" else []

    def one(row, x):
        fast, slow = row[:3], row[3:]
        h = (fast, slow)
        if counter:
            h = {"fast": [fast], "slow": (slow, *counter)}
        new, _ = step(params, jax.tree.map(lambda a: a[None], h), x[None])
        return jnp.concatenate(floating(new), axis=1)[0]

    jacobian = jax.jit(lambda row, x: (one(row, x), jax.jacobian(one)(row, x)))
    for b in range(3):
        row = jnp.concatenate([a[b] for a in floating(carry)])
        product, volume = np.eye(6), 0
        for t in range(5):
            if mask[t, b]:
                row, J = jacobian(row, xs[t, b])
                product, volume = J @ product, volume + np.linalg.slogdet(J)[1]
                sigma = found.singular_values[t, b]
                assert 0.99 < sigma / np.linalg.norm(J, 2) < 1 + 1e-12
                assert found.residuals[t, b] < 0.1
            else:
                assert np.isnan(found.singular_values[t, b])
            close(found.log_sensitivity[t, b], np.log(np.linalg.norm(product, 2)))
        steps = int(mask[:, b].sum())
        close(found.exponents[b].sum(), volume / steps)


@pytest.mark.slow
def test_spectrum_of_a_complex_carry():
    """Check that each complex eigenvalue gives two equal real Lyapunov exponents."""
    params = cells.lru.init(jax.random.key(0), 1, 2, 1, min_radius=0.3)
    carry = cells.lru.carry(params)
    run = spectrum(cells.lru, exponents=4, skip=600, power_iterations=1)
    found = run(params, carry, jnp.zeros((800, 1)))
    expected = np.sort(np.repeat(-np.exp(params["log_decay"]), 2))[::-1]
    np.testing.assert_allclose(found.exponents, expected, atol=1e-3)
    close(found.exponents.sum(), expected.sum())


def test_picture_of_a_spectrum():
    found = spectrum(linear, exponents=3, skip=200)(
        jnp.asarray(A), jnp.ones(3), jnp.zeros((300, 0))
    )
    axes = Figure().subplots()
    found.plot(axes)
    assert axes.get_ylabel() == "exponent (per step)"
    assert [line.get_label() for line in axes.lines[:3]] == ["λ_1", "λ_2", "λ_3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exponents": 4}, "exponents must be an integer from 1 to 3"),
        ({"skip": 5}, "skip must be an integer from 0 to 4"),
        ({"power_iterations": 0}, "power_iterations must be an integer of at least 1"),
        ({"batch_shape": (2,)}, r"carry must begin with \(2,\)"),
        ({"mask": jnp.ones((5, 2), bool)}, r"mask must be \[T, \*batch\] = \(5,\)"),
    ],
)
def test_bad_input_of_a_spectrum(options, message):
    args = jnp.asarray(A), jnp.ones(3), jnp.zeros((5, 0))
    with pytest.raises(ValueError, match=message):
        diagnostics.jacobian_spectrum(linear, *args, **options)
