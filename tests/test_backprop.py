"""Static backpropagation against `jax.grad`, and each of its factors by itself."""

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import pytest

from bpvariants import gradients


def dense(params, y):
    return y @ params["w"] + params["b"]


def convolve(kernel, y):
    """A layer that is not dense: [..., n] -> [..., n], the same kernel everywhere."""
    return kernel[0] * y + kernel[1] * jnp.roll(y, 1, axis=-1)


LAYERS = [(dense, jnp.tanh), (convolve, jax.nn.softmax), (dense, lambda s: s)]


def loss(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)


def problem(batch):
    keys = iter(jax.random.split(jax.random.key(2), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape)
    params = (
        {"w": normal(3, 4), "b": normal(4)},
        normal(2),
        {"w": normal(4, 2), "b": normal(2)},
    )
    broadcast = lambda p, shape: jnp.broadcast_to(p, shape)
    params = jax.tree.map(lambda p: broadcast(p, p.shape), params)
    return params, normal(*batch, 3), normal(*batch, 2)


def forward(params, x, shifts=(0.0, 0.0, 0.0)):
    for (function, activation), theta, shift in zip(
        LAYERS, params, shifts, strict=True
    ):
        x = activation(function(theta, x) + shift)
    return x


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
def test_equals_grad_and_its_deltas_those_of_perturbations(batch):
    with jax.numpy_rank_promotion("allow"):  # of biases
        params, x, target = problem(batch)
        rule = jax.jit(gradients.backprop(LAYERS, loss))
        (value, info), grads = rule(params, x, target)
        shifts = tuple(jnp.zeros_like(layer.s) for layer in info)
        mean = lambda params, shifts: jnp.mean(loss(forward(params, x, shifts), target))
        want, (want_grads, deltas) = jax.value_and_grad(mean, (0, 1))(params, shifts)
        chex.assert_trees_all_close(value, want, rtol=1e-12)
        chex.assert_trees_all_close(grads, want_grads, rtol=1e-12, atol=1e-15)
        got = tuple(layer.delta for layer in info)
        chex.assert_trees_all_close(got, deltas, rtol=1e-12, atol=1e-15)
        check = lambda params: mean(params, shifts)
        jax.test_util.check_grads(check, (params,), order=1, modes=("rev",))
    assert info[0].x is not None
    chex.assert_trees_all_equal(info[0].x, x)
    chex.assert_trees_all_equal(info[1].x, info[0].y)


def test_the_three_factors_of_a_unit():
    """∂E/∂w = ∂E/∂y · ∂y/∂s · ∂s/∂w, each factor worked by hand."""
    params, x, target = problem(())
    with jax.numpy_rank_promotion("allow"):
        (_, info), grads = gradients.backprop(LAYERS, loss)(params, x, target)
    last, first = info[2], info[0]
    chex.assert_trees_all_close(last.error, 2 * (last.y - target), rtol=1e-12)
    chex.assert_trees_all_close(last.delta, last.error, rtol=1e-12)  # linear unit
    slope = 1 - jnp.tanh(first.s) ** 2
    chex.assert_trees_all_close(first.delta, first.error * slope, rtol=1e-12)
    want = jnp.outer(first.x, first.delta)
    chex.assert_trees_all_close(grads[0]["w"], want, rtol=1e-12)
    chex.assert_trees_all_close(grads[0]["b"], first.delta, rtol=1e-12)


def test_weights_and_an_empty_batch():
    with jax.numpy_rank_promotion("allow"):
        params, x, target = problem((3,))
        rule = gradients.backprop(LAYERS, loss)
        weights = jnp.array([2.0, 0.0, 1.0])
        (value, _), grads = rule(params, x, target, weights)
        mean = lambda p: jnp.sum(weights * loss(forward(p, x), target)) / 3
        want = jax.value_and_grad(mean)(params)
        chex.assert_trees_all_close((value, grads), want, rtol=1e-12)
        for options in [(x[:0], target[:0]), (x, target, 0 * weights)]:
            (value, _), grads = rule(params, *options)
            zeros = jax.tree.map(jnp.zeros_like, params)
            chex.assert_trees_all_equal((value, grads), (jnp.zeros(()), zeros))


def test_mistakes_are_named():
    params, x, target = problem((3,))
    rule = gradients.backprop(LAYERS, loss)
    with pytest.raises(ValueError, match="layers must have at least one"):
        gradients.backprop([], loss)
    with pytest.raises(ValueError, match="one entry for each layer; got 2 for 3"):
        rule(params[:2], x, target)
    with pytest.raises(ValueError, match=r"params\[1\] must be a floating array"):
        rule((params[0], jnp.ones(2, int), params[2]), x, target)
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match="loss must give one number for each"):
            gradients.backprop(LAYERS, lambda y, t: y)(params, x, jnp.zeros(3))
        with pytest.raises(ValueError, match="weights must have one entry for each"):
            rule(params, x, target, jnp.ones(2))
