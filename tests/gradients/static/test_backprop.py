"""Tests of static backpropagation, against `jax.grad` and against values by hand."""

import sys

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import pytest

from bpvariants import cells, gradients


def dense(params, y):
    return y @ params["w"] + params["b"]


def convolve(kernel, y):
    """Apply one kernel at all positions, [..., n] -> [..., n].

    This is an example of a layer that is not dense.
    """
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
@pytest.mark.fast_rows(1)
def test_equals_grad_and_its_deltas_those_of_perturbations(batch):
    # Biases are broadcast, so allow rank promotion.
    with jax.numpy_rank_promotion("allow"):
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
    """Compare the factors of ∂E/∂w = ∂E/∂y · ∂y/∂s · ∂s/∂w with values by hand.

    Here E is the loss, w a weight, s the pre-activation of a unit, and y its output.
    """
    params, x, target = problem(())
    with jax.numpy_rank_promotion("allow"):
        (_, info), grads = gradients.backprop(LAYERS, loss)(params, x, target)
    last, first = info[2], info[0]
    chex.assert_trees_all_close(last.error, 2 * (last.y - target), rtol=1e-12)
    # The last unit is linear, so its slope is 1.
    chex.assert_trees_all_close(last.delta, last.error, rtol=1e-12)
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


def conv(kernel, y):
    return jax.lax.conv_general_dilated(
        y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def residual(params, y):
    return y + conv(params[1], jnp.tanh(conv(params[0], y)))


def branches(params, y):
    return {"pooled": jnp.mean(y, (1, 2)), "read": conv(params, y)[:, 0, 0]}


def join(params, y):
    return y["pooled"] @ params["a"] + y["read"] @ params["b"]


BLOCKS = [
    (conv, jax.nn.relu),
    (residual, jnp.tanh),
    (branches, lambda s: jax.tree.map(jnp.sin, s)),
    (join, lambda s: s),
]


def images():
    keys = iter(jax.random.split(jax.random.key(3), 8))
    normal = lambda *shape: jax.random.normal(next(keys), shape) / 2
    params = (
        normal(3, 3, 1, 2),
        (normal(3, 3, 2, 2), normal(3, 3, 2, 2)),
        normal(3, 3, 2, 3),
        {"a": normal(2, 2), "b": normal(3, 2)},
    )
    return params, normal(3, 4, 4, 1), normal(3, 2)


@pytest.mark.slow
def test_convolutions_residual_blocks_and_branches():
    params, x, target = images()
    (value, info), grads = jax.jit(gradients.backprop(BLOCKS, loss))(params, x, target)
    shifts = tuple(jax.tree.map(jnp.zeros_like, layer.s) for layer in info)

    @jax.jit
    def mean(params, shifts):
        y = x
        for (function, phi), theta, shift in zip(BLOCKS, params, shifts, strict=True):
            y = phi(jax.tree.map(jnp.add, function(theta, y), shift))
        return jnp.mean(loss(y, target))

    want, (want_grads, deltas) = jax.value_and_grad(mean, (0, 1))(params, shifts)
    chex.assert_trees_all_close(value, want, rtol=1e-12)
    chex.assert_trees_all_close(grads, want_grads, rtol=1e-12, atol=1e-15)
    got = tuple(layer.delta for layer in info)
    chex.assert_trees_all_close(got, deltas, rtol=1e-12, atol=1e-15)
    chex.assert_trees_all_equal(tuple(layer.grad for layer in info), grads)

    # Compare the gradient with finite differences along random directions. Each
    # direction changes params and shifts together.
    leaves, structure = jax.tree.flatten((params, shifts))
    for key in jax.random.split(jax.random.key(5), 3):
        keys = jax.random.split(key, len(leaves))
        way = [jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
        at = lambda step, way=way: mean(
            *structure.unflatten(
                [a + step * b for a, b in zip(leaves, way, strict=True)]
            )
        )
        slope = (at(1e-6) - at(-1e-6)) / 2e-6
        pairs = zip(jax.tree.leaves((grads, got)), way, strict=True)
        exact = sum(jnp.vdot(a, b) for a, b in pairs)
        chex.assert_trees_all_close(slope, exact, rtol=1e-7)


def test_a_network_of_single_units_is_micrograds():
    """Reproduce values in micrograd's README: g, ∂g/∂a and ∂g/∂b."""

    def inputs(params, _):
        a, b = params
        return {"a": a, "b": b, "c": a + b, "d": a * b + b**3}

    def grow(_, y):
        c = y["c"] + y["c"] + 1
        c = c + 1 + c - y["a"]
        d = 3 * y["d"] + jax.nn.relu(y["b"] + y["a"])
        d = 4 * d + jax.nn.relu(y["b"] - y["a"])
        return c - d

    layers = [(inputs, lambda s: s), (grow, jnp.square)]
    rule = gradients.backprop(layers, lambda f, _: f / 2 + 10 / f)
    params = (-4.0, 2.0), jnp.zeros(())
    (value, info), grads = rule(params, jnp.zeros(()), jnp.zeros(()))
    assert f"{value:.4f}" == "24.7041"
    assert [f"{grad:.4f}" for grad in grads[0]] == ["138.8338", "645.5773"]
    # The factors of g = f/2 + 10/f with f = e² and e = c − d are computed by hand.
    f = info[1].y
    chex.assert_trees_all_close(info[1].error, 0.5 - 10 / f**2, rtol=1e-12)
    chex.assert_trees_all_close(info[1].delta, info[1].error * 2 * info[1].s)
    chex.assert_trees_all_close(info[0].error["d"], -12 * info[1].delta, rtol=1e-12)


def test_the_slope_of_tanh_is_the_published_one():
    rule = gradients.backprop([(lambda w, y: w * y, jnp.tanh)], lambda y, _: y)
    (_, info), _ = rule((jnp.array(1.0),), jnp.array(1.0), jnp.zeros(()))
    assert abs(float(info[0].delta) - 0.41997434161402603) < 2e-16


def test_info_is_a_tuple_and_a_table():
    params = (jnp.array([[1.0, -1.0], [0.0, -1.0]]), jnp.array([[2.0], [1.0]]))
    layers = [(lambda w, y: y @ w, jax.nn.relu), (lambda w, y: y @ w, lambda s: s)]
    rule = jax.jit(gradients.backprop(layers, loss))
    x = jnp.array([[3.0, 4.0], [0.0, 1.0]])
    (_, info), _ = rule(params, x, jnp.zeros((2, 1)))
    first, last = info
    assert isinstance(info, tuple)
    assert len(info) == 2
    assert info[-1] is last
    # The pre-activations are s = [[3, −7], [0, −1]]: the second unit is dead, and the
    # first unit is active only once.
    chex.assert_trees_all_equal(first.y, jnp.array([[3.0, 0.0], [0.0, 0.0]]))
    assert info.table() == (
        "layer  shapes   ‖y‖   ‖s‖   ‖δ‖ ‖∂E/∂w‖  dead\n"
        "1     2×2→2×2 3.000 7.681 12.00   60.00 50.0%\n"
        "2     2×2→2×1 6.000 6.000 6.000   18.00  0.0%"
    )
    twice = jax.tree.map(lambda leaf: 2 * leaf, info)
    assert type(twice) is gradients.static.BackpropInfo
    assert twice.batch_ndim == 1
    chex.assert_trees_all_equal(twice[0].delta, 2 * first.delta)


def test_the_picture_has_all_the_factors():
    from matplotlib.figure import Figure

    with jax.numpy_rank_promotion("allow"):
        (_, info), _ = gradients.backprop(LAYERS, loss)(*problem((3,)))
    given = Figure().subplots()
    axes = info.plot(given)
    assert axes is given
    texts = [text.get_text().split() for text in axes.texts if text.get_text()]
    number = lambda name: [float(text[-1]) for text in texts if text[0] == name]
    error, slope, gain = map(number, ("∂E/∂y", "∂y/∂s", "∂s/∂w"))
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(tree)))
    for i, layer in enumerate(info):
        want = norm(layer.error), norm(layer.delta), norm(layer.grad)
        got = error[i], error[i] * slope[i], error[i] * slope[i] * gain[i]
        # The table prints four digits of each value.
        chex.assert_trees_all_close(got, want, rtol=2e-3)
    arrows = [text for text in axes.texts if not text.get_text()]
    ends = [(round(arrow.xyann[0]), round(arrow.xy[0])) for arrow in arrows]
    assert [pair for pair in ends if pair[0] != pair[1]] == [(1, 0), (2, 1)]


