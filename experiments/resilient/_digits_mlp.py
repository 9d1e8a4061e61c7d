"""A small MLP for handwritten digits, with all weights in one vector."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

UNITS, CLASSES, PIXELS = 32, 10, 64


class Network(NamedTuple):
    """Functions of a network's weights [n], images [B, inputs] and labels [B]."""

    init: Callable[[jax.Array], jax.Array]  # key -> weights
    loss: Callable[..., jax.Array]  # (weights, images, labels) -> mean cross entropy
    accuracy: Callable[..., jax.Array]  # (weights, images, labels) -> percent


def digits_mlp(inputs: int = PIXELS) -> Network:
    """Return a network with 64 inputs, 32 tanh units and 10 outputs: 2410 weights.

    Args:
      inputs: number of inputs; it is above 64 if the pixels of an image are repeated.
    """

    def layers(key):
        first, second = jax.random.split(key)
        return _dense(first, inputs, UNITS), _dense(second, UNITS, CLASSES)

    init = lambda key: ravel_pytree(layers(key))[0]
    unravel = ravel_pytree(layers(jax.random.key(0)))[1]

    def logits(weights, images):
        (w, b), (readout, bias) = unravel(weights)
        return jnp.tanh(images @ w + b) @ readout + bias

    def loss(weights, images, labels):
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(
                logits(weights, images), labels
            )
        )

    def accuracy(weights, images, labels):
        right = jnp.argmax(logits(weights, images), axis=-1) == labels
        return 100 * jnp.mean(right, dtype=jnp.float32)

    return Network(init, loss, accuracy)


def _dense(key: jax.Array, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
    w = jax.random.normal(key, (inputs, outputs), jnp.float32) / inputs**0.5
    return w, jnp.zeros(outputs, jnp.float32)
