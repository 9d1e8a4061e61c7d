"""Benchmark of `gradients.bptt` and `cells` against plain JAX, Flax and PyTorch.

Each implementation computes the mean of (y − target)² over all outputs y of a sequence.
Each implementation also computes the gradient of this mean with respect to the weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._torch import torch, torch_device
from experiments.harness.timing import Entrants, Foreign, Measured, race
from experiments.networks.cells import CELLS, LABELS

SHAPES = [  # (cell, T, B, number of inputs, number of units)
    ("tanh", 200, 32, 64, 128),
    ("tanh", 1000, 1, 32, 32),
    ("gru", 100, 64, 64, 64),
    ("gru", 500, 8, 32, 64),
    ("lstm", 200, 32, 64, 128),
    ("lstm", 100, 64, 256, 256),
    ("lstm", 500, 8, 32, 64),
    ("lstm", 1000, 1, 32, 32),
]
FLAX = {"tanh": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def bptt() -> Groups:
    """Return one group of timings for each shape of network and data in `SHAPES`.

    Each timed call computes one gradient.
    """
    groups: Groups = {}
    for cell, length, batch, inputs, units in SHAPES:
        group = f"gradient, {LABELS[cell]}, T {length}, B {batch}, n {units}"
        groups[group] = partial(_race, group, cell, (length, batch, inputs, units))
    return groups


def _race(group: str, cell: str, shape: tuple, repeats: int) -> list[Measured]:
    entrants, notes = _of_flax(cell, *shape) | _of_cells(cell, *shape), None
    if torch() is None:
        notes = {next(iter(entrants)): "not installed: torch"}
    else:
        entrants["torch"] = _by_torch(cell, *shape)
    return race(group, entrants, repeats=repeats, notes=notes)


def _data(length, batch, inputs, units):
    keys = jax.random.split(jax.random.key(0))
    xs = jax.random.normal(keys[0], (length, batch, inputs))
    return xs, jax.random.normal(keys[1], (length, batch, units))


def _loss(y, target):
    return jnp.mean((y - target) ** 2, axis=-1)


def _of_flax(cell, length, batch, inputs, units) -> Entrants:
    """Return functions that differentiate a Flax cell: first by `bptt`, then by JAX."""
    network = FLAX[cell](units)
    xs, targets = _data(length, batch, inputs, units)
    carry = network.initialize_carry(jax.random.key(0), (batch, inputs))
    params = network.init(jax.random.key(1), carry, xs[0])
    rnn = nn.RNN(FLAX[cell](units), time_major=True)

    def scan(params, carry, xs, targets):
        def body(carry, x_and_target):
            x, target = x_and_target
            carry, y = network.apply(params, carry, x)
            return carry, _loss(y, target)

        carry, losses = jax.lax.scan(body, carry, (xs, targets))
        return jnp.mean(losses), carry

    def by_rnn(params, carry, xs, targets):
        carry, ys = rnn.apply(params, xs, initial_carry=carry, return_carry=True)
        return jnp.mean(_loss(ys, targets)), carry

    rule: Callable[..., Any] = partial(gradients.bptt, network.apply, _loss)
    arguments = params, carry, xs, targets
    of_rnn = {"params": {"cell": params["params"]}}, carry, xs, targets
    grad = partial(jax.value_and_grad, has_aux=True)
    return {
        "bptt": (rule(), arguments),
        "bptt, two_phase": (rule(backward="two_phase"), arguments),
        "value_and_grad(scan)": (grad(scan), arguments),
        "flax.linen.RNN": (grad(by_rnn), of_rnn),
    }


def _of_cells(cell, length, batch, inputs, units) -> Entrants:
    """Return functions that differentiate the cell with a given name in `cells`."""
    step = CELLS[cell]
    xs, targets = _data(length, batch, inputs, units)
    params = step.init(jax.random.key(1), inputs, units)
    carry = step.carry(params, (batch,))
    rule: Callable[..., Any] = partial(gradients.bptt, step, _loss)
    arguments = params, carry, xs, targets
    return {
        f"cells.{cell}": (rule(), arguments),
        f"cells.{cell}, two_phase": (rule(backward="two_phase"), arguments),
    }


def _by_torch(cell, length, batch, inputs, units) -> Foreign:
    module, device = torch(), torch_device()
    assert module is not None
    kinds = {"tanh": module.nn.RNN, "gru": module.nn.GRU, "lstm": module.nn.LSTM}
    network = kinds[cell](inputs, units).to(device)
    data = _data(length, batch, inputs, units)
    xs, targets = (module.from_numpy(np.array(leaf)).to(device) for leaf in data)

    def run():
        network.zero_grad()
        ((network(xs)[0] - targets) ** 2).mean().backward()
        if device == "cuda":
            module.cuda.synchronize()

    return Foreign(run)