def test_a_picture_without_matplotlib_says_what_is_missing(monkeypatch):
    layers = [(lambda w, y: w * y, jnp.tanh)]
    rule = gradients.backprop(layers, lambda y, target: y - target)
    (_, info), _ = rule((2.0,), jnp.ones(()), jnp.ones(()))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="needs Matplotlib: pip install"):
        info.plot()


def test_mistakes_are_named():
    params, x, target = problem((3,))
    rule = gradients.backprop(LAYERS, loss)
    with pytest.raises(ValueError, match="layers must have at least one"):
        gradients.backprop([], loss)
    with pytest.raises(ValueError, match="one entry for each layer; got 2 for 3"):
        rule(params[:2], x, target)
    with pytest.raises(
        ValueError, match=r"params must be a tuple or a list, .* got di"
    ):
        rule(dict(enumerate(params)), x, target)
    with pytest.raises(ValueError, match=r"params\[1\] must be a floating array"):
        rule((params[0], jnp.ones(2, int), params[2]), x, target)
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match="loss must give one number for each"):
            gradients.backprop(LAYERS, lambda y, t: y)(params, x, jnp.zeros(3))
        with pytest.raises(ValueError, match="weights must have one entry for each"):
            rule(params, x, target, jnp.ones(2))
    third = (params[0], params[1], {"w": jnp.ones((3, 2)), "b": params[2]["b"]})
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match=r"layers\[2\] must take params\[2\].*ou"):
            rule(third, x, target)
        with pytest.raises(ValueError, match=r"layers\[0\] must take.*, and x, of sh"):
            rule(params, x[:, :2], target)
        split = [(dense, lambda s: s[..., :1] @ jnp.eye(4)), *LAYERS[1:]]
        with pytest.raises(ValueError, match=r"activation of layers\[0\] must take"):
            gradients.backprop(split, loss)(params, x, target)
        counts = [(dense, lambda s: (s > 0).astype(int)), *LAYERS[1:]]
        with pytest.raises(ValueError, match=r"layers\[0\]: the activation output mus"):
            gradients.backprop(counts, loss)(params, x, target)


def test_what_is_no_list_of_layers_is_named():
    """Check errors for a cell, a function, or single functions given as layers."""
    rules = [
        lambda layers: gradients.backprop(layers, loss),
        lambda layers: gradients.feedback_alignment(layers, loss, kind="usf"),
        lambda layers: gradients.alignment_weights(
            jax.random.key(0), layers, *problem((3,))[:2]
        ),
    ]
    for rule in rules:
        for layers in (cells.gru, dense, dict(LAYERS)):
            with pytest.raises(
                ValueError, match=r"layers must be a sequence of .*bptt"
            ):
                rule(layers)
        for layers in ([dense], LAYERS[0], [(dense, None)], [(*LAYERS[0], dense)]):
            with pytest.raises(ValueError, match=r"layers\[0\] must be a pair of func"):
                rule(layers)
