"""Benchmark of `gradients.bptt` and `cells` against plain JAX, Flax and PyTorch.

Each implementation computes the mean of (y − target)² over all outputs y of a sequence.
Each implementation also computes the gradient of this mean with respect to the weights.
All have the same weights. Before they are timed, their gradients with respect to the
recurrent matrix are compared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import gradients
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._torch import torch, torch_device
from experiments.harness.timing import (
    check_agreement,
    Entrants,
    Foreign,
    Measured,
    race,
)
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
    ("lstm", 100, 16, 512, 512),
]
FLAX = {"tanh": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}
# Names of the layers of Flax's cells, in the order of the gates in `cells` and PyTorch.
GATES = {"tanh": [""], "gru": ["r", "z", "n"], "lstm": ["i", "f", "g", "o"]}
SAME = 1e-3  # largest relative difference of gradients with respect to U in float32


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
    length, batch, inputs, units = shape
    entrants, notes = _of_flax(cell, *shape) | _of_cells(cell, *shape), None
    found = {}
    for name, entrant in entrants.items():
        assert not isinstance(entrant, Foreign)
        function, arguments = entrant
        found[name] = _recurrent(cell, _fresh(function)(*arguments)[1])
    if torch() is None:
        notes = {next(iter(entrants)): "not installed: torch"}
    else:
        network, run = _by_torch(cell, *shape)
        run()
        found["torch"] = network.weight_hh_l0.grad.cpu().numpy().T
        entrants["torch"] = Foreign(run)
    check_agreement(found, SAME, "gradients of the recurrent matrix")
    weights = _weights(cell, _flax(cell, batch, inputs, units)[1])
    run = _works.Run(weights, length, batch, units, length * batch * (inputs + units))
    work = _works.gradient(run)
    return race(group, entrants, repeats=repeats, notes=notes, work=work)


def _fresh(function: Callable) -> Callable:
    """Return a jitted function whose compilation is not reused when `race` compiles."""
    return jax.jit(lambda *arguments: function(*arguments))


def _recurrent(cell: str, grads: Any) -> np.ndarray:
    """Return the gradient with respect to the recurrent matrix U [n, gates · n]."""
    if "recurrent" in grads:
        return np.asarray(grads["recurrent"])
    layers = grads["params"]
    layers = layers.get("cell", layers)
    kernels = [layers[f"h{gate}"]["kernel"] for gate in GATES[cell]]
    return np.concatenate([np.asarray(kernel) for kernel in kernels], axis=1)


def _weights(cell: str, params: Any) -> dict[str, np.ndarray]:
    """Return the weights of a Flax cell as the parameters of a cell of `cells`."""
    layers = params["params"]
    join = lambda of, what: np.concatenate(
        [np.asarray(layers[f"{of}{gate}"][what]) for gate in GATES[cell]], axis=-1
    )
    bias_of = "h" if cell == "lstm" else "i"
    weights = {
        "inputs": join("i", "kernel"),
        "recurrent": join("h", "kernel"),
        "bias": join(bias_of, "bias"),
    }
    if cell == "gru":
        weights["candidate_bias"] = np.asarray(layers["hn"]["bias"])
    return weights


def _data(length, batch, inputs, units):
    keys = jax.random.split(jax.random.key(0))
    xs = jax.random.normal(keys[0], (length, batch, inputs))
    return xs, jax.random.normal(keys[1], (length, batch, units))


def _loss(y, target):
    return jnp.mean((y - target) ** 2, axis=-1)


def _of_flax(cell, length, batch, inputs, units) -> Entrants:
    """Return functions that differentiate a Flax cell: first by `bptt`, then by JAX."""
    network, params, carry = _flax(cell, batch, inputs, units)
    xs, targets = _data(length, batch, inputs, units)
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


def _flax(cell, batch, inputs, units) -> tuple[Any, Any, Any]:
    """Return a Flax cell, its parameters and its initial carry."""
    network = FLAX[cell](units)
    carry = network.initialize_carry(jax.random.key(0), (batch, inputs))
    x = jnp.zeros((batch, inputs))
    return network, network.init(jax.random.key(1), carry, x), carry


def _of_cells(cell, length, batch, inputs, units) -> Entrants:
    """Return functions that differentiate a cell of the module `cells`."""
    step = CELLS[cell]
    xs, targets = _data(length, batch, inputs, units)
    weights = _weights(cell, _flax(cell, batch, inputs, units)[1])
    params = jax.tree.map(jnp.asarray, weights)
    carry = step.carry(params, (batch,))
    rule: Callable[..., Any] = partial(gradients.bptt, step, _loss)
    arguments = params, carry, xs, targets
    return {
        f"cells.{cell}": (rule(), arguments),
        f"cells.{cell}, two_phase": (rule(backward="two_phase"), arguments),
    }


def _by_torch(cell, length, batch, inputs, units) -> tuple[Any, Callable[[], None]]:
    """Return PyTorch's network with the same weights, and a function that runs it."""
    module, device = torch(), torch_device()
    assert module is not None
    kinds = {"tanh": module.nn.RNN, "gru": module.nn.GRU, "lstm": module.nn.LSTM}
    network = kinds[cell](inputs, units)
    weights = _weights(cell, _flax(cell, batch, inputs, units)[1])
    recurrent_bias = np.zeros_like(weights["bias"])
    if cell == "gru":
        recurrent_bias[2 * units :] = weights["candidate_bias"]
    copied = {
        "weight_ih_l0": weights["inputs"].T,
        "weight_hh_l0": weights["recurrent"].T,
        "bias_ih_l0": weights["bias"],
        "bias_hh_l0": recurrent_bias,
    }
    with module.no_grad():
        for name, values in copied.items():
            getattr(network, name).copy_(module.from_numpy(np.array(values)))
    network = network.to(device)
    data = _data(length, batch, inputs, units)
    xs, targets = (module.from_numpy(np.array(leaf)).to(device) for leaf in data)

    def run():
        network.zero_grad()
        ((network(xs)[0] - targets) ** 2).mean().backward()
        if device == "cuda":
            module.cuda.synchronize()

    return network, run
