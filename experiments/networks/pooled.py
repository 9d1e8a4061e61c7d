"""Recurrent networks that classify a sequence after its last step.

h_t = cell(θ, h_{t−1}, x_t),    y_t = V r_t + c

V and c are the weights and the bias of the readout. The pooled state r_t is one of the
three below:

r_t = h_t ("last"),  (h_1 + … + h_t) / t ("mean"),  max(h_1, …, h_t) ("max")
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree, Step
from experiments.networks import cells
from experiments.networks.cells import CELLS

Pooling = Literal["mean", "max", "last"]
POOLINGS = ("mean", "max", "last")


def make_step(
    cell: str, pooling: Pooling, encode: Callable[[PyTree, Any], jax.Array]
) -> Step:
    """Return the step of a network that pools the states of its cell.

    The carry of the network is (carry of the cell, pooled state, number of steps).

    Args:
      cell: one of :data:`~experiments.networks.cells.CELLS`.
      pooling: how the pooled state is computed: "mean", "max" or "last".
      encode: function (params, x) -> inputs of the cell, [*batch, inputs].
    """

    def step(params, carry, x):
        state, pooled, count = carry
        state, h = CELLS[cell](params["cell"], state, encode(params, x))
        count = count + 1
        if pooling == "mean":
            pooled = pooled + (h - pooled) / count
        else:
            pooled = h if pooling == "last" else jnp.maximum(h, pooled)
        carry = state, pooled, count
        return carry, readout(params, carry)

    return step


def readout(params: PyTree, carry: PyTree) -> jax.Array:
    """Return the output y of a network, computed from its carry."""
    return carry[1] @ params["readout"] + params["readout_bias"]


def zeros(cell_params: PyTree, cell: str, pooling: Pooling, batch: int) -> PyTree:
    """Return the initial carry of a network."""
    state = CELLS[cell].carry(cell_params, (batch,))
    pooled = jnp.zeros_like(cells.visible(cell)(state))
    if pooling == "max":
        pooled = pooled - 1  # the maximum starts at −1, the lowest output of a unit
    return state, pooled, jnp.zeros((batch, 1), pooled.dtype)


def visible(cell: str) -> Callable[[PyTree], PyTree]:
    """Return a function (carry) -> the part of the carry that other units read."""
    read = cells.visible(cell)
    return lambda carry: read(carry[0])
