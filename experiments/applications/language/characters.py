"""Test text, network and sampling of text, for `language`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.networks import recurrent
from experiments.networks.recurrent import Network, Window

SCORED = 64  # number of parallel streams that the test text is split into
WARM = 128  # number of unscored characters that each stream reads first


def score_window(text: data.Text, tested: int | None = None) -> Window:
    """Return the test text as streams, each preceded by some unscored characters.

    Every test character is scored once. Each stream first reads the :data:`WARM`
    characters that precede its part of the text. For the first stream, these characters
    are the end of the training text.
    """
    test = text.test[:tested]
    length = -(-len(test) // SCORED)
    before = text.train[-WARM - 1 :]
    whole = np.concatenate([before, test, np.zeros(length * SCORED - len(test), int)])
    offset = len(before) - 1
    place = length * np.arange(SCORED) + np.arange(length + offset)[:, None]
    counts = (np.arange(length + offset) >= offset)[:, None]
    within = place - offset < len(test)
    xs, targets = whole[place].astype(np.int32), whole[place + 1].astype(np.int32)
    return Window(xs, targets, counts & within, within, None)


def reset_often(window: Window, every: int) -> Window:
    """Return the window with resets: the state is set to zeros every `every` steps."""
    times = np.arange(len(window.xs))[:, None] % every == 0
    return window._replace(reset=np.broadcast_to(times, window.xs.shape))


def make_network(cell: str, units: int, embedding: int, symbols: int) -> Network:
    """Return a network that reads a character's index, and predicts the next index."""

    def init(key):
        params = recurrent.init(key, cell, embedding, units, symbols)
        shape = symbols, embedding
        drawn = jax.random.normal(jax.random.fold_in(key, 1), shape)
        return params | {"embedding": drawn}

    return recurrent.make_network(
        cell,
        units,
        lambda params, x: params["embedding"][x],
        optax.softmax_cross_entropy_with_integer_labels,
        init,
    )


def generate(
    network: Network,
    params: Any,
    prompt: np.ndarray,
    steps: int,
    key: jax.Array,
    temperature: float = 1.0,
) -> np.ndarray:
    """Sample characters that continue a prompt; return their indices [steps].

    Args:
      network: a network from :func:`make_network`.
      params: parameters of the network.
      prompt: indices of the prompt's characters, at least one.
      steps: number of characters to sample.
      key: key for sampling.
      temperature: divisor of the logits before the softmax.
    """
    first = jnp.asarray(prompt, jnp.int32)
    read = lambda carry, x: network.step(params, carry, (x, None))

    def draw(state, key):
        carry, logits = read(*state)
        x = jax.random.categorical(key, logits / temperature).astype(jnp.int32)
        return (carry, x), x

    def write():
        carry, _ = jax.lax.scan(read, network.zeros(()), first[:-1])
        keys = jax.random.split(key, steps)
        return jax.lax.scan(draw, (carry, first[-1]), keys)[1]

    return np.asarray(jax.jit(write)())
