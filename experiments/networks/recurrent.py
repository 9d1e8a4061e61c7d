"""Recurrent networks that read streams of data in windows of several time steps.

    h_t = cell(θ, h_{t−1}, x_t),    y_t = (k_t ⊙ h_t) V + c

V and c are the weights and the bias of the readout. In training with dropout, k_t is a
scaled random dropout mask; otherwise k_t = 1. B streams are read in parallel, T steps
in each window. The state at the end of a window is the initial state of the next
window, unless the argument `reset` sets the state to zeros.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.types import GradientRule, Loss, PyTree, Step
from experiments.networks import cells
from experiments.networks.cells import CELLS


class Window(NamedTuple):
    """T time steps of B streams, for one training update or for a test."""

    xs: Any  # [T, B, …]
    targets: Any  # [T, B, …]
    weights: Any  # [T, B] bool, whether the loss of a step counts; None if all count
    mask: Any  # [T, B] bool, False in padding; None if no padding
    reset: Any  # [T, B] bool, whether the state is set to zero before the step


class Network(NamedTuple):
    """A cell with a readout, a loss, and functions that make params and a carry."""

    step: Step  # inputs of the step are pairs (x, dropout mask)
    loss: Loss
    init: Callable[[jax.Array], PyTree]  # key -> params
    zeros: Callable[[tuple[int, ...]], PyTree]  # batch shape -> initial carry
    visible: Callable[[PyTree], PyTree]  # carry -> the part that other units read
    units: int


def init(key: jax.Array, cell: str, inputs: int, units: int, outputs: int) -> PyTree:
    """Draw the parameters of a cell and of its readout."""
    of_cell, of_readout = jax.random.split(key)
    readout = jax.random.normal(of_readout, (units, outputs)) / units**0.5
    return {
        "cell": CELLS[cell].init(of_cell, inputs, units),
        "readout": readout,
        "readout_bias": jnp.zeros(outputs),
    }


def make_step(cell: str, encode: Callable[[PyTree, Any], jax.Array]) -> Step:
    """Return the step of a network. The step's inputs are pairs (x, dropout mask).

    If the dropout mask is None, there is no dropout.

    Args:
      cell: one of :data:`~experiments.networks.cells.CELLS`.
      encode: function (params, x) -> inputs of the cell, [*batch, inputs].
    """

    def step(params, carry, x):
        x, kept = x
        carry, h = CELLS[cell](params["cell"], carry, encode(params, x))
        h = h if kept is None else h * kept
        return carry, h @ params["readout"] + params["readout_bias"]

    return step


def over_windows(
    rule: GradientRule, zeros: PyTree, *, draws: bool, dropout: float, units: int
) -> Callable[..., Any]:
    """Return a gradient rule for a `Window` of streams, with dropout.

    The returned rule is (params, carry, *window, key=) -> ((value, carry), grads).

    Args:
      rule: a gradient rule for sequences, made with a step from :func:`make_step`.
      zeros: value that the carry has after a reset.
      draws: whether `rule` draws random numbers, and so takes a key.
      dropout: probability that the readout reads 0 in place of a unit's output.
      units: number of units of the cell.
    """

    def of_window(params, carry, xs, targets, weights, mask, reset, *, key=None):
        kept, options = None, {}
        if dropout:
            assert key is not None
            key, own = jax.random.split(key)
            shape = *reset.shape, units
            kept = jax.random.bernoulli(own, 1 - dropout, shape) / (1 - dropout)
        if draws:
            options["key"] = key
        return rule(
            params, carry, (xs, kept), targets, weights, mask, reset, zeros, **options
        )

    return of_window


def make_network(
    cell: str,
    units: int,
    encode: Callable[[PyTree, Any], jax.Array],
    loss: Loss,
    init: Callable[[jax.Array], PyTree],
) -> Network:
    """Return a network; for the arguments, see `Network` and :func:`make_step`."""
    like = jax.eval_shape(init, jax.random.key(0))["cell"]
    zeros = lambda batch: CELLS[cell].carry(like, batch)
    visible = cells.visible(cell)
    return Network(make_step(cell, encode), loss, init, zeros, visible, units)


def count(params: PyTree) -> int:
    """Return the number of scalar parameters in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
