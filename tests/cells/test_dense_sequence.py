"""Tests of GRUs and LSTMs with `backward="two_phase"`, which runs whole sequences."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from bpvariants.cells import _dense_sequence

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture
def runs(monkeypatch):
    """Return a list with an entry for each sequence that was run as a whole."""
    found, run = [], _dense_sequence._run
    record = lambda *args: found.append(args[0].name) or run(*args)
    monkeypatch.setattr(_dense_sequence, "_run", record)
    return found


def data(cell, batch, dtype, inputs=3):
    shape = lambda size: (5, *batch, size)
    params = cell.init(jax.random.key(0), inputs, 4, dtype=dtype)
    noise = lambda leaf: (
        leaf
        + jnp.asarray(0.1, leaf.dtype)
        * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
    )
    params = jax.tree.map(noise, params)  # biases that are not 0
    carry = jax.tree.map(noise, cell.carry(params, batch))
    xs = jax.random.normal(jax.random.key(1), shape(inputs), dtype)
    return params, carry, xs, jax.random.normal(jax.random.key(2), shape(4), dtype)


def loss(y, target):
    return jnp.mean((y - target) ** 2, axis=-1)


def of_all(outputs, targets):
    last, ys = outputs
    leaves = jax.tree.leaves(last)
    return jnp.sum(jnp.sin(ys) * targets) + sum(jnp.sum(leaf**3) for leaf in leaves)


def assert_close(got, want, dtype):
    """Compare arrays by their largest difference, relative to the largest element."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        off = np.max(np.abs(a - b), initial=0)
        assert off <= TOLERANCE[dtype] * np.max(np.abs(b), initial=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("cell", "batch"),
    [(cells.lstm, (2,)), (cells.gru, (2, 3)), (cells.lstm, ()), (cells.gru, (0,))],
    ids=str,
)
def test_derivatives_are_those_of_a_loop(cell, batch, dtype, runs):
    params, carry, xs, targets = data(cell, batch, dtype)

    def loop(params, carry, xs):
        ys = []
        for x in xs:
            carry, y = cell(params, carry, x)
            ys.append(y)
        return of_all((carry, jnp.stack(ys)), targets)

    def unrolled(params, carry, xs):
        found = gradients.unroll(cell, params, carry, xs, backward="two_phase")
        return of_all(found, targets)

    grad = lambda function: jax.jit(jax.grad(function, (0, 1, 2)))(params, carry, xs)
    assert_close(grad(unrolled), grad(loop), dtype)
    assert runs == [cell.__name__]


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cells.lstm, cells.gru], ids=str)
def test_the_rule_runs_a_sequence_as_a_whole(cell, runs):
    arguments = data(cell, (2,), "float32")
    weights = jnp.linspace(0, 1, 10, dtype=jnp.float32).reshape(5, 2)
    rules = [
        jax.jit(gradients.bptt(cell, loss, backward=backward))
        for backward in ("two_phase", "scan")
    ]
    got, want = (rule(*arguments, weights=weights) for rule in rules)
    assert runs == [cell.__name__]
    assert_close(got, want, "float32")
    # Under vmap, and with flags or narrow numbers, for which each step runs alone.
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), arguments)
    got, want = (jax.jit(jax.vmap(rule))(*many) for rule in rules)
    assert_close(got, want, "float32")
    del runs[:]
    reset = jnp.zeros((5, 2), bool).at[2, 1].set(True)
    got, want = (rule(*arguments, reset=reset, mask=~reset) for rule in rules)
    assert_close(got, want, "float32")
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), arguments)
    chex.assert_trees_all_equal_shapes(*(rule(*narrow)[1] for rule in rules))
    assert not runs


@pytest.mark.slow
def test_networks_without_inputs_and_second_derivatives():
    params, carry, xs, targets = data(cells.lstm, (2,), "float64", inputs=0)

    def objective(backward, recurrent):
        found = gradients.unroll(
            cells.lstm, params | {"recurrent": recurrent}, carry, xs, backward=backward
        )
        return of_all(found, targets)

    def curvature(backward):
        slope = jax.grad(lambda u: objective(backward, u))
        return jax.jit(lambda u: jax.jvp(slope, (u,), (jnp.cos(u),)))

    weights = params["recurrent"]
    got, want = (curvature(name)(weights) for name in ("two_phase", "scan"))
    assert_close(got, want, "float64")
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda u: objective("two_phase", u), (weights,), (weights,))
