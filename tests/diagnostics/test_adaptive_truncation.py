"""Tests of `adaptive_truncation`: norms of error signals, and bounds of the bias."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import _losses, diagnostics, gradients
from bpvariants.diagnostics import _adaptive_truncation, _look_back
from tests.problems import GOLDEN

P = json.loads((GOLDEN / "probe_p.json").read_text())
find = diagnostics.adaptive_truncation
close = partial(np.testing.assert_allclose, rtol=1e-12)


def by_hand(norms, vectors, bias, tau):
    """Compute results of `adaptive_truncation` from norms of error signals, in NumPy.

    The results are the decay of the norms per lag, and the bias of truncated BPTT for
    each lookback. Lists are indexed by the lag or by the lookback, so entry 0 is
    unused.
    """
    R = len(norms) - 1
    k = np.array([i for i in range(tau, R + 1) if np.log(norms[i]) > -50])
    beta = np.exp(np.polyfit(k, np.log(np.array(norms)[k]), 1)[0])
    absolute, truncated = [], []
    for K in range(1, R + 1):
        left_out = sum(norms[k] for k in range(K, tau))
        tail = norms[tau] * beta ** (max(K, tau) - tau) / (1 - beta)
        absolute.append(max(left_out + tail, sum(norms[K:])) if beta < 1 else np.inf)
        truncated.append(np.linalg.norm(sum(vectors[1:K], np.zeros_like(vectors[1]))))
    lower = max(g - b for g, b in zip(truncated, absolute, strict=True))
    relative = [b / lower if lower > 0 else np.inf for b in absolute]
    enough = [K for K in range(1, R + 1) if relative[K - 1] < bias]
    lookback = enough[0] if enough else R
    return lookback, bool(enough), relative, absolute, beta, norms[1:], truncated


def leak(params, h, x):
    a, theta = params
    h = a * h + theta * x
    return h, h


half_square = lambda y, target: (y - target) ** 2 / 2


@pytest.mark.parametrize("tau", [1, 4])
def test_a_leak_has_the_decay_that_it_has(tau):
    """Compare the results for a leaky unit with closed forms.

    The error signals of a leaky unit with decay a have the norm |h_T| a^k at lag k. If
    the decay is fitted from lag 1 on, the bias of truncation at lookback K ≥ 1 is |h_T|
    a^K / (1 − a).
    """
    a, T = 0.8, 60
    args = (jnp.array(a), jnp.array(0.3)), jnp.array(2.0), jnp.ones(T), jnp.zeros(T)
    found = jax.jit(partial(find, leak, half_square, bias=0.05, tau=tau))(*args)
    last = a**T * 2 + 0.3 * (1 - a**T) / (1 - a)
    k = np.arange(1, T + 1)
    close(found.norms, last * a**k)
    close(found.beta, a)
    close(found.absolute_bias, last * a**k / (1 - a))
    close(found.truncated_norms, last * (a - a**k) / (1 - a), atol=1e-14)
    lower = max(last * (a - 2 * a**k) / (1 - a))
    close(found.relative_bias, last * a**k / (1 - a) / lower)
    want = next(K for K in k if a**K / (1 - a) * last < 0.05 * lower)
    assert (found.lookback, found.certified) == (want, True)
    assert jnp.issubdtype(found.lookback.dtype, jnp.integer)


def probe_p(T=6):
    t = jnp.arange(1.0, T + 1)
    xs = jnp.stack([jnp.sin(0.7 * t), jnp.cos(0.4 * t)], axis=1)
    targets = jnp.cos(0.3 * t[:, None] + jnp.arange(3.0)[None]) / 2
    params = tuple(jnp.array(P[name]) for name in ("W", "U", "b"))
    return params, jnp.array(P["h0"]), xs, targets


def probe_step(params, h, x):
    W, U, b = params
    h = jnp.tanh(W @ h + U @ x + b)
    return h, h


def of_the_carry_before(params, h, x):
    return probe_step(params, h, x)[0], h


half_distance = lambda y, target: jnp.sum((y - target) ** 2, axis=-1) / 2
# Reference values of ‖∂ℓ_6/∂h_{6−k}‖ for k = 0 … 5, computed without this library
GOLDEN = [1.00844310, 0.55788272, 0.39546143, 0.37645375, 0.26797889, 0.26921870]


def vectors_by_hand(args):
    """Return the error signals ∂ℓ_T/∂h_{T−k} for k = 0 … T, computed in NumPy."""
    (W, U, b), h, xs, targets = jax.tree.map(np.asarray, args)
    hs = [h]
    for x in xs:
        hs.append(np.tanh(W @ hs[-1] + U @ x + b))
    errors = [hs[-1] - targets[-1]]
    for h in hs[:0:-1]:
        errors.append(W.T @ ((1 - h**2) * errors[-1]))
    return errors


def test_probe_p():
    args = probe_p()
    vectors = vectors_by_hand(args)
    norms = [np.linalg.norm(error) for error in vectors]
    np.testing.assert_allclose(norms[:6], GOLDEN, atol=5e-9)
    contractive = (0.4 * args[0][0], *args[0][1:]), *args[1:]
    cases = [(args, 1), (args, 3), (contractive, 1), (contractive, 3)]
    for args, tau in cases:
        vectors = vectors_by_hand(args)
        norms = [np.linalg.norm(error) for error in vectors]
        found = find(probe_step, half_distance, *args, bias=0.7, tau=tau)
        by_numpy = by_hand(norms, vectors, 0.7, tau)
        for got, want in zip(found, by_numpy, strict=True):
            close(got, np.array(want), atol=1e-14)
        assert found.certified == (args is contractive)

    # The output y_t of this cell depends on the carry before step t, so the loss ℓ_7 of
    # this cell equals the loss ℓ_6 of the cell above.
    params, h0, xs, targets = probe_p()
    xs, targets = (jnp.concatenate([leaf, leaf[-1:]]) for leaf in (xs, targets))
    args = params, h0, xs, targets
    norms = [np.linalg.norm(error) for error in vectors_by_hand(probe_p())]
    found = find(of_the_carry_before, half_distance, *args, bias=0.1, tau=2)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-12)


@pytest.mark.slow
def test_fewer_steps_back_measure_the_same():
    args = probe_p()
    whole = find(probe_step, half_distance, *args, bias=0.1, tau=2)
    short = find(probe_step, half_distance, *args, bias=0.1, tau=2, max_lookback=4)
    close(short.norms, whole.norms[:4])
    close(short.truncated_norms, whole.truncated_norms[:4])


@pytest.mark.slow
def test_padding_and_resets(make_problem):
    """Compare each example of a padded batch with a run of this example alone."""
    step, loss, (params, carry, xs, targets), more = make_problem("lstm", T=5)
    mask = jnp.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]], bool)
    reset = jnp.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
    spoil = lambda leaf: jnp.where(mask[..., None], leaf, jnp.nan)
    advance = _losses.with_loss(step, loss)
    arguments = params, carry, (spoil(xs), spoil(targets))
    flags = mask, reset, more["initial"]
    measured = jax.jit(
        lambda *args: _look_back.from_last_losses(
            _look_back.Course(advance, *args, *flags), (3,), steps=5
        )
    )(*arguments)

    def alone(b, steps, reset):
        """Return ∂ℓ_T/∂h_{T−k} for k = 1, 2, …, each computed by its own `jax.grad`."""
        take = lambda tree: jax.tree.map(lambda leaf: leaf[b], tree)
        x, target, vectors = xs[steps, b], targets[steps, b], []
        initial = take(more["initial"])

        def run(h, part):
            flags = None if reset is None else reset[part]
            options = {"reset": flags, "initial": initial}
            return gradients.unroll(step, params, h, x[part], **options)

        for k in range(1, len(steps) + 1):
            first = len(steps) - k
            start = run(take(carry), slice(first))[0] if first else take(carry)
            end_loss = lambda h, first=first: loss(
                run(h, slice(first, None))[1][-1], target[-1]
            )
            vectors.append(jax.flatten_util.ravel_pytree(jax.grad(end_loss)(start))[0])
        return vectors

    # The reset of example 1 is at a padded step, so it has no effect.
    first = jax.jit(lambda: alone(0, np.arange(5), reset[:, 0]))()
    second = jax.jit(lambda: alone(1, np.array([0, 2, 3]), None))()
    norm = np.linalg.norm
    assert norm(first[2]) == 0
    assert norm(first[1]) > 0
    both = [(norm(a) + norm(b)) / 2 for a, b in zip(first, second, strict=False)]
    close(measured.norms, [*both, 0, 0], atol=1e-14)
    assert measured.examples.tolist() == [2, 2, 2, 1, 1]
    # Only two of the three examples have a loss, so the mean is over these two
    # examples.
    second += 2 * [np.zeros_like(first[0])]
    close(measured.errors, (np.array(first) + np.array(second)) / 2, atol=1e-14)


@pytest.mark.slow
def test_the_bias_that_a_contraction_has_is_below_the_bound():
    """Check that the bias of truncated BPTT is at most M_θ · bias(K) at lookback K.

    M_θ bounds the norm of ∂h_t/∂θ, and bias(K) is the estimated bias at lookback K. The
    bound is the paper's for lookbacks K ≥ τ, the lags at which the decay is fitted.
    """
    args = (W, U, b), h0, xs, targets = probe_p(T=40)
    W = 0.9 * W / jnp.linalg.norm(W, 2)
    args = (W, U, b), h0, xs, targets
    found = find(probe_step, half_distance, *args, bias=0.1, tau=5)
    assert found.certified
    last = (jnp.arange(40) == 39).astype(float)
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    exact = flat(gradients.bptt(probe_step, half_distance)(*args, weights=last)[1])
    influence = jax.vmap(jax.jacobian(lambda *a: probe_step(*a)[0]), (None, 0, 0))
    _, hs = gradients.unroll(probe_step, *args[:3])
    starts = jnp.concatenate([h0[None], hs[:-1]])
    parts = [leaf.reshape(40, 3, -1) for leaf in influence(args[0], starts, xs)]
    M = jnp.linalg.norm(jnp.concatenate(parts, -1), 2, axis=(1, 2)).max()
    lookback = int(found.lookback)
    assert 1 < lookback < 40
    for K in (1, 5, lookback):
        rule = gradients.truncated_bptt(probe_step, half_distance, every=1, lookback=K)
        grads = flat(jax.jit(rule)(*args, weights=last)[1])
        error = jnp.linalg.norm(grads - exact)
        assert 1e-12 < error < M * found.absolute_bias[K - 1]
        if lookback == K:
            assert error < 0.1 * jnp.linalg.norm(exact)

    # The error signal of each loss travels back at least `lookback` steps.
    exact = flat(gradients.bptt(probe_step, half_distance)(*args)[1])
    settings = {"every": lookback, "lookback": 2 * lookback}
    rule = gradients.truncated_bptt(probe_step, half_distance, **settings)
    error = jnp.linalg.norm(flat(jax.jit(rule)(*args)[1]) - exact)
    assert error < 0.1 * jnp.linalg.norm(exact)


def conclude(norms, bias=0.1, tau=1, fit="least_squares", examples=None):
    norms = jnp.array(norms)
    examples = jnp.ones(len(norms), int) if examples is None else jnp.array(examples)
    return _adaptive_truncation.certificate(
        norms, examples, norms[:, None], bias, tau, fit
    )


@pytest.mark.slow
def test_edges_of_the_fit():
    growing = conclude([1.0, 1.1, 1.2, 1.3], tau=2)
    assert growing.beta > 1
    # The estimated bias is also infinite for lookbacks below the lag τ, at which the
    # fit of the decay begins.
    assert np.isinf(growing.absolute_bias).all()
    assert np.isinf(growing.relative_bias).all()
    assert (growing.lookback, growing.certified) == (4, False)

    # These error norms decay so slowly that no lookback K reaches the requested bias.
    flat = conclude([1.0, 0.9, 0.81, 0.729])
    assert flat.beta == pytest.approx(0.9)
    assert np.isfinite(flat.absolute_bias).all()
    assert (flat.lookback, flat.certified) == (4, False)
    assert np.isinf(flat.relative_bias).all()

    # Error norms that have vanished are not used in the fit of the decay, whether they
    # are tiny or exactly 0.
    decaying = [1e-8**i for i in range(6)]
    assert conclude([*decaying, 0.0, 1e-60]).beta == pytest.approx(1e-8)
    gone = conclude([1.0, 0.5, 0.0, 0.0, 0.0], tau=3)
    assert (gone.beta, gone.lookback, gone.certified) == (0, 3, True)
    close(gone.absolute_bias, [1.5, 0.5, 0, 0, 0])

    # For lookbacks K < τ, the error norm φ_τ at the first fitted lag τ is counted once,
    # as part of the fitted tail.
    halved = conclude([1.0, 0.5, 0.25, 0.125, 0.0625], tau=3)
    close(halved.absolute_bias, [2, 1, 0.5, 0.25, 0.125])

    # Even if the error norm φ_τ at the first fitted lag τ is small by chance, bias(K)
    # is at least the sum of the measured error norms from lag K on.
    dented = [0.8**k for k in range(20)]
    dented[4] = 1e-6
    assert conclude(dented, tau=5).absolute_bias[4] >= sum(dented[4:])

    slowest = conclude([1.0, 0.5, 0.4, 0.1, 0.01], fit="max")
    assert slowest.beta == pytest.approx(0.8)
    assert not conclude([1.0, 0.5, 0.5, 0.1, 0.01], fit="max").certified


@pytest.mark.slow
def test_what_is_not_known_is_not_certified():
    nothing = conclude([1.0, 0.1, 0.0, 0.0], tau=3, examples=[4, 2, 0, 0])
    assert np.isnan(nothing.beta)
    assert (nothing.lookback, nothing.certified) == (4, False)
    for bad in (np.nan, np.inf):
        found = conclude([1.0, bad, 0.01, 0.001, 0.0001])
        assert (found.lookback, found.certified) == (5, False)
        assert np.isinf(found.relative_bias).all()
    empty = jnp.zeros((4, 0))
    args = (jnp.array(0.5), jnp.array(1.0)), empty[0], empty, empty
    assert not find(leak, half_square, *args, bias=0.1, tau=1).certified
    mask = jnp.zeros(4, bool)
    args = args[0], jnp.array(0.0), *jnp.ones((2, 4))
    assert not find(leak, half_square, *args, bias=0.1, tau=1, mask=mask).certified


def test_a_network_without_memory_needs_one_step():
    step = lambda theta, h, x: (h, theta * x)
    args = jnp.array(2.0), jnp.zeros(3), jnp.ones((4, 3)), jnp.zeros((4, 3))
    found = find(step, half_square, *args, bias=0.1, tau=1)
    close(found.norms, 0)
    close(found.relative_bias, 0)
    assert (found.lookback, found.certified) == (1, True)


@pytest.mark.slow
def test_low_precision_and_no_compilation_anew():
    a = jnp.bfloat16(0.5), jnp.bfloat16(1.0)
    ones = jnp.ones((100, 2), jnp.bfloat16)
    traces = []

    @jax.jit
    def run(bias, xs):
        traces.append(bias)
        return find(leak, half_square, a, xs[0], xs, 0 * xs, bias=bias, tau=3)

    found = run(0.1, ones)
    assert found.norms.dtype == jnp.float32
    # The fitted decay β is accurate, although the error norm at lag 100 is only 1e-30.
    assert found.beta == pytest.approx(0.5, rel=1e-3)
    assert run(0.01, 2 * ones).lookback > found.lookback
    assert len(traces) == 1
    by_bias = jax.vmap(run, in_axes=(0, None))(jnp.array([0.1, 0.01]), ones)
    assert by_bias.lookback[0] == found.lookback


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": 0.0}, "bias must be positive, got 0.0"),
        ({"tau": 0}, "tau must be an integer from 1 to 5, .* got 0"),
        ({"tau": 6}, "max_lookback = 6 steps back .* got 6"),
        ({"max_lookback": 7}, "max_lookback must be an integer from 2 to 6, .* got 7"),
        ({"max_lookback": 2.5}, "max_lookback must be an integer .* got 2.5"),
        ({"fit": "quantile"}, "fit must be 'least_squares' or 'max', got 'quantile'"),
        ({"mask": jnp.ones(5, bool)}, "mask must have 6 time steps"),
        ({"mask": jnp.ones(6, int)}, "mask must be bool, got int64"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        find(probe_step, half_distance, *probe_p(), **{"bias": 0.1, "tau": 2} | change)


def test_one_step_is_too_short():
    with pytest.raises(ValueError, match="xs must have at least 2 time steps"):
        find(probe_step, half_distance, *probe_p(1), bias=0.1, tau=1)


def test_the_unit_of_the_loss_does_not_matter():
    leak = lambda theta, h, x: (0.9 * h + theta * x,) * 2
    args = 1.0, jnp.zeros(()), jnp.ones(40), jnp.zeros(40)

    @jax.jit
    def lookback(unit):
        loss = lambda y, target: unit * (y - target) ** 2 / 2
        found = diagnostics.adaptive_truncation(leak, loss, *args, bias=0.1, tau=2)
        return found.lookback, found.certified, found.beta

    plain, small = lookback(1.0), lookback(1e-40)
    assert plain[1]
    close(jnp.stack([jnp.float64(a) for a in small]), [float(a) for a in plain])
