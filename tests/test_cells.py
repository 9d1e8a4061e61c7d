"""Cells: equal to Flax's and PyTorch's, lean, and the same along time as by a scan."""

from functools import cache, partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpvariants import cells, gradients
from bpvariants.gradients import _two_phase

D, N, B, T = 2, 3, 4, 5
NAMES = ["tanh", "gru", "lstm"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def parts(name):
    return (
        getattr(cells, name + end) for end in ("", "_params", "_carry", "_sequence")
    )


@cache
def problem(name, batch=(B,)):
    """Return params, with biases, a carry, inputs, and what a reset puts back."""
    _, draw, start, _ = parts(name)
    params = draw(jax.random.key(0), D, N)
    noise = lambda tree, seed: jax.tree.map(
        lambda leaf: leaf + jax.random.normal(jax.random.key(seed), leaf.shape), tree
    )
    carry, initial = (noise(start(params, batch), seed) for seed in (1, 2))
    xs = jax.random.normal(jax.random.key(3), (T, *batch, D))
    return noise(params, 4), carry, xs, initial


def gradient(run):
    """Return the derivatives of a loss of all states and of the last carry."""

    def loss(params, carry, xs, initial):
        last, ys = run(params, carry, xs, initial)
        return sum(jnp.sum(jnp.sin(a) ** 2) for a in jax.tree.leaves((last, ys)))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))


def as_flax(name, p):
    """Return the parameters of Flax's cell with the same weights."""
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

    *_, sequence = parts(name)
    run = lambda params, carry, xs, _: sequence(params, carry, xs)
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


@pytest.mark.parametrize("flagged", [False, True], ids=["plain", "mask and reset"])
@pytest.mark.parametrize("batch", [(), (B,), (2, 3), (0,)], ids=str)
def test_sequence_is_the_scan_of_its_step(name, batch, flagged, monkeypatch):
    module = cells.tanh_sequence.__globals__["run_cell"].__globals__
    blocks_of_two = lambda length, *_: min(2, length)
    monkeypatch.setitem(module, "block_length", blocks_of_two)
    step, _, _, sequence = parts(name)
    params, carry, xs, initial = problem(name, batch)
    flags = {}
    if flagged:
        bits = jax.random.bernoulli(jax.random.key(9), 0.6, (2, T, *batch))
        flags = {"mask": bits[0], "reset": bits[1]}
        xs = jnp.where(bits[0][..., None], xs, jnp.nan)

    want = gradient(
        lambda params, carry, xs, initial: gradients.unroll(
            step, params, carry, xs, **flags, initial=initial
        )
    )
    got = gradient(
        lambda params, carry, xs, initial: sequence(
            params, carry, xs, **flags, initial=initial
        )
    )
    args = params, carry, xs, initial
    a, b = got(*args), want(*args)
    chex.assert_tree_all_finite(b)
    chex.assert_trees_all_close(a, b, rtol=1e-12, atol=1e-12)


def test_other_transformations_work_on_steps(name):
    step = next(parts(name))
    params, carry, xs, _ = problem(name)
    loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
    targets = jnp.zeros((T, B, N))
    results = [
        jax.jit(rule)(params, carry, xs, targets)
        for rule in (
            gradients.bptt(step, loss),
            gradients.bptt(step, loss, adjoint="two_phase"),
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
    """Return the temporary bytes of a gradient, in states of all times."""
    step, draw, start, sequence = parts(name)
    cast = partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float32))
    params = cast(draw(jax.random.key(0), units, units))
    carry = cast(start(params, (batch,)))
    xs = jnp.zeros((length, batch, units), jnp.float32)
    steps = {"flax": partial(flax_step, name), "lean": step}

    def loss(params):
        if kind == "sequence":
            ys = sequence(params, carry, xs)[1]
        else:
            ys = gradients.unroll(steps[kind], params, carry, xs)[1]
        return jnp.sum(ys**2)

    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    state = 4 * length * batch * units
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return (compiled.memory_analysis().temp_size_in_bytes - 4 * weights) / state


@pytest.mark.parametrize(("name", "most"), [("tanh", 3.5), ("gru", 7), ("lstm", 8)])
def test_keeps_less_than_flax(name, most):
    """Numbers kept a unit, one of which is the output, which the loss wants."""
    assert bytes_kept(name, "lean") < most
    assert bytes_kept(name, "lean") < bytes_kept(name, "flax") - 0.5
    if name != "tanh":  # which along time keeps about as much
        sequence = bytes_kept(name, "sequence", length=1024)
        assert sequence < bytes_kept(name, "flax") - 0.5


def test_narrow_parameters_have_wide_sums(name):
    step, draw, start, sequence = parts(name)
    params = draw(jax.random.key(0), D, N, dtype=jnp.bfloat16)
    carry, xs = start(params, (B,)), jnp.ones((200, B, D), jnp.bfloat16)
    by = lambda run: jax.jit(
        jax.grad(lambda p: jnp.sum(run(p, carry, xs)[1].astype(jnp.float32)))
    )(params)
    got = by(sequence)
    chex.assert_type(jax.tree.leaves(got), jnp.bfloat16)
    want = by(partial(gradients.unroll, step))
    chex.assert_trees_all_close(
        *jax.tree.map(lambda a: a.astype(jnp.float32), (got, want)), rtol=0.05, atol=0.5
    )
    assert _two_phase.block_length(1000, carry, True) <= 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": jnp.ones((T, B), int)}, "mask must be bool"),
        ({"reset": jnp.ones((T, 2), bool)}, "reset must have one entry"),
        ({"mask": jnp.ones((4, B), bool)}, "mask must have 5 time steps"),
        ({"initial": jnp.zeros((B, 2))}, "initial must have the structure"),
        ({"carry": jnp.zeros((2, N))}, "do not fit|begin with the same|carry"),
    ],
)
def test_mistakes_are_named(change, message):
    params, carry, xs, _ = problem("tanh")
    given = {"params": params, "carry": carry, "xs": xs} | change
    params, carry, xs = (given.pop(key) for key in ("params", "carry", "xs"))
    with pytest.raises(ValueError, match=message):
        cells.tanh_sequence(params, carry, xs, **given)
