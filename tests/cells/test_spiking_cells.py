"""Tests of spiking cells against NumPy, and of their surrogate derivatives."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients

KEY = jax.random.key(3)
D, N, T = 3, 4, 12
LIF = partial(cells.lif, tau=5.0, threshold=0.6, refractory=3)
ALIF = partial(
    cells.alif, tau=5.0, threshold=0.6, tau_adaptation=20.0, normalise=True,
    beta=np.array([0.0, 0.1, 0.2, 0.3]),
)  # fmt: skip


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def drawn(cell, batch=(2,), steps=T):
    of_params, of_x, of_target, of_own = jax.random.split(KEY, 4)
    params = cell.init(of_params, D, N)
    # Weights of a neuron to itself must not have any effect.
    own = jnp.diag(jax.random.normal(of_own, (N,)))
    params = params | {"recurrent": params["recurrent"] + own}
    xs = 2 * jax.random.normal(of_x, (steps, *batch, D))
    targets = jax.random.normal(of_target, (steps, *batch, N))
    return params, cell.carry(params, batch), xs, targets


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def by_hand(params, xs, alpha, zeta, threshold, refractory, rho=0.0, beta=0.0):
    """Return potentials, thresholds and spikes of all steps."""
    W, U = (np.asarray(params[name]) for name in ("inputs", "recurrent"))
    U = U - np.diag(np.diag(U))
    v, a, z = (np.zeros((xs.shape[1], N)) for _ in range(3))
    before = np.full(v.shape, -100)  # step of the last spike
    found = []
    for t, x in enumerate(np.asarray(xs)):
        v = alpha * v + zeta * (x @ W + z @ U) - threshold * z
        a = rho * a + z
        z = 1.0 * ((v >= threshold + beta * a) & (t - before >= refractory))
        before = np.where(z > 0, t, before)
        found.append((v, threshold + beta * a, z))
    return map(np.array, zip(*found, strict=True))


def test_lif_is_its_equation():
    params, carry, xs, _ = drawn(cells.lif)
    carry, ys = gradients.unroll(LIF, params, carry, xs)
    v, _, z = by_hand(params, xs, np.exp(-1 / 5), 1.0, 0.6, 3)
    # Without the refractory period, there would be other spikes.
    assert 0 < z.sum() < np.sum(v >= 0.6)
    assert_same((ys, carry.potential), (jnp.asarray(z), jnp.asarray(v[-1])))


def test_alif_is_its_equation():
    params, carry, xs, _ = drawn(cells.alif)
    xs = 10 * xs
    carry, ys = gradients.unroll(ALIF, params, carry, xs)
    alpha, beta = np.exp(-1 / 5), np.arange(4) / 10
    v, _, z = by_hand(
        params, xs, alpha, 1 - alpha, 0.6, 0, np.exp(-1 / 20), beta
    )  # fmt: skip
    assert 0 < z.sum() < np.sum(v >= 0.6)
    assert_same((ys, carry.potential), (jnp.asarray(z), jnp.asarray(v[-1])))


@pytest.mark.parametrize(
    "surrogate", [cells.triangular, lambda u: 1 / (1 + u * u)], ids=["default", "own"]
)
def test_derivatives_of_one_step_are_those_of_the_equations(surrogate):
    params, _, xs, targets = drawn(cells.alif)
    v, a, z = 0.4 + jax.random.normal(KEY, (3, 2, N)) / 5
    left = jnp.array([[0, 1, 2, 0], [3, 0, 0, 0]])
    start = cells.AlifState(v, a, left, jnp.round(jnp.abs(z)))
    step = partial(ALIF, surrogate=surrogate)

    def weighed(params, start):
        new, y = step(params, start._replace(refractory=left), xs[0])
        return jnp.sum(targets[0] * y) + jnp.sum(targets[1] * new.adaptation)

    floating = start._replace(refractory=jnp.zeros((2, N)))
    of_params, of_start = jax.grad(weighed, (0, 1))(params, floating)
    alpha, zeta = np.exp(-1 / 5), 1 - np.exp(-1 / 5)
    U = params["recurrent"] * (1 - np.eye(N))
    new_v = alpha * v + zeta * (xs[0] @ params["inputs"] + start.spikes @ U)
    new_v = new_v - 0.6 * start.spikes
    beta = np.tile(np.arange(4) / 10, (2, 1))
    psi = surrogate((new_v - 0.6 - beta * a) / 0.6) / 0.6
    psi = jnp.where(left <= 1, psi, 0.0)
    assert jnp.sum(psi > 0) > 2
    delta = (targets[0] + targets[1]) * psi
    assert_same(of_params["inputs"], zeta * xs[0].T @ delta)
    want = zeta * (start.spikes.T @ delta) * (1 - np.eye(N))
    assert_same(of_params["recurrent"], want)
    assert_same(of_start.potential, alpha * delta)
    assert_same(of_start.adaptation, targets[1] * np.exp(-1 / 20) - beta * delta)
    assert_same(of_start.spikes, zeta * delta @ U.T)  # not through the reset


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "step"), [(cells.lif, LIF), (cells.alif, ALIF)], ids=["lif", "alif"]
)
def test_exact_rules_agree_with_masks_and_resets(cell, step):
    """Compare BPTT and RTRL; the first example is all padding."""
    params, carry, xs, targets = drawn(cell, (3,))
    xs = 3 * xs  # so that neurons spike, in spite of padding and resets
    mask = jax.random.bernoulli(KEY, 0.7, (T, 3)).at[:, 0].set(False)
    options = {"mask": mask, "reset": jax.random.bernoulli(KEY, 0.3, (T, 3))}
    want = jax.jit(gradients.bptt(step, loss))(params, carry, xs, targets, **options)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(want[1]))
    spoilt = jnp.where(mask[..., None], xs, jnp.nan)
    for rule in (
        gradients.over_sequence(gradients.rtrl(step, loss)),
        gradients.bptt(step, loss),
    ):
        got = jax.jit(rule)(params, carry, spoilt, targets, **options)
        assert_same(got, want)
    chex.assert_trees_all_equal(
        jax.tree.map(lambda leaf: leaf[0], want[0][1]),
        jax.tree.map(lambda leaf: leaf[0], carry),
    )


@pytest.mark.slow
def test_one_time_step_is_the_same_by_every_rule():
    params, carry, xs, targets = drawn(cells.lif, steps=1)
    args = params, carry, xs, targets
    want = jax.jit(gradients.bptt(LIF, loss))(*args)
    assert jnp.any(want[1]["inputs"] != 0)
    eprop = partial(gradients.eprop, visible=lambda carry: carry.spikes)
    for make in (eprop, gradients.rtrl, gradients.rflo):
        got = jax.jit(gradients.over_sequence(make(LIF, loss)))(*args)
        assert_same(got, want)


def test_surrogate_gradients_are_not_derivatives_of_the_loss():
    params, carry, xs, _ = drawn(cells.lif, (), 3)

    def spikes(params):
        return jnp.sum(gradients.unroll(LIF, params, carry, xs)[1])

    moved = jax.tree.map(lambda leaf: leaf + 1e-9, params)
    assert spikes(params) == spikes(moved) > 0  # so the derivative of the loss is 0
    assert jnp.any(jax.grad(spikes)(params)["inputs"] != 0)


def test_narrow_parameters_have_a_wide_carry():
    params = cells.lif.init(KEY, D, N, dtype=jnp.bfloat16)
    carry = cells.lif.carry(params)
    assert carry.potential.dtype == jnp.float32
    new, y = cells.lif(params, carry, jnp.ones(D, jnp.bfloat16))
    chex.assert_trees_all_equal_shapes_and_dtypes(new, carry)
    assert y.dtype == jnp.float32
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), carry)
    with pytest.raises(ValueError, match="carry must be float32 or wider, got bfloat1"):
        cells.lif(params, narrow, jnp.ones(D))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": -20.0}, r"tau must be positive, got -20\.0; it is a number of time"),
        ({"tau": np.ones(3)}, r"tau must be a number or an array \[4\]"),
        ({"threshold": 0.0}, r"threshold must be positive, got 0\.0"),
        ({"refractory": 1.5}, "refractory must be an integer of at least 0, got 1.5"),
        ({"normalise": 1.0}, "normalise must be True or False, got 1.0"),
        ({"surrogate": "triangular"}, "surrogate must be a function .* 'triangular'"),
    ],
)
def test_wrong_constants_are_named(settings, message):
    params, carry, xs, _ = drawn(cells.lif)
    with pytest.raises(ValueError, match=message):
        cells.lif(params, carry, xs[0], **settings)


def test_a_surrogate_must_be_elementwise():
    params, carry, xs, targets = drawn(cells.lif)
    step = partial(cells.lif, surrogate=lambda u: jnp.sum(u))
    with pytest.raises(ValueError, match="surrogate must be elementwise"):
        gradients.bptt(step, loss)(params, carry, xs, targets)


def test_other_carries_and_inputs_are_named():
    params, carry, xs, _ = drawn(cells.lif)
    with pytest.raises(ValueError, match=r"carry must be cells.AlifState, 4 arrays"):
        cells.alif(params, carry, xs[0])
    with pytest.raises(ValueError, match=r"x must be an array \[\*batch, 3\]"):
        cells.lif(params, carry, xs[0, :, :2])
