"""Tests of coupled learning against dense linear algebra in NumPy.

The network has Φ = ½ ρ(h)ᵀ W ρ(h) + xᵀ h with a symmetric W of spectral norm 0.7; ρ is
the identity, as in a network of linear resistors, or tanh. Its last units are outputs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

N = 5
STEPS = {"free_steps": 150, "clamped_steps": 150}


def linear(W, h, x):
    return jnp.sum(h * (h @ W), axis=-1) / 2 + jnp.sum(x * h, axis=-1)


def nonlinear(W, h, x):
    return linear(W, jnp.tanh(h), 0 * x) + jnp.sum(x * h, axis=-1)


def last(count):
    return lambda h: h[..., N - count :]


def problem(batch=(), count=2):
    rng = np.random.default_rng(0)
    W = rng.normal(size=(N, N))
    W = W + W.T
    W *= 0.7 / np.linalg.norm(W, 2)
    x, target = rng.normal(size=(*batch, N)), rng.normal(size=(*batch, count))
    return tuple(map(jnp.asarray, (W, np.zeros((*batch, N)), x, target)))


def free_state(W, x):
    h = np.zeros(N)
    for _ in range(500):
        rho = np.tanh(h)
        h = (1 - rho**2) * (W @ rho) + x
    return h


def limit(W, x, target, *, tanh, squared_error=False):
    """Return half the squared error, and the update for η → 0 of one example.

    A force on the state moves it by (I − H)⁻¹ times the force, where H = ∂²Φ/∂h². C is
    the block of (I − H)⁻¹ at the outputs. With squared_error=True, C is the identity:
    the result is then the gradient of the squared error.
    """
    W, x, target = map(np.asarray, (W, x, target))
    if tanh:
        h = free_state(W, x)
        rho = np.tanh(h)
        slope = 1 - rho**2
        H = np.diag(-2 * rho * slope * (W @ rho)) + slope[:, None] * W * slope
    else:
        h = rho = np.linalg.solve(np.eye(N) - W, x)
        slope, H = np.ones(N), W
    response = np.linalg.inv(np.eye(N) - H)
    count = len(target)
    C = np.eye(count) if squared_error else response[-count:, -count:]
    difference = h[-count:] - target
    z = slope * (response[:, -count:] @ np.linalg.solve(C, difference))
    return difference @ difference / 2, (np.outer(z, rho) + np.outer(rho, z)) / 2


def test_with_one_output_it_is_the_gradient_divided_by_the_response():
    """The symmetric difference is exact for a linear network, whatever η is."""
    W, init, x, target = problem(count=1)
    rule = gradients.coupled_learning(linear, last(1), eta=0.5, **STEPS)
    (value, phases), update = jax.jit(rule)(W, init, x, target)
    want, grad = limit(W, x, target, tanh=False, squared_error=True)
    response = np.linalg.inv(np.eye(N) - np.asarray(W))[-1, -1]
    assert abs(response - 1) > 0.2  # the division matters
    np.testing.assert_allclose(value, want, rtol=1e-12)
    np.testing.assert_allclose(update, grad / response, atol=1e-12)
    assert phases.residual < 1e-12
    assert phases.nudged_residual < 1e-12
    assert phases.asymmetry is None


def test_with_several_outputs_it_is_not_the_gradient_of_the_squared_error():
    W, init, x, target = problem(count=3)
    rule = gradients.coupled_learning(linear, last(3), **STEPS)
    _, update = rule(W, init, x, target)
    _, want = limit(W, x, target, tanh=False)
    np.testing.assert_allclose(update, want, atol=1e-12)
    _, grad = limit(W, x, target, tanh=False, squared_error=True)
    cosine = np.vdot(grad, update) / np.linalg.norm(grad) / np.linalg.norm(update)
    assert cosine < 0.9


@pytest.mark.slow
def test_outputs_are_held_on_the_way_to_the_target():
    W, init, x, target = problem(batch=(2,))
    rule = gradients.coupled_learning(nonlinear, last(2), eta=0.25, **STEPS)
    (_, phases), _ = rule(W, init, x, target)
    free = phases.h[..., -2:]
    away = 0.25 * (target - free)
    np.testing.assert_allclose(phases.nudged[..., -2:], free + away, rtol=1e-14)
    np.testing.assert_allclose(phases.opposite[..., -2:], free - away, rtol=1e-14)
    for n in range(2):
        want = free_state(np.asarray(W), np.asarray(x[n]))
        np.testing.assert_allclose(phases.h[n], want, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("symmetric", "order"), [(True, 2), (False, 1)])
def test_error_falls_by_its_order(symmetric, order):
    """One function is traced once for all values of η."""
    W, init, x, target = problem()
    traces = []

    @jax.jit
    def run(eta):
        traces.append(eta)
        rule = gradients.coupled_learning(
            nonlinear, last(2), eta=eta, symmetric=symmetric, **STEPS
        )
        return rule(W, init, x, target)[1]

    _, want = limit(W, x, target, tanh=True)
    etas = np.array([1e-1, 1e-2, 1e-3])
    errors = [np.linalg.norm(run(eta) - want) / np.linalg.norm(want) for eta in etas]
    slopes = np.diff(np.log10(errors)) / np.diff(np.log10(etas))
    np.testing.assert_allclose(slopes, order, atol=0.1)
    assert errors[-1] < (1e-5 if symmetric else 1e-2)
    assert len(traces) == 1


@pytest.mark.slow
def test_batch_and_weights():
    W, init, x, target = problem(batch=(2, 2))
    weights = np.array([[1, 2], [0.5, 3]])
    rule = gradients.coupled_learning(nonlinear, last(2), eta=1e-4, **STEPS)
    for given, shares in [(None, np.full((2, 2), 0.25)), (weights, weights / 6.5)]:
        (value, _), update = rule(W, init, x, target, given)
        parts = {i: limit(W, x[i], target[i], tanh=True) for i in np.ndindex(2, 2)}
        want = sum(shares[i] * half for i, (half, _) in parts.items())
        np.testing.assert_allclose(value, want, rtol=1e-12)
        want = sum(shares[i] * grad for i, (_, grad) in parts.items())
        np.testing.assert_allclose(update, want, atol=1e-7)


@pytest.mark.slow
def test_equals_equilibrium_propagation_with_the_loss_of_the_clamps():
    """The loss is ½ (y − ŷ)ᵀ C⁻¹ (y − ŷ), with C measured by small forces."""
    batch = (2,)
    W, init, x, target = problem(batch)
    act, outputs = jax.nn.sigmoid, last(2)
    rule = gradients.coupled_learning(
        nonlinear, outputs, activation=act, eta=1e-4, **STEPS
    )
    (_, phases), update = rule(W, init, x, target)

    def settled(force):
        h = np.asarray(phases.h)
        for _ in range(200):
            rho = np.tanh(h)
            drive = (1 - rho**2) * (rho @ np.asarray(W)) + np.asarray(x)
            drive[..., -2:] += force
            h = 1 / (1 + np.exp(-drive))
        return h[..., -2:]

    forces = 1e-4 * np.eye(2)
    columns = [(settled(force) - settled(-force)) / 2e-4 for force in forces]
    inverse = np.linalg.inv(np.stack(columns, axis=-1))

    def distance(y, known):
        apart = y - known["target"]
        moved = jnp.sum(known["inverse"] * apart[..., None, :], axis=-1)
        return jnp.sum(apart * moved, axis=-1) / 2

    exact = gradients.equilibrium_propagation(
        nonlinear, distance, activation=act, readout=lambda W, h: outputs(h),
        beta=1e-4, free_steps=150, nudged_steps=150,
    )  # fmt: skip
    known = {"target": target, "inverse": jnp.asarray(inverse)}
    _, want = exact(W, init, x, known)
    apart = np.linalg.norm(update - want)
    assert apart < 1e-6 * np.linalg.norm(want)


@pytest.mark.slow
def test_examples_with_weight_zero_may_be_missing():
    W, init, x, target = problem(batch=(3,))
    weights = jnp.array([1.0, 0.0, 2.0])
    rule = jax.jit(gradients.coupled_learning(nonlinear, last(2)))
    (value, _), update = rule(W, init, x, target, weights)
    assert jnp.any(update != 0)
    for missing in [(x.at[1].set(jnp.nan), target), (x, target.at[1].set(jnp.nan))]:
        (with_nan, phases), same = rule(W, init, *missing, weights)
        assert value == with_nan
        np.testing.assert_array_equal(update, same)
    assert jnp.isfinite(phases.nudged).all()  # a missing target leaves a known state


def pytree_phi(params, h, x):
    drive = x @ params["U"] + h["out"] @ params["V"].T
    return jnp.sum(h["hidden"] * drive, axis=-1)


@pytest.mark.slow
def test_pytrees_jit_and_vmap():
    keys = jax.random.split(jax.random.key(5), 4)
    U, V, x, target = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, [(3, 4), (4, 2), (2, 3), (2, 2)], strict=True)
    )
    init = {"hidden": jnp.zeros((2, 4)), "out": jnp.zeros((2, 2))}
    rule = gradients.coupled_learning(
        pytree_phi, lambda h: h["out"], activation=jax.nn.sigmoid
    )
    alone = [rule({"U": U, "V": scale * V}, init, x, target)[1] for scale in (1.0, 0.5)]
    many = {"U": jnp.stack([U, U]), "V": jnp.stack([V, 0.5 * V])}
    together = jax.vmap(jax.jit(rule), in_axes=(0, None, None, None))
    together = together(many, init, x, target)[1]
    for name, leaf in together.items():
        for i in range(2):
            np.testing.assert_allclose(leaf[i], alone[i][name], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_results_have_the_dtypes_of_their_arguments(dtype):
    arguments = problem()
    short = jax.tree.map(lambda leaf: leaf.astype(dtype), arguments)
    rule = jax.jit(gradients.coupled_learning(nonlinear, last(2)))
    (value, phases), update = rule(*short)
    assert value.dtype == jnp.float32
    assert phases.h.dtype == phases.nudged.dtype == update.dtype == dtype
    W, _, x, target = arguments
    _, want = limit(W, x, target, tanh=True)
    apart = np.linalg.norm(update.astype(float) - want) / np.linalg.norm(want)
    assert apart < (0.03 if dtype == jnp.float32 else 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0}, "eta must be a positive number, such as 0.1, got 0. With eta = 0"),
        ({"eta": -0.1}, "eta must be a positive number.*symmetric=True"),
        ({"eta": "0.1"}, "eta must be a number"),
        ({"clamped_steps": 0}, "clamped_steps must be an integer of at least 1, got 0"),
        ({"free_steps": 2.5}, "free_steps must be an integer of at least 1, got 2.5"),
        ({"symmetric": "both"}, "symmetric must be True or False, got 'both'"),
        ({"activation": 1}, r"activation must be a function \(array\) -> array"),
        ({"outputs": "out"}, "outputs must be a function h -> y"),
        ({"function": 1}, r"function must be a function \(params, h, x\) -> Φ"),
    ],
)
def test_settings_are_checked(options, message):
    options = {"function": linear, "outputs": last(2), **options}
    with pytest.raises(ValueError, match=message):
        gradients.coupled_learning(**options)


def next_state(W, h, x):
    return h @ W + x


def narrow(W, h, x):
    return next_state(W, h, x)[..., 1:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": next_state}, r"one number for each.*Sum Φ over.*\[\*batch, 1\]"),
        ({"function": narrow}, "function gives Φ of shape.*init has leaves.*sum it"),
        ({"function": lambda W, h, x: jnp.sum(h) > 0}, "function must return Φ"),
        ({"function": lambda W, h: h}, r"function\(params, h, x\) cannot be evaluated"),
        ({"outputs": lambda h: 2 * h}, "outputs must select.*equilibrium_propagation"),
        ({"outputs": lambda h: h}, "target"),
        ({"activation": jnp.sum}, "the next state must have the structure"),
    ],
)
def test_calls_are_checked(options, message):
    options = {"function": linear, "outputs": last(2), **options}
    rule = partial(gradients.coupled_learning, **options)()
    with pytest.raises(ValueError, match=message):
        rule(*problem(batch=(2,)))


def test_weights_need_one_entry_for_each_example():
    rule = gradients.coupled_learning(linear, last(2))
    with pytest.raises(ValueError, match="weights must have one entry for each loss"):
        rule(*problem(batch=(2,)), jnp.ones(3))
