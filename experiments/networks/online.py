"""Networks for online learning, and a function that trains them step by step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants import gradients
from bpvariants.types import OnlineRule, PyTree, Step
from experiments.networks.cells import CELLS


class Network(NamedTuple):
    """A cell and a linear readout of its output."""

    step: Step
    init: Callable[[jax.Array], PyTree]  # key -> initial params
    carry: Callable[..., PyTree]  # (params, batch shape) -> initial carry


def network(
    cell: str, inputs: int, units: int, outputs: int, leak: float = 1.0
) -> Network:
    """Return a network of a cell and a linear readout.

    If α = `leak` is below 1, a tanh cell becomes a leaky cell. The new state of the
    leaky cell is (1 − α) h + α cell(h), where h is the old state.
    """
    advance = CELLS[cell]

    def init(key):
        of_cell, of_readout = jax.random.split(key)
        return {
            "cell": advance.init(of_cell, inputs, units),
            "readout": jax.random.normal(of_readout, (units, outputs)) / units**0.5,
            "bias": jnp.zeros(outputs),
        }

    def step(params, carry, x):
        new, h = advance(params["cell"], carry, x)
        if leak != 1:
            new = h = (1 - leak) * carry + leak * new
        return new, h @ params["readout"] + params["bias"]

    carry = lambda params, batch=(): advance.carry(params["cell"], batch)
    return Network(step, init, carry)


def stacked(cell: str, layers: int, inputs: int, units: int, outputs: int) -> Network:
    """Return a stack of recurrent layers, with a linear readout as its last layer.

    Layer l computes y^l = y^{l−1} + gelu(cell(y^{l−1})) from the output of the layer
    below it. The first layer has no residual connection, because the input of the
    network has another width. All carries are real.
    """
    advance = CELLS[cell]

    def block(params, carry, x):
        carry, y = advance(params, carry, x)
        y = jax.nn.gelu(y)
        return carry, y if x.shape != y.shape else x + y

    def readout(params, carry, x):
        return carry, x @ params["readout"] + params["bias"]

    def init(key):
        *of_cells, of_readout = jax.random.split(key, layers + 1)
        widths = [inputs] + [units] * (layers - 1)
        params = [
            advance.init(key, width, units)
            for key, width in zip(of_cells, widths, strict=True)
        ]
        matrix = jax.random.normal(of_readout, (units, outputs)) / units**0.5
        return *params, {"readout": matrix, "bias": jnp.zeros(outputs)}

    def carry(params, batch=()):
        real = {"complex": False} if cell == "lru" else {}
        return *(advance.carry(p, batch, **real) for p in params[:-1]), ()

    step = gradients.stack([*[block] * layers, readout])
    return Network(step, init, carry)


def learn_online(rule: OnlineRule, update: optax.GradientTransformation) -> Callable:
    """Return a function that updates the parameters after every step of a stream.

        (pair, state), losses = learn(pair, state, xs, targets, key)

    `pair` is (params, opt_state), and `state` is the state of the online rule. The
    returned function `learn` continues from the given state of the online rule. In
    contrast, a rule made by `gradients.over_sequence` starts each call with a new
    state.
    """

    def learn(pair, state, xs, targets, key):
        length = len(jax.tree.leaves(xs)[0])
        keys = jax.random.split(key, length)

        def body(pair_and_state, inputs):
            (params, opt_state), state = pair_and_state
            x, target, key = inputs
            value, grads, state = rule.update(params, state, x, target, key=key)
            change, opt_state = update.update(grads, opt_state, params)
            pair = optax.apply_updates(params, change), opt_state
            return (pair, state), value

        return jax.lax.scan(body, (pair, state), (xs, targets, keys))

    return learn


def recurrent(cell: str, inputs: int, units: int, outputs: int) -> Network:
    """Return a network whose linear readout reads the cell's output and the inputs."""
    advance = CELLS[cell]

    def init(key):
        params, x = advance.init(key, inputs, units), jnp.zeros(inputs)
        _, h = jax.eval_shape(advance, params, advance.carry(params), x)
        return {
            "cell": params,
            "readout": jnp.zeros((*h.shape, outputs)),
            "skip": jnp.zeros((inputs, outputs)),
            "bias": jnp.zeros(outputs),
        }

    def step(params, carry, x):
        carry, h = advance(params["cell"], carry, x)
        return carry, h @ params["readout"] + x @ params["skip"] + params["bias"]

    carry = lambda params, batch=(): advance.carry(params["cell"], batch)
    return Network(step, init, carry)
