"""Networks of `music`, and pieces sampled from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.networks import recurrent


def make_network(cell: str, units: int) -> recurrent.Network:
    """Return a network that predicts the next step's keys from the keys of a step."""

    def loss(y, target):
        losses = optax.sigmoid_binary_cross_entropy(y, target.astype(y.dtype))
        return jnp.sum(losses, axis=-1)

    return recurrent.make_network(
        cell,
        units,
        lambda _, x: x.astype(jnp.float32),
        loss,
        lambda key: recurrent.init(key, cell, 88, units, 88),
    )


def sample(
    network: recurrent.Network,
    params: Any,
    prime: jax.Array,
    steps: int,
    key: jax.Array,
    temperature: float = 1.0,
) -> np.ndarray:
    """Sample a piece [steps, 88] from a network; `prime` is the piece's beginning.

    Args:
      network: a network from :func:`make_network`.
      params: parameters of the network.
      prime: steps at the start of the piece, [at least 1, 88] of zeros and ones.
      steps: number of steps of the piece, including `prime`.
      key: key for sampling.
      temperature: divisor of the logits before sampling.
    """
    given = jnp.zeros((steps, 88), prime.dtype).at[: len(prime)].set(prime)

    def body(state, inputs):
        carry, drawn = state
        t, key = inputs
        x = jnp.where(t < len(prime), given[t], drawn)
        carry, logits = network.step(params, carry, (x, None))
        drawn = jax.random.bernoulli(key, jax.nn.sigmoid(logits / temperature))
        return (carry, drawn.astype(x.dtype)), x

    inputs = jnp.arange(steps), jax.random.split(key, steps)
    state = network.zeros(()), jnp.zeros(88, prime.dtype)
    return np.asarray(jax.jit(lambda: jax.lax.scan(body, state, inputs)[1])())
