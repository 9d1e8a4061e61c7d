"""Tests of promises that all random gradient rules make."""

from functools import cache, partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import gradients

ESTIMATORS = {
    "uoro": gradients.uoro,
    "forward_gradient": partial(
        gradients.forward_gradient, directions=2, distribution="normal"
    ),
    "pes": partial(gradients.pes, pairs=2, window=2),
}
KEY = jax.random.key(0)


@pytest.fixture(params=ESTIMATORS.values(), ids=ESTIMATORS)
def estimator(request):
    return request.param


class Compiled(NamedTuple):
    rule: object  # gradient rule for a whole sequence
    update: object
    start: object  # (carry, first inputs) -> initial state
    traces: list  # gets an entry each time the step is traced


@cache
def compiled(estimator, step, loss):
    traces = []

    def traced(*args):
        traces.append(1)
        return step(*args)

    online = estimator(traced, loss)

    def start(params, carry, x, target, initial=None):
        return online.init(params, carry, (x, target), initial=initial)

    rule = jax.jit(gradients.over_sequence(online))
    return Compiled(rule, jax.jit(online.update), start, traces)


@cache
def exact(step, loss):
    return jax.jit(gradients.bptt(step, loss))


def is_finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


CASES = [("nested", (3,)), ("tanh", (2, 3))]


@pytest.mark.parametrize(("cell", "batch"), CASES, ids=str)
def test_value_and_carry_are_those_of_bptt(make_problem, estimator, cell, batch):
    step, loss, args, options = make_problem(cell, batch)
    rule = compiled(estimator, step, loss).rule
    want, want_grads = exact(step, loss)(*args, **options)
    got, grads = rule(*args, **options, key=KEY)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, want_grads)
    # The gradient of the readout is nonzero as well.
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(grads))
    _, others = rule(*args, **options, key=jax.random.key(7))
    leaves = jax.tree.leaves(grads)[0], jax.tree.leaves(others)[0]
    assert not np.allclose(*leaves)
    if estimator is gradients.uoro and cell == "tanh":
        chex.assert_trees_all_close(grads["readout"], want_grads["readout"], rtol=1e-10)


def test_padding_is_not_looked_at(make_problem, estimator):
    step, loss, (params, carry, xs, targets), options = make_problem("nested", (3,))
    rule = compiled(estimator, step, loss).rule
    mask = gradients.mask_from_lengths(jnp.array([5, 2, 0]), 5)
    spoil = lambda leaf: jnp.where(mask[..., None], leaf, jnp.nan)
    options = options | {"mask": mask, "key": KEY}
    got = rule(params, carry, spoil(xs), spoil(targets), **options)
    assert is_finite(got)
    chex.assert_trees_all_equal(got, rule(params, carry, xs, targets, **options))
    options["mask"] = jnp.zeros_like(mask)
    (value, last), grads = rule(params, carry, xs, targets, **options)
    zeros = jax.tree.map(jnp.zeros_like, params)
    chex.assert_trees_all_equal((value, last, grads), (0 * value, carry, zeros))


def test_a_step_of_padding_leaves_the_state_as_it_is(make_problem, estimator):
    step, loss, (params, carry, xs, targets), _ = make_problem("nested", (3,))
    _, update, start, _ = compiled(estimator, step, loss)
    yes, no, weight = jnp.ones(3, bool), jnp.zeros(3, bool), jnp.ones(3)
    state = start(params, carry, xs[0], targets[0])
    flags = {"weight": weight, "mask": yes, "reset": no}
    _, _, state = update(params, state, xs[0], targets[0], key=KEY, **flags)
    spoilt = jnp.full_like(xs[1], jnp.nan), jnp.full_like(targets[1], jnp.nan)
    # The time step has both padding and a reset; padding takes precedence.
    flags = {"weight": weight, "mask": no, "reset": yes}
    _, _, idle = update(params, state, *spoilt, key=jax.random.key(1), **flags)
    chex.assert_trees_all_equal(idle, state)


