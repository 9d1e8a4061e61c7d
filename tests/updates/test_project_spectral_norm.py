"""Tests of the spectral-norm projection, against a singular value decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpvariants import updates

sigma = lambda matrix: np.linalg.norm(np.asarray(matrix, float), ord=2)
NUMBERS = np.random.default_rng(0)


def apply(rule, params, change, state=None):
    state = rule.init(params) if state is None else state
    change, state = jax.jit(rule.update)(change, state, params)
    return optax.apply_updates(params, change), state


@pytest.mark.parametrize("shape", [(6, 6), (3, 7), (4, 1)])
def test_the_new_matrix_is_shrunk_to_the_limit(shape):
    w, change = (jnp.array(NUMBERS.normal(size=shape)) for _ in range(2))
    rule = updates.project_spectral_norm(0.9, steps=500)
    got, _ = apply(rule, w, change)
    np.testing.assert_allclose(got, (w + change) * 0.9 / sigma(w + change), rtol=1e-9)


def test_power_iteration_approaches_from_below_and_goes_on():
    """Check that the norm exceeds its limit slightly, and less with each call."""
    w = jnp.array(NUMBERS.normal(size=(40, 40)))
    rule = updates.project_spectral_norm(0.95, steps=5)

    def body(state, _):
        got, state = apply(rule, w, jnp.zeros_like(w), state)
        return state, got

    _, matrices = jax.lax.scan(body, rule.init(w), length=40)
    excess = [sigma(matrix) / 0.95 - 1 for matrix in matrices]
    assert 0 < excess[0] < 0.5
    assert 0 <= excess[-1] + 1e-12 < 1e-3 < excess[0]
    once, _ = apply(updates.project_spectral_norm(), w, jnp.zeros_like(w))
    assert 0.95 <= sigma(once) < 1


def test_what_is_small_enough_passes_bit_for_bit():
    w = jnp.array(NUMBERS.normal(size=(5, 5))) / 20
    params = {"w": w, "bias": 9 * jnp.ones(5), "kernel": 9 * jnp.ones((2, 5, 5))}
    change = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    rule = updates.project_spectral_norm()
    got, _ = rule.update(change, rule.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, got, change)


def test_one_among_several_is_chosen_by_a_mask():
    params = {"recurrent": 3 * jnp.eye(3), "readout": 3 * jnp.eye(3)}
    chosen = optax.masked(
        updates.project_spectral_norm(0.5), {"recurrent": True, "readout": False}
    )
    optimizer = optax.chain(optax.sgd(1.0), chosen)
    got, _ = apply(optimizer, params, jax.tree.map(jnp.zeros_like, params))
    np.testing.assert_allclose(got["recurrent"], 0.5 * jnp.eye(3), rtol=1e-12)
    np.testing.assert_array_equal(got["readout"], params["readout"])


def test_a_direction_that_had_died_out_comes_back():
    """Check that power iteration finds a singular vector that it had lost.

    The component of the iterated vector in this direction had become 0.
    """
    rule = updates.project_spectral_norm(1.0)
    first, second = (jnp.diag(jnp.array(d)) for d in ([0.9, 1e-3], [0.9, 3.0]))
    body = lambda state, _: (apply(rule, first, 0 * first, state)[1], None)
    state, _ = jax.lax.scan(body, rule.init(first), length=20)
    got, _ = apply(rule, second, jnp.zeros_like(second), state)
    np.testing.assert_allclose(sigma(got), 1.0, rtol=1e-9)


def test_rows_that_add_up_to_zero_and_a_zero_matrix():
    """Project a matrix whose rows sum to 0, so that it maps equal entries to 0."""
    w = jnp.array([[1.0, -1.0], [-4.0, 4.0]])
    rule = updates.project_spectral_norm()
    got, _ = apply(rule, w, jnp.zeros_like(w))
    np.testing.assert_allclose(sigma(got), 0.95, rtol=1e-12)
    got, state = apply(rule, jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    np.testing.assert_array_equal(got, 0)
    got, _ = apply(rule, w, jnp.zeros_like(w), state)
    np.testing.assert_allclose(sigma(got), 0.95, rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_loud_and_not_kept(bad):
    w = jnp.array(NUMBERS.normal(size=(3, 3)))
    rule = updates.project_spectral_norm()
    _, state = apply(rule, w, jnp.zeros_like(w))
    got, after = apply(rule, w, w.at[0, 1].set(bad), state)
    assert not np.isfinite(got).all()
    np.testing.assert_array_equal(after.vectors, state.vectors)


def test_complex_matrices_are_shrunk():
    w = jnp.array(NUMBERS.normal(size=(4, 3)) + 1j * NUMBERS.normal(size=(4, 3)))
    got, _ = apply(updates.project_spectral_norm(0.5, steps=200), w, 0 * w)
    np.testing.assert_allclose(np.linalg.norm(got, ord=2), 0.5, rtol=1e-9)
    np.testing.assert_allclose(got / w, (got / w)[0, 0], rtol=1e-9)


def test_a_network_under_it_stays_contractive():
    """Train with the projection, without which the spectral norm would exceed 1."""
    x = jnp.array(NUMBERS.normal(size=(8, 6)))
    loss = lambda w: jnp.mean((jnp.tanh(x @ w) - 2.0) ** 2)

    def norm(optimizer):
        def body(w_and_state, _):
            w, state = w_and_state
            change, state = optimizer.update(jax.grad(loss)(w), state, w)
            return (w + change, state), None

        w = jnp.zeros((6, 6))
        (w, _), _ = jax.lax.scan(body, (w, optimizer.init(w)), length=100)
        return sigma(w)

    bare = optax.sgd(1.0)
    assert norm(bare) > 2
    assert norm(optax.chain(bare, updates.project_spectral_norm())) < 0.951


@pytest.mark.parametrize("size", [1e-42, 1e-25, 4e9, 1e19, 2e38])
def test_sizes_whose_squares_overflow_or_underflow_in_float32(size):
    """Project matrices whose squares overflow or underflow in float32.

    Some cases have matrices of usual size, and limits of extreme size.
    """
    w = NUMBERS.normal(size=(4, 6))
    w = w / sigma(w)
    params = {"small": jnp.asarray(0.5 * w), "new": jnp.zeros((4, 6))}
    params = jax.tree.map(jnp.float32, params)
    change = {"small": 0 * params["small"], "new": jnp.asarray(size * w, jnp.float32)}
    got, _ = apply(updates.project_spectral_norm(), params, change)
    np.testing.assert_array_equal(got["small"], params["small"])
    assert sigma(got["new"]) == pytest.approx(min(size, 0.95), rel=1e-4)
    if 1e-30 < size < 1e38:
        got, _ = apply(updates.project_spectral_norm(size / 10), params, change)
        assert sigma(got["new"]) == pytest.approx(size / 10, rel=1e-4)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 9e3), ("bfloat16", 1e25)])
def test_large_changes_of_narrow_params_are_shrunk(dtype, size):
    w = jnp.asarray(NUMBERS.normal(size=(4, 6)) * size, dtype)
    got, _ = apply(updates.project_spectral_norm(), jnp.zeros_like(w), w)
    assert got.dtype == dtype
    assert sigma(got.astype(float)) == pytest.approx(0.95, rel=2e-2)


def test_mistakes_are_named():
    rule = updates.project_spectral_norm()
    state = rule.init(jnp.eye(2))
    for wrong, message in {
        lambda: updates.project_spectral_norm(0.0): "limit must be positive, got 0.0",
        lambda: updates.project_spectral_norm(steps=0): "steps must be .* 1, got 0",
        lambda: updates.project_spectral_norm(steps=2.5): "steps must be .* got 2.5",
        lambda: updates.project_spectral_norm(steps=True): "steps must be .* got True",
        lambda: rule.update(jnp.eye(2), state): "needs params, .*call optimizer.update",
        lambda: rule.init(jnp.arange(3)): "params must be a floating array",
    }.items():
        with pytest.raises(ValueError, match=message):
            wrong()
