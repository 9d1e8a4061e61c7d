"""`gradients.bptt` against plain `jax.value_and_grad` over `lax.scan`."""

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from bpvariants import gradients
from experiments.benchmarks._timing import Measured, race

SHAPES = {  # cell, T, B, inputs, units
    "tanh": (nn.SimpleCell, 200, 32, 64, 128),
    "GRU": (nn.GRUCell, 100, 64, 64, 64),
    "LSTM": (nn.OptimizedLSTMCell, 200, 32, 64, 128),
    "small LSTM": (nn.OptimizedLSTMCell, 500, 8, 32, 64),
}


def bptt(repeats: int) -> Iterator[Measured]:
    """Time one gradient of each shape."""
    for label, (cell, length, batch, inputs, units) in SHAPES.items():
        network = cell(units)
        keys = jax.random.split(jax.random.key(0), 3)
        carry = network.initialize_carry(keys[0], (batch, inputs))
        xs = jax.random.normal(keys[1], (length, batch, inputs))
        targets = jax.random.normal(keys[2], (length, batch, units))
        params = network.init(keys[0], carry, xs[0])
        loss = lambda y, target: jnp.mean((y - target) ** 2, axis=-1)

        def plain(params, carry, xs, targets, network=network, loss=loss):
            def body(carry, x_and_target):
                x, target = x_and_target
                carry, y = network.apply(params, carry, x)
                return carry, loss(y, target)

            carry, losses = jax.lax.scan(body, carry, (xs, targets))
            return jnp.mean(losses), carry

        arguments = params, carry, xs, targets
        entrants = {
            "bptt": (gradients.bptt(network.apply, loss), arguments),
            "value_and_grad(scan)": (
                jax.value_and_grad(plain, has_aux=True),
                arguments,
            ),
        }
        group = f"gradient, {label}, T {length}, B {batch}, n {units}"
        yield from race(group, entrants, repeats=repeats)
