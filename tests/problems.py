"""Gradient rules, cells and problems that several test files share."""

import json
import pathlib
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from bpvariants import adapters, gradients

GOLDEN = pathlib.Path(__file__).parent / "golden"

# Every rule in this table must pass all tests in gradients/test_every_rule.py.
RULES = {
    "bptt": gradients.bptt,
    "bptt_every": partial(gradients.bptt, remat=gradients.remat.every(2)),
    "bptt_slots": partial(gradients.bptt, remat=gradients.remat.slots(2)),
    "bptt_two_phase": partial(gradients.bptt, backward="two_phase"),
    "truncated_bptt_all": partial(gradients.truncated_bptt, every=2, lookback=9),
    "artbp_no_cuts": lambda step, loss: partial(
        gradients.artbp(step, loss, truncation=0.0), key=jax.random.key(0)
    ),
    "rtrl": lambda step, loss: gradients.over_sequence(gradients.rtrl(step, loss)),
}

CELLS = ["tanh", "gru", "lstm", "linen_rnn", "nnx", "nested"]


class Problem(NamedTuple):
    step: Callable
    loss: Callable
    args: tuple  # (params, carry, xs, targets)
    options: dict  # weights, mask, reset and initial


@cache  # all tests share the network and its compiled functions
def make_problem(cell="lstm", batch=(3,), T=5, dtype=float):
    keys = iter(jax.random.split(jax.random.key(0), 16))
    normal = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    xs, targets = normal(T, *batch, 2), normal(T, *batch, 4)
    carry, initial = normal(*batch, 3), normal(*batch, 3)
    if cell == "tanh":
        step = _tanh_step
        params = {"hidden": (normal(3, 3), normal(2, 3)), "readout": normal(3, 4)}
    elif cell == "nested":
        step = _nested_step
        carry, initial = (
            {"fast": [h], "slow": (0.5 * h, jnp.zeros(batch, int))}
            for h in (carry, initial)
        )
        params = [normal(3, 3), {"in": normal(2, 3), "out": (normal(3, 4),)}]
    elif cell == "nnx":
        # Initialisers of Flax promote dtypes.
        with jax.numpy_dtype_promotion("standard"):
            step, params = adapters.from_nnx(_NNXNetwork(nnx.Rngs(0)))
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    else:
        if cell == "lstm":
            carry, initial = (carry, normal(*batch, 3)), (initial, normal(*batch, 3))
        cells = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "linen_rnn": nn.SimpleCell}
        network = _LinenNetwork(cells[cell])
        step, params = network.apply, network.init(next(keys), carry, xs[0])
    options = {
        "weights": jax.random.uniform(next(keys), (T, *batch), dtype),
        "mask": jax.random.bernoulli(next(keys), 0.7, (T, *batch)),
        "reset": jax.random.bernoulli(next(keys), 0.3, (T, *batch)),
        "initial": initial,
    }
    return Problem(step, _squared_error, (params, carry, xs, targets), options)


def _tanh_step(params, h, x):
    recurrent, feedforward = params["hidden"]
    h = jnp.tanh(h @ recurrent + x @ feedforward)
    return h, h @ params["readout"]


@jax.jit  # steps of users may contain jitted functions
def _nested_step(params, carry, x):
    recurrent, others = params
    (fast,), (slow, count) = carry["fast"], carry["slow"]
    fast = jnp.tanh(fast @ recurrent + x @ others["in"] - slow)
    slow = 0.7 * slow + 0.3 * fast * slow
    y = fast @ others["out"][0] + (slow**2) @ others["out"][0]
    return {"fast": [fast], "slow": (slow, count + 1)}, y


class _LinenNetwork(nn.Module):
    cell: type[nn.RNNCellBase]

    @nn.compact
    def __call__(self, carry, x):
        carry, h = self.cell(features=3, param_dtype=x.dtype)(carry, x)
        return carry, nn.Dense(features=4, param_dtype=x.dtype)(h)


class _NNXNetwork(nnx.Module):
    def __init__(self, rngs):
        self.cell = nnx.GRUCell(2, 3, param_dtype=float, rngs=rngs)
        self.readout = nnx.Linear(3, 4, param_dtype=float, rngs=rngs)

    def __call__(self, carry, x):
        carry, h = self.cell(carry, x)
        return carry, self.readout(h)


@cache
def make_probe(T=6):
    """Return probe P: a network of three units with known reference gradients."""
    P = json.loads((GOLDEN / "probe_p.json").read_text())
    t = jnp.arange(1.0, T + 1)
    xs = jnp.stack([jnp.sin(0.7 * t), jnp.cos(0.4 * t)], axis=1)
    targets = jnp.cos(0.3 * t[:, None] + jnp.arange(3.0)[None]) / 2
    params = tuple(jnp.array(P[name]) for name in ("W", "U", "b"))
    args = params, jnp.array(P["h0"]), xs, targets
    return Problem(_probe_step, _half_squared_error, args, {})


def _probe_step(params, h, x):
    W, U, b = params
    h = jnp.tanh(W @ h + U @ x + b)
    return h, h


def _half_squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1) / 2


def _squared_error(y, target):
    return jnp.sum((y - target) ** 2, axis=-1)
