"""Learning at every step: an online rule and an update, along a sequence."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants import cells
from bpvariants.types import OnlineRule, PyTree, Step

CELLS = ("tanh", "gru", "lstm")


class Network(NamedTuple):
    """A cell and a linear readout of its output."""

    step: Step
    init: Callable[[jax.Array], PyTree]  # key -> params
    carry: Callable[..., PyTree]  # (params, batch shape) -> carry


def network(
    cell: str, inputs: int, units: int, outputs: int, leak: float = 1.0
) -> Network:
    """Return a network; with α = leak, h ← (1 − α) h + α cell(h) for tanh."""
    advance, draw, zeros = (
        getattr(cells, name) for name in (cell, f"{cell}_params", f"{cell}_carry")
    )

    def init(key):
        of_cell, of_readout = jax.random.split(key)
        return {
            "cell": draw(of_cell, inputs, units),
            "readout": jax.random.normal(of_readout, (units, outputs)) / units**0.5,
            "bias": jnp.zeros(outputs),
        }

    def step(params, carry, x):
        new, h = advance(params["cell"], carry, x)
        if leak != 1:
            new = h = (1 - leak) * carry + leak * new
        return new, h @ params["readout"] + params["bias"]

    carry = lambda params, batch=(): zeros(params["cell"], batch)
    return Network(step, init, carry)


def learn_online(rule: OnlineRule, update: optax.GradientTransformation) -> Callable:
    """Return a function that learns from each loss as it is met.

        (pair, state), losses = learn(pair, state, xs, targets, counts, key)

    pair is (params, opt_state), state that of the rule, and counts a dict of weight,
    mask and reset, or some of them, [T, *batch]. The losses [T] are means of their
    steps. Where the weights of a step are all 0, nothing is learned.
    """
    draws = "key" in inspect.signature(rule.update).parameters

    def learn(pair, state, xs, targets, counts, key):
        length = len(jax.tree.leaves(xs)[0])
        keys = {"key": jax.random.split(key, length)} if draws else {}

        def body(pair_and_state, inputs):
            (params, opt_state), state = pair_and_state
            x, target, options = inputs
            value, grads, state = rule.update(params, state, x, target, **options)
            change, new = update.update(grads, opt_state, params)
            pair = optax.apply_updates(params, change), new
            if "weight" in options:
                some = jnp.any(options["weight"] != 0)
                old = params, opt_state
                pair = jax.tree.map(lambda a, b: jnp.where(some, a, b), pair, old)
            return (pair, state), value

        return jax.lax.scan(body, (pair, state), (xs, targets, {**counts, **keys}))

    return learn


def begin(
    rule: OnlineRule, params: PyTree, carry: PyTree, batch: tuple[int, ...], x_and_y: Any
) -> PyTree:
    """Return the first state of a rule; x_and_y are (x, target) of one step."""
    asked = inspect.signature(rule.init).parameters
    options = {"inputs": x_and_y} if "inputs" in asked else {}
    return rule.init(params, carry, batch_shape=batch, **options)
