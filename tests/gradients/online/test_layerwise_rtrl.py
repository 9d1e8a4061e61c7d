"""Tests of layer-wise RTRL: exact within a layer, and its bias in a stack."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bpvariants import cells, gradients

D, N, M, T, B = 2, 3, 2, 6, 2
normal = lambda i, *shape: jax.random.normal(jax.random.key(i), shape, float)
squares = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
layerwise = gradients.layerwise_rtrl


def flat(tree):
    """Return the elements of a pytree as one float64 vector, which may be empty."""
    return ravel_pytree(tree)[0].astype(float)


def lru(params, carry, x):
    """Step `cells.lru`, with a nonlinear output."""
    carry, y = cells.lru(params, carry, x)
    return carry, jnp.tanh(y)


def readout(matrix, carry, x):
    return carry, x @ matrix


def hidden(matrix, carry, x):
    return carry, jnp.tanh(x @ matrix)


def skipping(params, h, x):
    """Step a dense layer whose output depends on its old carry and on its input."""
    new, _ = cells.tanh(params, h, x)
    return new, jnp.concatenate([new * h, x], axis=-1)


def of_lru(seed, inputs, batch=(B,)):
    params = cells.lru.init(jax.random.key(seed), inputs, N, dtype=float)
    carry = cells.lru.carry(params, batch, complex=False)
    return params, jax.tree.map(lambda leaf: leaf + 0.3, carry)


def of_min_gru(seed, inputs, batch=(B,)):
    params = cells.min_gru.init(jax.random.key(seed), inputs, N, dtype=float)
    return params, normal(seed + 50, *batch, N)


@cache
def deep():
    """Return a stack of two recurrent layers, a dense one, and a readout."""
    steps = [lru, skipping, cells.min_gru, readout]
    dense = cells.tanh.init(jax.random.key(1), N, N, dtype=float)
    of_layers = [
        of_lru(0, D),
        (dense, normal(8, B, N)),
        of_min_gru(2, 2 * N),
        (normal(3, N, M), ()),
    ]
    params, carry = zip(*of_layers, strict=True)
    args = params, carry, normal(4, T, B, D), normal(5, T, B, M)
    options = {
        "weights": jax.random.uniform(jax.random.key(6), (T, B), float),
        "mask": gradients.mask_from_lengths(jnp.array([T, T - 2]), T),
        "reset": jnp.zeros((T, B), bool).at[3, 0].set(True),
        "initial": jax.tree.map(lambda leaf: 0.5 * leaf, carry),
    }
    return steps, args, options


def by_paper(steps, params, carry, xs, targets, weights, mask, reset, initial):
    """Return the gradients of the paper's equations, computed one example at a time.

    The influence e of each layer is a matrix [n, p]. The old carries of all other
    layers are constants at each step.
    """
    thetas, trees = zip(*map(ravel_pytree, params), strict=True)

    def own_slopes(layer, theta, h, y):
        """Return ∂h_t/∂h_{t−1} and ∂h_t/∂θ of a layer, for its input y."""
        _, tree = ravel_pytree(h)
        new = lambda vector, theta: flat(
            steps[layer](trees[layer](theta), tree(vector), y)[0]
        )
        return jax.jacobian(new, (0, 1))(flat(h), theta)

    def upwards(layer, theta, vector, h, y, target):
        """Return the loss of a step as a function of one layer's params and carry."""
        changed = [*thetas[:layer], theta, *thetas[layer + 1 :]]
        started = [*h[:layer], ravel_pytree(h[layer])[1](vector), *h[layer + 1 :]]
        for i in range(layer, len(steps)):
            _, y = steps[i](trees[i](changed[i]), started[i], y)
        return squares(y, target)

    @jax.jit
    def advance(h, influence, x, target):
        y, new, after, grads = x, [], [], []
        for layer, theta in enumerate(thetas):
            direct, delta = jax.grad(partial(upwards, layer), (0, 1))(
                theta, flat(h[layer]), h, y, target
            )
            grads.append(direct + delta @ influence[layer])
            of_h, of_theta = own_slopes(layer, theta, h[layer], y)
            after.append(of_h @ influence[layer] + of_theta)
            new_h, y = steps[layer](params[layer], h[layer], y)
            new.append(new_h)
        return tuple(new), after, grads

    at = lambda tree, *place: jax.tree.map(lambda leaf: leaf[place], tree)
    shares = np.where(mask, weights, 0) / np.sum(np.where(mask, weights, 0))
    total = [np.zeros(theta.shape) for theta in thetas]
    for b in range(B):
        h = at(carry, b)
        none = [
            jnp.zeros((flat(part).size, theta.size))
            for part, theta in zip(h, thetas, strict=True)
        ]
        e = none
        for t in range(T):
            if mask[t, b]:
                h, e = (at(initial, b), none) if reset[t, b] else (h, e)
                h, e, grads = advance(h, e, xs[t, b], targets[t, b])
                total = [
                    a + float(shares[t, b]) * g
                    for a, g in zip(total, grads, strict=True)
                ]
    return tuple(tree(grad) for tree, grad in zip(trees, total, strict=True))


def over(rule, steps):
    return jax.jit(gradients.over_sequence(rule(gradients.stack(steps), squares)))


def distance(got, want):
    return jnp.linalg.norm(flat(got) - flat(want)) / jnp.linalg.norm(flat(want))


