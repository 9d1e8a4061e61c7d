"""Cells by name, for the options of studies; networks of a cell and a readout.

h_t = cell(θ, h_{t−1}, x_t),    y_t = V h_t + c

V is the matrix and c the bias of the readout.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants import cells
from bpvariants.types import PyTree, Step

Params = dict[str, Any]

CELLS: dict[str, cells.Cell] = {
    "tanh": cells.tanh,
    "gru": cells.gru,
    "lstm": cells.lstm,
    "lru": cells.lru,
    "min_gru": cells.min_gru,
    "rtu": cells.rtu,
}
DENSE = ("tanh", "gru", "lstm")  # cells with a full recurrent matrix
LABELS = {  # {cell: its name in the tables of benchmarks}
    "tanh": "tanh",
    "gru": "GRU",
    "lstm": "LSTM",
    "lru": "LRU",
    "min_gru": "minGRU",
    "rtu": "RTU",
}


@cache  # the same function object for the same cell, so that jit does not recompile
def visible(name: str) -> Callable[[PyTree], PyTree]:
    """Return a function from a cell's carry to h, the part that other units see."""
    return (lambda carry: carry[1]) if name == "lstm" else (lambda carry: carry)


def init(key: jax.Array, name: str, inputs: int, units: int, outputs: int) -> Params:
    """Draw the parameters of a dense cell, with orthogonal matrices, and a readout.

    The recurrent matrix of each gate is orthogonal. Elements of all other matrices are
    uniform. Biases are 0, except for an LSTM's forget gate, where they are 1.
    """
    recurrent, feedforward, readout = jax.random.split(key, 3)
    uniform = jax.nn.initializers.lecun_uniform()
    of_cell = CELLS[name].init(key, inputs, units)  # the matrices are redrawn below
    of_cell |= {
        "recurrent": orthogonal(recurrent, of_cell["recurrent"].shape),
        "inputs": uniform(feedforward, of_cell["inputs"].shape),
    }
    return {
        "cell": remembering(name, of_cell),
        "readout": uniform(readout, (units, outputs)),
        "readout_bias": jnp.zeros(outputs),
    }


def orthogonal(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Draw k orthogonal matrices [n, n], one per gate, concatenated to [n, kn]."""
    units, columns = shape
    square = jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, columns // units)
    return jnp.concatenate([square(key, (units, units)) for key in keys], axis=1)


def remembering(name: str, of_cell: Params) -> Params:
    """Return a cell's parameters, with an LSTM's forget gate biases set to 1."""
    if name != "lstm":
        return of_cell
    units = len(of_cell["recurrent"])
    return of_cell | {"bias": of_cell["bias"].at[units : 2 * units].set(1.0)}


def make_step(name: str) -> Step:
    """Return the step (params, carry, x) -> (carry, y) of a cell with a readout."""

    def step(params, carry, x):
        carry, h = CELLS[name](params["cell"], carry, x)
        return carry, readout(params, h)

    return step


def readout(params: Params, h: jax.Array) -> jax.Array:
    """Return the output y for a state h."""
    return h @ params["readout"] + params["readout_bias"]
