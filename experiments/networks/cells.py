"""Recurrent cells by name, and networks that consist of a cell and a linear readout.

h_t = cell(θ, h_{t−1}, x_t),    y_t = V h_t + c

θ are the cell's parameters, V is the matrix and c the bias of the readout.
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


@cache  # return the same function object each time, so that jit does not recompile
def visible(name: str) -> Callable[[PyTree], PyTree]:
    """Return a function from a cell's carry to h, the part that other units read."""
    return (lambda carry: carry[1]) if name == "lstm" else (lambda carry: carry)


def init(key: jax.Array, name: str, inputs: int, units: int, outputs: int) -> Params:
    """Draw the parameters of a cell in `DENSE`, and of its readout.

    The recurrent matrix of each gate is a random orthogonal matrix. Elements of all
    other matrices are drawn from a uniform distribution. Biases are 0, except that the
    biases of an LSTM's forget gate are 1.
    """
    recurrent, feedforward, readout = jax.random.split(key, 3)
    uniform = jax.nn.initializers.lecun_uniform()
    of_cell = CELLS[name].init(key, inputs, units)  # both matrices are redrawn below
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
    """Draw an orthogonal matrix [n, n] for each of k gates; concatenate to [n, k n]."""
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
    """Return the network's output y for the cell's output h."""
    return h @ params["readout"] + params["readout_bias"]