@pytest.mark.slow
def test_gradients_of_a_stack_are_those_of_the_papers_equations():
    steps, args, options = deep()
    _, grads = over(layerwise, steps)(*args, **options)
    want = by_paper(steps, *args, **options)
    chex.assert_trees_all_close(grads, want, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_the_highest_recurrent_layer_and_the_readout_are_exact_and_others_are_not():
    steps, args, options = deep()
    (value, last), grads = over(layerwise, steps)(*args, **options)
    rule = jax.jit(gradients.bptt(gradients.stack(steps), squares))
    want, exact = rule(*args, **options)
    chex.assert_trees_all_close((value, last), want, rtol=1e-12)
    chex.assert_trees_all_close(grads[2:], exact[2:], rtol=1e-10, atol=1e-13)
    assert distance(grads[0], exact[0]) > 0.01
    assert distance(grads[1], exact[1]) > 0.01


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("batch", [(), (2, 1)], ids=str)
@pytest.mark.parametrize("of_layer", [of_min_gru, of_lru])
def test_one_layer_is_rtrl(of_layer, batch):
    step = lru if of_layer is of_lru else cells.min_gru
    params, carry = of_layer(0, D, batch)
    xs, targets = normal(1, T, *batch, D), normal(2, T, *batch, N)
    mask = jax.random.bernoulli(jax.random.key(3), 0.8, (T, *batch))
    reset = jax.random.bernoulli(jax.random.key(4), 0.3, (T, *batch))
    flags = {"mask": mask, "reset": reset}
    (value, (last,)), (grads,) = over(layerwise, [step])(
        (params,), (carry,), xs, targets, **flags
    )
    for rule in (gradients.rtrl, gradients.diagonal_rtrl):
        want = jax.jit(gradients.over_sequence(rule(step, squares)))(
            params, carry, xs, targets, **flags
        )
        chex.assert_trees_all_close(((value, last), grads), want, rtol=1e-11)


@pytest.mark.slow
def test_bias_is_zero_if_the_layers_above_have_no_carry():
    params, carry = of_lru(0, N)
    steps = [hidden, lru, hidden, readout]
    args = (
        (normal(1, D, N), params, normal(2, N, N), normal(3, N, M)),
        ((), carry, (), ()),
        normal(4, T, B, D),
        normal(5, T, B, M),
    )
    got, grads = over(layerwise, steps)(*args)
    want, exact = jax.jit(gradients.bptt(gradients.stack(steps), squares))(*args)
    chex.assert_trees_all_close(
        (got, grads[1:]), (want, exact[1:]), rtol=1e-10, atol=1e-13
    )
    assert distance(grads[0], exact[0]) > 0.01  # the LRU remembers the lowest layer


def test_memory_is_that_of_the_parameters_of_elementwise_layers():
    (low, h), (high, k) = of_min_gru(0, D), of_min_gru(1, N)
    rule = layerwise(gradients.stack([cells.min_gru, cells.min_gru]), squares)
    x, target = jax.ShapeDtypeStruct((B, D), float), jax.ShapeDtypeStruct((B, N), float)
    state = rule.init((low, high), (h, k), (x, target))
    for rows, params in zip(state.influence, (low, high), strict=True):
        for kept, leaf in zip(rows, jax.tree.leaves(params), strict=True):
            assert kept.shape == (B, 1, *leaf.shape)


def test_lower_layers_miss_what_an_upper_layer_remembers():
    """Compare with RTRL in y_T = w v Σ_t x_t: the lower layer forgets at once."""
    memoryless = lambda w, h, x: (w * x, w * x)
    summing = lambda v, h, x: (h + v * x, h + v * x)
    steps = gradients.stack([memoryless, summing])
    params, carry = (jnp.array(2.0), jnp.array(3.0)), (jnp.zeros(()), jnp.zeros(()))
    xs, targets = jnp.array([1.0, 0.0, 0.0]), jnp.zeros(3)
    last = jnp.array([0.0, 0.0, 1.0])
    loss = lambda y, target: y - target
    found = [
        gradients.over_sequence(rule(steps, loss))(params, carry, xs, targets, last)
        for rule in (gradients.rtrl, layerwise)
    ]
    (_, exact), (_, got) = found
    assert [grad.item() for grad in exact] == [3.0, 2.0]
    assert [grad.item() for grad in got] == [0.0, 2.0]


def test_wrong_calls_are_named():
    params, carry = of_min_gru(0, D)
    with pytest.raises(ValueError, match=r"^step must be the result of gradients.sta"):
        layerwise(cells.min_gru, squares)
    x, target = normal(1, B, D), normal(2, B, N)
    one = layerwise(gradients.stack([cells.min_gru]), squares)
    with pytest.raises(ValueError, match=r"^params must be a tuple with one entry"):
        one.init(params, (carry,), (x, target))
    two = layerwise(gradients.stack([cells.min_gru, readout]), squares)
    state = two.init((params, normal(3, N, N)), (carry, ()), (x, target))
    with pytest.raises(ValueError, match=r"^carry must be a tuple with one entry"):
        one.update((params,), state, x, target)
    state = state._replace(carry=state.carry[:1], initial=state.initial[:1])
    with pytest.raises(ValueError, match=r"^state must be of a stack of 1 layers"):
        one.update((params,), state, x, target)
    state = gradients.rtrl(cells.min_gru, squares).init(params, carry, (x, target))
    with pytest.raises(ValueError, match=r"^state must be what layerwise_rtrl's"):
        one.update((params,), state, x, target)
