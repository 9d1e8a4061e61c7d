"""Cells that the studies compare, of one layer, and a readout on top of them.

With u = W h_{t−1} + U x_t + b, cut into parts of n numbers:

    tanh   h_t = tanh(u)
    lstm   c_t = σ(u_f) c_{t−1} + σ(u_i) tanh(u_g),    h_t = σ(u_o) tanh(c_t)
    gru    h_t = z h_{t−1} + (1 − z) tanh(U_g x_t + b_g + r (W_g h_{t−1} + d)),
           r = σ(u_r),    z = σ(u_z)

W is orthogonal at first, part by part; U is uniform; b is 0, but 1 for u_f of the LSTM.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = dict[str, Any]


class Cell(NamedTuple):
    """A recurrent layer of n units."""

    parts: int  # of n numbers in u
    advance: Callable  # (params, carry, x) -> carry
    zeros: Callable  # (batch shape, n) -> carry
    read: Callable  # carry -> h


def _product(params, h, x):
    return h @ params["recurrent"] + x @ params["input"] + params["bias"]


def _tanh(params, h, x):
    return jnp.tanh(_product(params, h, x))


def _lstm(params, carry, x):
    c, h = carry
    i, f, g, o = jnp.split(_product(params, h, x), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def _gru(params, h, x):
    old = h @ params["recurrent"]
    new = x @ params["input"] + params["bias"]
    gates, candidate = 2 * h.shape[-1], new[..., 2 * h.shape[-1] :]
    r, z = jnp.split(jax.nn.sigmoid(old[..., :gates] + new[..., :gates]), 2, axis=-1)
    g = jnp.tanh(candidate + r * (old[..., gates:] + params["inner_bias"]))
    return z * h + (1 - z) * g


def _zeros(batch, units):
    return jnp.zeros((*batch, units))


CELLS = {
    "tanh": Cell(1, _tanh, _zeros, lambda h: h),
    "gru": Cell(3, _gru, _zeros, lambda h: h),
    "lstm": Cell(
        4,
        _lstm,
        lambda batch, units: (_zeros(batch, units), _zeros(batch, units)),
        lambda carry: carry[1],
    ),
}


def init(key: jax.Array, name: str, inputs: int, units: int, outputs: int) -> Params:
    """Return the parameters of a cell and of its readout."""
    parts = CELLS[name].parts
    recurrent, feedforward, readout = jax.random.split(key, 3)
    square = jax.nn.initializers.orthogonal()
    blocks = [square(k, (units, units)) for k in jax.random.split(recurrent, parts)]
    uniform = jax.nn.initializers.lecun_uniform()
    bias = jnp.zeros(parts * units)
    params = {
        "recurrent": jnp.concatenate(blocks, axis=1),
        "input": uniform(feedforward, (inputs, parts * units)),
        "bias": bias.at[units : 2 * units].set(1.0) if name == "lstm" else bias,
        "readout": uniform(readout, (units, outputs)),
        "readout_bias": jnp.zeros(outputs),
    }
    return params | ({"inner_bias": jnp.zeros(units)} if name == "gru" else {})


def make_step(name: str) -> Callable:
    """Return the step of a cell with its readout, y = V h_t + c."""
    cell = CELLS[name]

    def step(params, carry, x):
        carry = cell.advance(params, carry, x)
        return carry, readout(params, cell.read(carry))

    return step


def readout(params: Params, h: jax.Array) -> jax.Array:
    """Return what the network says in a state h."""
    return h @ params["readout"] + params["readout_bias"]
