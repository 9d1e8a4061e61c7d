"""Tests of dense cells: results of Flax and PyTorch, and stored memory."""

from functools import cache, partial

import chex
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from bpvariants import cells, gradients
from bpvariants.cells import _lstm_cudnn

D, N, B, T = 2, 3, 4, 5
NAMES = ["tanh", "gru", "lstm"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def parts(name):
    cell = getattr(cells, name)
    return iter((cell, cell.init, cell.carry))


@cache
def problem(name, batch=(B,)):
    """Return parameters with nonzero biases, a carry, inputs and a carry for resets."""
    _, draw, start = parts(name)
    params = draw(jax.random.key(0), D, N)
    noise = lambda tree, seed: jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(seed), leaf.shape), tree
    )
    carry, initial = (noise(start(params, batch), seed) for seed in (1, 2))
    xs = jax.random.normal(jax.random.key(3), (T, *batch, D))
    return noise(params, 4), carry, xs, initial


def gradient(run):
    """Return a function that computes derivatives in params, carry, xs and initial.

    The differentiated loss depends on all outputs and on the last carry.
    """

    def loss(params, carry, xs, initial):
        last, ys = run(params, carry, xs, initial)
        return sum(jnp.sum(jnp.sin(a) ** 2) for a in jax.tree.leaves((last, ys)))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))


def as_flax(name, p):
    """Convert the parameters of our cell to parameters of the same cell in Flax."""
    if name == "tanh":
        return {
            "i": {"kernel": p["inputs"], "bias": p["bias"]},
            "h": {"kernel": p["recurrent"]},
        }
    split = lambda a, k: jnp.split(a, k, axis=-1)
    if name == "gru":
        w, u, b = (split(p[key], 3) for key in ("inputs", "recurrent", "bias"))
        tree = {f"i{g}": {"kernel": w[k], "bias": b[k]} for k, g in enumerate("rzn")}
        tree |= {f"h{g}": {"kernel": u[k]} for k, g in enumerate("rzn")}
        tree["hn"]["bias"] = p["candidate_bias"]
        return tree
    w, u, b = (split(p[key], 4) for key in ("inputs", "recurrent", "bias"))
    tree = {f"i{g}": {"kernel": w[k]} for k, g in enumerate("ifgo")}
    return tree | {
        f"h{g}": {"kernel": u[k], "bias": b[k]} for k, g in enumerate("ifgo")
    }


FLAX = {"tanh": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def flax_step(name, params, carry, x):
    cell = FLAX[name](params["recurrent"].shape[0], param_dtype=x.dtype)
    return cell.apply({"params": as_flax(name, params)}, carry, x)


def test_equals_flax(name):
    step = next(parts(name))
    params, carry, xs, initial = problem(name)
    by = lambda step: gradient(
        lambda params, carry, xs, _: gradients.unroll(step, params, carry, xs)
    )
    want = by(partial(flax_step, name))(params, carry, xs, initial)
    got = by(step)(params, carry, xs, initial)
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-12)


def test_equals_torch(name):
    torch = pytest.importorskip("torch")
    params, carry, xs, _ = problem(name)
    kinds = {"tanh": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    module = kinds[name](D, N).double()
    tensor = lambda a: torch.tensor(np.array(a))
    hidden_bias = np.zeros_like(params["bias"])
    if name == "gru":
        hidden_bias[-N:] = params["candidate_bias"]
    with torch.no_grad():
        module.weight_ih_l0.copy_(tensor(params["inputs"].T))
        module.weight_hh_l0.copy_(tensor(params["recurrent"].T))
        module.bias_ih_l0.copy_(tensor(params["bias"]))
        module.bias_hh_l0.copy_(tensor(hidden_bias))
    start = [tensor(a)[None] for a in jax.tree.leaves(carry)]
    start = (start[1], start[0]) if name == "lstm" else start[0]
    ys, last = module(tensor(xs), start)
    last = list(last)[::-1] if name == "lstm" else [last[0]]
    loss = (ys.sin() ** 2).sum() + sum((a.sin() ** 2).sum() for a in last)
    loss.backward()

    step, *_ = parts(name)
    run = lambda params, carry, xs, _: gradients.unroll(step, params, carry, xs)
    value, (got, *_) = gradient(run)(params, carry, xs, carry)
    want = {
        "inputs": module.weight_ih_l0.grad.T,
        "recurrent": module.weight_hh_l0.grad.T,
        "bias": module.bias_ih_l0.grad,
    }
    if name == "gru":
        want["candidate_bias"] = module.bias_hh_l0.grad[-N:]
    want = {key: grad.numpy() for key, grad in want.items()}
    chex.assert_trees_all_close(value, loss.item(), rtol=1e-12)
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backward", ["scan", "two_phase"])
@pytest.mark.fast_rows(2)
def test_padding_and_resets_in_any_batch(name, backward):
    """Compare gradients of our cell and of Flax's cell, with padding and resets."""
    params, carry, xs, initial = problem(name, (2, 3))
    bits = jax.random.bernoulli(jax.random.key(9), 0.6, (2, T, 2, 3))
    flags = {"mask": bits[0], "reset": bits[1]}
    xs = jnp.where(bits[0][..., None], xs, jnp.nan)
    by = lambda step, **options: gradient(
        lambda params, carry, xs, initial: gradients.unroll(
            step, params, carry, xs, **flags, **options, initial=initial
        )
    )
    want = by(partial(flax_step, name))(params, carry, xs, initial)
    got = by(next(parts(name)), backward=backward)(params, carry, xs, initial)
    chex.assert_tree_all_finite(want)
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_other_transformations_work_on_steps(name):
    step = next(parts(name))
    params, carry, xs, _ = problem(name)
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    targets = jnp.zeros((T, B, N))
    results = [
        jax.jit(rule)(params, carry, xs, targets)
        for rule in (
            gradients.bptt(step, loss),
            gradients.bptt(step, loss, backward="two_phase"),
            gradients.over_sequence(gradients.rtrl(step, loss)),
        )
    ]
    for other in results[1:]:
        chex.assert_trees_all_close(other, results[0], rtol=1e-10, atol=1e-12)
    of_params = lambda p: step(p, carry, xs[0])
    jax.test_util.check_jvp(
        of_params, partial(jax.jvp, of_params), (params,), rtol=1e-6
    )


@cache
def bytes_kept(name, kind, units=64, length=100, batch=8):
    """Return a gradient's temporary memory, divided by the memory of all T carries."""
    step, draw, start = parts(name)
    cast = partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float32))
    params = cast(draw(jax.random.key(0), units, units))
    carry = cast(start(params, (batch,)))
    xs = jnp.zeros((length, batch, units), jnp.float32)
    steps = {"flax": partial(flax_step, name), "lean": step}

    def loss(params):
        return jnp.sum(gradients.unroll(steps[kind], params, carry, xs)[1] ** 2)

    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    state = 4 * length * batch * units
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return (compiled.memory_analysis().temp_size_in_bytes - 4 * weights) / state


