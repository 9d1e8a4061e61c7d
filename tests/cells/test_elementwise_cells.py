"""Tests of elementwise cells against NumPy, with gradients by all exact rules."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients

KEY = jax.random.key(0)
CELLS = {
    "lru": (
        cells.lru,
        lambda **options: cells.lru.init(KEY, 2, 3, 4, **options),
        lambda params, batch: cells.lru.carry(params, batch, complex=False),
    ),
    "min_gru": (
        cells.min_gru,
        lambda **options: cells.min_gru.init(KEY, 2, 4, **options),
        cells.min_gru.carry,
    ),
    "rtu": (
        cells.rtu,
        lambda **options: cells.rtu.init(KEY, 2, 2, **options),
        cells.rtu.carry,
    ),
    "rtu_non_linear": (
        partial(cells.rtu, linear=False),
        lambda **options: cells.rtu.init(KEY, 2, 2, **options),
        cells.rtu.carry,
    ),
}


@pytest.fixture(params=CELLS.values(), ids=list(CELLS))
def cell(request):
    return request.param


def assert_same(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


def squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def relu(z):
    return np.maximum(z, 0)


def test_lru_is_its_equation():
    params = cells.lru.init(KEY, 2, 3, 4)
    p = jax.tree.map(np.asarray, params)
    eigenvalues = np.exp(-np.exp(p["log_decay"]) + 1j * np.exp(p["log_angle"]))
    matrix_in = p["in_real"] + 1j * p["in_imag"]
    matrix_out = p["out_real"] + 1j * p["out_imag"]
    xs = jax.random.normal(KEY, (5, 2))
    h, want = np.array([1j, 2, 3 - 1j]), []
    start = jnp.asarray(h)
    for x in np.asarray(xs):
        h = eigenvalues * h + np.exp(p["log_gain"]) * (x @ matrix_in)
        want.append((h @ matrix_out).real + x @ p["skip"])
    last, ys = gradients.unroll(cells.lru, params, start, xs)
    assert_same((last, ys), (jnp.asarray(h), jnp.asarray(want)))
    pair, ys = gradients.unroll(cells.lru, params, (start.real, start.imag), xs)
    assert_same((jax.lax.complex(*pair), ys), (last, jnp.asarray(want)))


def test_min_gru_is_its_equation():
    params = cells.min_gru.init(KEY, 2, 3)
    biases = {"gate": jnp.array([0.1, 0.2, -0.3]), "candidate": jnp.array([1.0, 0, 2])}
    params = {name: (params[name][0], bias) for name, bias in biases.items()}
    (gate, b), (candidate, c) = [
        jax.tree.map(np.asarray, params[name]) for name in ("gate", "candidate")
    ]
    xs = jax.random.normal(KEY, (5, 2))
    h, want = np.array([0.5, -0.5, 1.0]), []
    start = jnp.asarray(h)
    for x in np.asarray(xs):
        z = 1 / (1 + np.exp(-(x @ gate + b)))
        h = (1 - z) * h + z * (x @ candidate + c)
        want.append(h)
    last, ys = gradients.unroll(cells.min_gru, params, start, xs)
    assert_same((last, ys), (jnp.asarray(h), jnp.asarray(want)))


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize(
    "f", [np.tanh, lambda z: np.maximum(z, 0)], ids=["tanh", "relu"]
)
def test_rtu_is_its_equation(linear, f):
    params = cells.rtu.init(KEY, 2, 3)
    p = jax.tree.map(np.asarray, params)
    r, theta = np.exp(-np.exp(p["log_decay"])), np.exp(p["log_angle"])
    g, k, gamma = r * np.cos(theta), r * np.sin(theta), np.sqrt(1 - r**2)
    xs = jax.random.normal(KEY, (5, 2))
    c1, c2, want = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.0, -0.3]), []
    start = jnp.asarray(c1), jnp.asarray(c2)
    for x in np.asarray(xs):
        z1 = g * c1 - k * c2 + gamma * (x @ p["in_real"])
        z2 = g * c2 + k * c1 + gamma * (x @ p["in_imag"])
        want.append(np.concatenate([f(z1), f(z2)]))
        c1, c2 = (z1, z2) if linear else (f(z1), f(z2))
    activation = jnp.tanh if f is np.tanh else jax.nn.relu
    step = partial(cells.rtu, linear=linear, activation=activation)
    last, ys = gradients.unroll(step, params, start, xs)
    assert_same((last, ys), ((jnp.asarray(c1), jnp.asarray(c2)), jnp.asarray(want)))


@pytest.mark.fast_rows(1)
def test_in_every_exact_rule(cell):
    step, make_params, make_carry = cell
    params, keys = make_params(), jax.random.split(KEY, 4)
    args = (
        params,
        jax.tree.map(lambda h: h + 1, make_carry(params, (3,))),
        jax.random.normal(keys[0], (5, 3, 2)),
        jax.random.normal(keys[1], (5, 3, 4)),
    )
    options = {
        "mask": jax.random.bernoulli(keys[2], 0.7, (5, 3)),
        "reset": jax.random.bernoulli(keys[3], 0.3, (5, 3)),
    }
    want = jax.jit(gradients.bptt(step, squared_error))(*args, **options)
    for online in (gradients.rtrl, gradients.diagonal_rtrl):
        rule = gradients.over_sequence(online(step, squared_error))
        assert_same(jax.jit(rule)(*args, **options), want)


def test_lru_has_the_same_gradient_with_either_carry():
    params = cells.lru.init(KEY, 2, 3, 4)
    xs, targets = jnp.ones((5, 6, 2)), jnp.ones((5, 6, 4))
    rule = gradients.bptt(cells.lru, squared_error)
    (value, last), grads = rule(params, cells.lru.carry(params, (6,)), xs, targets)
    pair = cells.lru.carry(params, (6,), complex=False)
    (want, parts), want_grads = rule(params, pair, xs, targets)
    assert_same((value, last, grads), (want, jax.lax.complex(*parts), want_grads))
    chex.assert_trees_all_equal_dtypes(grads, params)


def test_lru_begins_within_its_ring():
    settings = {"min_radius": 0.3, "max_radius": 0.6, "max_angle": 0.5}
    params = cells.lru.init(KEY, 2, 500, 1, **settings)
    radii = jnp.exp(-jnp.exp(params["log_decay"]))
    angles = jnp.exp(params["log_angle"])
    assert jnp.all((radii >= 0.3) & (radii <= 0.6))
    assert jnp.all((angles > 0) & (angles <= 0.5))
    # The initial eigenvalues are uniformly distributed in a ring of the complex plane.
    # Half of them are outside the circle that divides the ring into two parts of equal
    # area.
    outer = jnp.mean(radii**2 > (0.3**2 + 0.6**2) / 2)
    np.testing.assert_allclose(outer, 0.5, atol=0.07)
    assert_same(jnp.exp(params["log_gain"]) ** 2, 1 - radii**2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.slow
def test_keeps_dtypes(cell, dtype):
    step, make_params, make_carry = cell
    params = make_params(dtype=dtype)
    chex.assert_type(jax.tree.leaves(params), dtype)
    carry, xs = make_carry(params, (3,)), jnp.ones((4, 3, 2), dtype)
    last, ys = gradients.unroll(step, params, carry, xs)
    chex.assert_type(ys, dtype)
    chex.assert_trees_all_equal_dtypes(last, carry)
    chex.assert_tree_all_finite(ys)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
@pytest.mark.fast_rows(4)
def test_any_batch_shape(cell, batch):
    step, make_params, make_carry = cell
    params = make_params()
    _, y = step(params, make_carry(params, batch), jnp.ones((*batch, 2)))
    assert y.shape == (*batch, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"min_radius": 0.9, "max_radius": 1.0},
            r"max_radius < 1, as.*0\.9 and 1\.0",
        ),
        ({"min_radius": 0.5, "max_radius": 0.4}, r"got 0\.5 and 0\.4"),
        ({"max_angle": 0.0}, r"max_angle must be positive, got 0\.0"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        cells.lru.init(KEY, 2, 3, 4, **settings)
    with pytest.raises(ValueError, match=message):
        cells.rtu.init(KEY, 2, 3, **settings)
