"""Cells by name, for the options of studies, and a network of a cell and a readout.

h_t = cell(θ, h_{t−1}, x_t),    y_t = V h_t + c
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
DENSE = ("tanh", "gru", "lstm")  # those with a recurrent matrix
LABELS = {  # in the tables of benchmarks
    "tanh": "tanh",
    "gru": "GRU",
    "lstm": "LSTM",
    "lru": "LRU",
    "min_gru": "minGRU",
    "rtu": "RTU",
}


@cache  # one function for each cell, so jit finds its compiled code again
def visible(name: str) -> Callable[[PyTree], PyTree]:
    """Return the function carry -> h; units of a dense cell see each other's h."""
    return (lambda carry: carry[1]) if name == "lstm" else (lambda carry: carry)


def init(key: jax.Array, name: str, inputs: int, units: int, outputs: int) -> Params:
    """Draw parameters of a dense cell, with orthogonal matrices, and of a readout.

    Recurrent matrices are orthogonal, gate by gate. Other matrices are uniform. Biases
    are 0, except 1 for the forget gate of the LSTM.
    """
    recurrent, feedforward, readout = jax.random.split(key, 3)
    uniform = jax.nn.initializers.lecun_uniform()
    of_cell = CELLS[name].init(key, inputs, units)  # shapes, and biases of 0
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
    """Draw a matrix [n, kn] of k orthogonal matrices, one for each gate."""
    units, columns = shape
    square = jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, columns // units)
    return jnp.concatenate([square(key, (units, units)) for key in keys], axis=1)


def remembering(name: str, of_cell: Params) -> Params:
    """Return the parameters; the forget gate of an LSTM gets a bias of 1."""
    if name != "lstm":
        return of_cell
    units = len(of_cell["recurrent"])
    return of_cell | {"bias": of_cell["bias"].at[units : 2 * units].set(1.0)}


def make_step(name: str) -> Step:
    """Return the step of a cell with its readout."""

    def step(params, carry, x):
        carry, h = CELLS[name](params["cell"], carry, x)
        return carry, readout(params, h)

    return step


def readout(params: Params, h: jax.Array) -> jax.Array:
    """Return the output y for a state h."""
    return h @ params["readout"] + params["readout_bias"]