@pytest.mark.parametrize(("name", "most"), [("tanh", 3.5), ("gru", 7), ("lstm", 8)])
@pytest.mark.slow
def test_keeps_less_than_flax(name, most):
    """Check how many values per unit and time step are stored for the backward pass.

    These values include the output of each time step, which is needed for the loss.
    """
    assert bytes_kept(name, "lean") < most
    assert bytes_kept(name, "lean") < bytes_kept(name, "flax") - 0.5


@pytest.mark.slow
def test_narrow_parameters_have_wide_sums(name):
    """Check the bias's gradient, a sum of 1000 equal terms.

    If the sum were computed in bfloat16, it would stop growing at 256.
    """
    step, draw, start = parts(name)
    params = draw(jax.random.key(0), D, N, dtype=jnp.bfloat16)
    carry, xs = start(params), jnp.ones((1000, D), jnp.bfloat16)
    loss = lambda y, target: jnp.sum(y).astype(jnp.float32)

    def grads(params, carry, xs):
        rule = gradients.bptt(step, loss)
        return jax.jit(rule)(params, carry, xs, jnp.zeros(1000))[1]

    got = grads(params, carry, xs)
    chex.assert_type(jax.tree.leaves(got), jnp.bfloat16)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, carry, xs))
    near = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), got)
    chex.assert_trees_all_close(near, grads(*wide), rtol=0.1, atol=0.02)


def reference_of_cudnn(x, h, c, weights, lengths, inputs, units, *settings):
    """Run JAX's reference implementation of the LSTM in place of cuDNN's."""
    *settings, _ = settings
    layers, _, bidirectional = settings
    parts = rnn.unpack_lstm_weights(weights, inputs, units, layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *parts, lengths, inputs, units, *settings)


def test_cudnn_is_given_the_same_lstm(plain_jax):
    params, carry, xs, _ = problem("lstm")
    args = jax.tree.map(lambda a: a.astype(jnp.float32), (params, carry, xs))
    lengths = jnp.array([T, 3, 1, 0], jnp.int32)
    mask = gradients.mask_from_lengths(lengths, T)
    spoilt = jnp.where(mask[..., None], args[2], jnp.nan)

    def ours(params, carry, xs, _):
        last, ys = gradients.unroll(cells.lstm, params, carry, xs, mask=mask)
        return last, jnp.where(mask[..., None], ys, 0)

    def theirs(params, carry, xs, _):
        return _lstm_cudnn.run(reference_of_cudnn, None, params, carry, xs, lengths)

    def plainly(params, carry, xs, _):
        return cells.lstm_cudnn(params, carry, xs, lengths=lengths)

    want = gradient(ours)(*args[:2], spoilt, args[1])
    # JAX's reference implementation of the LSTM fails with the strict test settings.
    with plain_jax():
        got = gradient(theirs)(*args[:2], spoilt, args[1])
        scanned = gradient(plainly)(*args[:2], spoilt, args[1])
    chex.assert_tree_all_finite(got)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
    if jax.default_backend() != "gpu":
        chex.assert_trees_all_close(scanned, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "cpu"])
def test_the_platform_of_cudnn_is_chosen_when_a_program_is_exported(
    platform, plain_jax, monkeypatch
):
    """Check for which platforms an exported function calls cuDNN's LSTM.

    A function that multiplies by a marker number replaces cuDNN's LSTM. The exported
    program contains this number if it calls cuDNN.
    """
    params, carry, xs, _ = problem("lstm")
    args = jax.tree.map(lambda a: a.astype(jnp.float32), (params, carry, xs))

    def marked(*arguments):
        ys, h, c = reference_of_cudnn(*arguments)
        return ys * 1234.5, h, c

    def total(*args):
        last, ys = cells.lstm_cudnn(*args)
        return jnp.sum(ys) + sum(jnp.sum(leaf) for leaf in last)

    export = lambda: jax.export.export(
        jax.jit(jax.value_and_grad(total)), platforms=[platform]
    )(*args)
    with plain_jax():
        # The function can be exported for CUDA even if JAX is installed without cuDNN.
        assert export().platforms == (platform,)
        monkeypatch.setattr(_lstm_cudnn.rnn, "lstm", marked)
        assert ("1.234500e+03" in export().mlir_module()) == (platform == "cuda")
        # The tests run on a CPU, so only the function exported for CPUs can be run.
        if platform == "cpu":
            want = gradients.unroll(cells.lstm, *args)
            got = jax.jit(cells.lstm_cudnn)(*args)
            chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
