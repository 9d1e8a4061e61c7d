"""Spiking networks with a slow readout, as steps for every rule through time.

Notation: z_t are the spikes of n neurons, T is the number of steps.

    f_t = κ f_{t−1} + (1 − κ) z_t,    y_t = f_t W_out,    κ = exp(−1/τ_out)
    c_t = c_{t−1} + z_t                                    number of spikes so far
    ℓ_t = ℓ(y_t, y*_t),   plus at t = T   (c_reg/2) Σ_j (c_T,j / T − f*)²

The readout's filter f and the counts c are parts of the carry. E-prop therefore keeps
filtered eligibility traces for f, and sums of eligibility traces for c, without special
code. With random feedback weights B, the backward pass through y_t = f_t W_out uses B
instead of W_outᵀ; the step says so by `gradients.feedback_dense`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants import gradients
from bpvariants.types import PyTree, Step


class SpikingCarry(NamedTuple):
    """Carry of a spiking network."""

    neurons: PyTree  # carry of cells.lif or cells.alif
    filtered: jax.Array  # f [*batch, n]
    counts: jax.Array  # c [*batch, n]


class Target(NamedTuple):
    """Target of one time step."""

    wanted: jax.Array  # y* [*batch, m]
    counts: jax.Array  # [*batch], 1 where the loss counts
    last: jax.Array  # [*batch], 1 at the last step of the sequence


def visible(carry: SpikingCarry) -> jax.Array:
    """Return the part of the carry through which neurons affect each other."""
    return carry.neurons.spikes


def spiking_step(cell: Step, tau_readout: float, feedback: PyTree = None) -> Step:
    """Return a step of params {"cell", "readout"} with the output (y_t, c_t).

    `cell` is a spiking cell with its constants. `feedback` is B [m, n], or None for
    the true derivative of the readout.
    """

    def step(params, carry, x):
        kappa = jnp.exp(jnp.asarray(-1 / tau_readout, carry.filtered.dtype))
        neurons, z = cell(params["cell"], carry.neurons, x)
        filtered = kappa * carry.filtered + (1 - kappa) * z
        if feedback is None:
            y = filtered @ params["readout"]
        else:
            back = feedback.T.astype(filtered.dtype)
            y = gradients.feedback_dense(filtered, params["readout"], feedback=back)
        counts = carry.counts + z
        return SpikingCarry(neurons, filtered, counts), (y, counts)

    return step


def first_carry(neurons: PyTree) -> SpikingCarry:
    """Return the carry before the first step, for the neurons' carry."""
    zeros = jnp.zeros_like(neurons.spikes)
    return SpikingCarry(neurons, zeros, zeros)


def spiking_loss(
    task: Callable[[jax.Array, jax.Array], jax.Array],
    steps: int,
    regularisation: float,
    rate: float,
) -> Callable[[PyTree, Target], jax.Array]:
    """Return the loss ℓ_t of one example, from the loss (y, y*) of the task."""

    def loss(output, target):
        y, counts = output
        rates = penalty(counts, steps, regularisation, rate)
        return target.counts * task(y, target.wanted) + target.last * rates

    return loss


def penalty(
    counts: jax.Array, steps: int, regularisation: float, rate: float
) -> jax.Array:
    """Return (c_reg/2) Σ_j (c_j / T − f*)² of each example."""
    return regularisation / 2 * jnp.sum((counts / steps - rate) ** 2, axis=-1)


def squared_error(y: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return ½ Σ (y − y*)² of each example."""
    return jnp.sum((y - wanted) ** 2, axis=-1) / 2


def cross_entropy(y: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return the cross-entropy in nats; y are logits, and y* is one-hot."""
    return -jnp.sum(wanted * jax.nn.log_softmax(y), axis=-1)