def test_a_reset_of_one_example_forgets_its_past_and_no_other(make_problem, estimator):
    step, loss, (params, carry, xs, targets), options = make_problem("nested", (3,))
    _, update, start, traces = compiled(estimator, step, loss)
    first = jnp.array([True, False, False])

    def last(past, counts):
        state, traced = start(params, carry, xs[0], targets[0], options["initial"]), 0
        for t in range(4):
            flags = {"weight": counts, "mask": jnp.ones(3, bool)}
            flags["reset"] = first & (t == 2)
            x, key = xs[t] * (past if t < 2 else 1.0), jax.random.key(t)
            value, grads, state = update(params, state, x, targets[t], key=key, **flags)
            traced = len(traces) if t == 0 else traced
        assert len(traces) == traced  # Only the first step may trace the network.
        return value, grads

    for example in (0, 1):
        counts = jnp.zeros(3).at[example].set(1.0)
        one, other = last(1.0, counts), last(-0.5, counts)
        if example == 0:
            chex.assert_trees_all_equal(one, other)
        else:
            leaves = jax.tree.leaves(one[1])[0], jax.tree.leaves(other[1])[0]
            assert not np.allclose(*leaves, rtol=1e-3)


@pytest.mark.slow
def test_one_step(make_problem, estimator):
    """Check sequences of one step, which need no memory, and empty batches."""
    step, loss, args, _ = make_problem("tanh", (), T=1)
    rule = compiled(estimator, step, loss).rule
    want = exact(step, loss)(*args)
    got = rule(*args, key=KEY)
    chex.assert_trees_all_close(got[0], want[0], rtol=1e-10)
    assert is_finite(got)
    if estimator is gradients.uoro:
        chex.assert_trees_all_close(got[1], want[1], rtol=1e-10)
    step, loss, args, _ = make_problem("tanh", (0,), T=1)
    (value, carry), grads = rule(*args, key=KEY)
    zeros = jax.tree.map(jnp.zeros_like, args[0])
    chex.assert_trees_all_equal((value, carry, grads), (jnp.zeros(()), args[1], zeros))


@pytest.mark.slow
def test_narrow_dtypes_are_kept_and_what_is_remembered_is_wide(make_problem, estimator):
    step, loss, args, options = make_problem("tanh", dtype=jnp.bfloat16)
    rule, _, start, _ = compiled(estimator, step, loss)
    (value, carry), grads = rule(*args, **options, key=KEY)
    assert (value.dtype, carry.dtype) == (jnp.float32, jnp.bfloat16)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, args[0])
    assert is_finite(grads)
    params, carry, xs, targets = args
    remembered = jax.tree.leaves(start(params, carry, xs[0], targets[0])[1:3])
    assert {leaf.dtype for leaf in remembered} == {jnp.dtype(jnp.float32)}


def test_networks_without_state(estimator):
    step = lambda params, carry, x: ((), x @ params)
    loss = lambda y, target: (y - target) ** 2
    args = jnp.ones(2), (), jnp.ones((4, 3, 2)), jnp.zeros((4, 3))
    got = compiled(estimator, step, loss).rule(*args, key=KEY)
    want = exact(step, loss)(*args)
    chex.assert_trees_all_close(got[0], want[0], rtol=1e-12)
    assert is_finite(got)
    if estimator is gradients.uoro:
        chex.assert_trees_all_close(got[1], want[1], rtol=1e-12)


def test_mistakes_are_named(make_problem, estimator):
    step, loss, (params, carry, xs, targets), _ = make_problem("tanh")
    rule, update, start, _ = compiled(estimator, step, loss)
    x, target = xs[0], targets[0]
    with pytest.raises(ValueError, match=r"key must be given, .* draws at random"):
        rule(params, carry, xs, targets)
    state = start(params, carry, x, target)
    with pytest.raises(ValueError, match=r"key must be given, .*key=jax\.random\.key"):
        update(params, state, x, target)
    with pytest.raises(ValueError, match=r"state must be what .* init or update"):
        update(params, carry, x, target, key=KEY)
    with pytest.raises(ValueError, match="do not fit together"):
        update(params, state, x[:2], target, key=KEY)
    with pytest.raises(ValueError, match="carry must be real, got complex128"):
        start(params, carry.astype(complex), x, target)
    with pytest.raises(ValueError, match="initial must have the structure"):
        start(params, carry, x, target, initial=carry[:2])
