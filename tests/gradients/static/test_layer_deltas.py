"""Tests of `layer_deltas`, the derivatives of a loss in named values."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from bpvariants import gradients

close = lambda got, want: chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-15)


def network(params, x, shifts=None, tag=checkpoint_name):
    """Run a network with names inside `jit` and `checkpoint`; one name occurs twice."""
    named = []

    def mark(z, name):
        place = len(named)
        named.append(name)
        return tag(z, name) if shifts is None else z + shifts[place]

    @jax.checkpoint
    def hidden(params, x):
        return mark(jax.nn.relu(mark(x @ params[0], "s")), "y")

    y = hidden(params, x)
    z = jax.jit(lambda y: mark(jnp.sin(y @ params[1]), "s"))(y)
    return jnp.sum(jnp.mean(z, 0) ** 2) + jnp.mean(y**3)


def problem():
    keys = jax.random.split(jax.random.key(0), 3)
    normal = jax.random.normal
    return (normal(keys[0], (3, 4)), normal(keys[1], (4, 2))), normal(keys[2], (5, 3))


def test_a_plain_functions_deltas_are_those_of_perturbations():
    params, x = problem()
    found = gradients.layer_deltas(network, params, x)
    assert list(found) == ["s[0]", "y", "s[1]"]
    close(
        jax.jit(lambda *args: gradients.layer_deltas(network, *args))(params, x), found
    )
    shifts = [jnp.zeros_like(value) for value, _ in found.values()]
    want = jax.grad(lambda shifts: network(params, x, shifts))(shifts)
    close([each.delta for each in found.values()], want)
    close(found["y"].value, jax.nn.relu(x @ params[0]))
    # By the chain rule, the gradient of a weight matrix is xᵀ δ, with the input x of
    # the layer.
    grads = jax.grad(network)(params, x)
    close(x.T @ found["s[0]"].delta, grads[0])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scans_deltas_have_an_axis_of_time(reverse):
    (w, _), xs = problem()
    w = w[:, :3]

    def loss(w, xs):
        def step(h, x):
            h = checkpoint_name(jnp.tanh(h @ w + x), "h")
            return h, jnp.sum(h**2)

        h, losses = jax.lax.scan(step, jnp.zeros(3), xs, reverse=reverse)
        return jnp.sum(losses) + jnp.prod(checkpoint_name(h, "last"))

    def shifted(shifts):
        h, total = jnp.zeros(3), 0.0
        for t in range(5)[:: -1 if reverse else 1]:
            h = jnp.tanh(h @ w + xs[t]) + shifts[t]
            total += jnp.sum(h**2)
        return total + jnp.prod(h)

    found = gradients.layer_deltas(loss, w, xs)
    assert list(found) == ["h", "last"]
    close(found["h"].delta, jax.grad(shifted)(jnp.zeros((5, 3))))
    close(found["last"].value, found["h"].value[0 if reverse else -1])


def test_a_scan_is_read_without_the_parameters_that_only_some_versions_have(
    monkeypatch,
):
    """Read a scan whose jaxpr lacks ft_in and ft_out, which only JAX 0.11 has.

    ft_in and ft_out hold the sizes of the constants and of the carry of a scan.
    """
    (w, _), xs = problem()
    w, ys = w[:, :3], jnp.arange(5.0)

    def loss(w, xs):
        def step(carry, inputs):
            (h, count), (x, y) = carry, inputs
            h = checkpoint_name(jnp.tanh(h @ w + x) * y, "h")
            return (h, count + 1), (jnp.sum(h**2), count)

        inputs = xs, ys[:, None]
        (h, _), (losses, counts) = jax.lax.scan(step, (jnp.zeros(3), 0), inputs)
        return jnp.sum(losses * counts) + jnp.sum(h)

    want = gradients.layer_deltas(loss, w, xs)
    make_jaxpr = jax.make_jaxpr

    def without(function):
        def make(*arguments):
            closed = make_jaxpr(function)(*arguments)
            for equation in closed.jaxpr.eqns:
                equation.params.pop("num_consts", None)
                equation.params.pop("num_carry", None)
            return closed

        return make

    monkeypatch.setattr(jax, "make_jaxpr", without)
    found = gradients.layer_deltas(loss, w, xs)
    chex.assert_trees_all_equal(found["h"].delta, want["h"].delta)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.tanh(nn.Dense(3, param_dtype=float)(x))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        block = Block(name="block")
        return nn.Dense(2, param_dtype=float, name="out")(block(block(x)))


@pytest.mark.slow
def test_linen_modules_are_named_by_their_paths():
    net, (_, x) = Net(), problem()
    params = net.init(jax.random.key(1), x)
    apply = jax.jit(net.apply)
    loss = lambda params, x: jnp.sum(apply(params, x) ** 3)
    want = loss(params, x)  # JAX now caches the function without names
    found = gradients.layer_deltas(loss, params, x)
    names = [f"block{inner}[{i}]" for i in (0, 1) for inner in ("/Dense_0", "")]
    assert list(found) == [*names, "out", "Net"]
    assert loss(params, x) == want
    p = params["params"]
    dense = lambda p, x: x @ p["kernel"] + jnp.expand_dims(p["bias"], 0)

    def shifted(shifts):
        y = x
        for i in (0, 1):
            s = dense(p["block"]["Dense_0"], y) + shifts[2 * i]
            y = y + jnp.tanh(s) + shifts[2 * i + 1]
        return jnp.sum((dense(p["out"], y) + shifts[4] + shifts[5]) ** 3)

    shifts = [jnp.zeros_like(value) for value, _ in found.values()]
    close([each.delta for each in found.values()], jax.grad(shifted)(shifts))
    close(found["Net"].value, net.apply(params, x))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        linear = lambda n, m: nnx.Linear(n, m, param_dtype=float, rngs=rngs)
        self.hidden, self.out = linear(3, 4), linear(4, 2)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(self.hidden(x))))


def test_nnx_modules_are_named_by_their_paths_and_stay_as_they_are(monkeypatch):
    # Flax before 0.12.1 has no iter_modules.
    monkeypatch.delattr(nnx, "iter_modules", raising=False)
    with jax.numpy_dtype_promotion("standard"):  # Initialisers of Flax promote dtypes.
        net = NNXNet(nnx.Rngs(0))
    _, x = problem()
    draws = lambda: jax.tree.map(int, jax.tree.leaves(nnx.state(net, nnx.RngCount)))
    kind, before = type(net.hidden), draws()
    loss = lambda net, x: jnp.sum(net(x) ** 2)
    found = gradients.layer_deltas(loss, net, x)
    assert sorted(found) == ["NNXNet", "dropout", "hidden", "out"]
    assert type(net.hidden) is kind
    assert before
    assert draws() == before
    hidden, out = (found[name] for name in ("hidden", "out"))
    close(hidden.value, net.hidden(x))
    # Dropout multiplies each element by 0 or 2.
    kept = found["dropout"].value / jnp.tanh(hidden.value)
    close(out.delta, 2 * out.value)
    back = out.delta @ net.out.kernel[...].T
    close(found["dropout"].delta, back)
    close(hidden.delta, back * kept * (1 - jnp.tanh(hidden.value) ** 2))
    params = nnx.grad(loss)(nnx.clone(net), x)
    (kernel,) = jax.tree.leaves(params["hidden"]["kernel"])  # in every version of flax
    close(x.T @ hidden.delta, kernel)


def test_what_has_no_delta_and_mistakes():
    named = lambda x: jnp.sum(checkpoint_name(x, "x"))
    count = lambda x: named(x) + checkpoint_name(jnp.argmax(x), "at").astype(float)
    assert list(gradients.layer_deltas(count, jnp.ones(3))) == ["x"]
    narrow = gradients.layer_deltas(named, jnp.ones(3, jnp.bfloat16))
    assert narrow["x"].delta.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"one floating number.*float64\[3\]"):
        gradients.layer_deltas(lambda x: checkpoint_name(x, "x"), jnp.ones(3))
    with pytest.raises(ValueError, match=r"one floating number.*int64\[\]"):
        gradients.layer_deltas(named, jnp.ones(3, int))
    with pytest.raises(ValueError, match="no named intermediates: tag them"):
        gradients.layer_deltas(jnp.sum, jnp.ones(3))
