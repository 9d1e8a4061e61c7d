"""Feed-forward networks, as pure functions, for the studies of papers about Rprop."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree


class Network(NamedTuple):
    """Layer sizes and kind of a network, a static argument of jitted functions."""

    sizes: tuple[int, ...]
    shortcuts: bool  # whether each layer reads all layers below it, or only one
    output: str = "linear"  # activation of the last layer: "linear" or "sigmoid"

    @property
    def num_weights(self) -> int:
        """Number of weights and biases."""
        shapes = jax.tree.leaves(self.shapes())
        return sum(jnp.size(jnp.empty(shape.shape)) for shape in shapes)

    def sources(self, layer: int) -> range:
        """Return the indices of the layers whose outputs a layer reads."""
        return range(0 if self.shortcuts else layer - 1, layer)

    def shapes(self) -> PyTree:
        """Return the shapes of all parameters, with a matrix for each connection."""
        number = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
        return [
            {
                "bias": number(self.sizes[layer]),
                "weights": [
                    number(self.sizes[layer], self.sizes[source])
                    for source in self.sources(layer)
                ],
            }
            for layer in range(1, len(self.sizes))
        ]

    def draw(self, key: jax.Array, low: float, high: float) -> PyTree:
        """Draw all parameters from the uniform distribution over [low, high)."""
        leaves, structure = jax.tree.flatten(self.shapes())
        keys = jax.random.split(key, len(leaves))
        uniform = lambda key, leaf: jax.random.uniform(
            key, leaf.shape, "float32", low, high
        )
        return structure.unflatten(map(uniform, keys, leaves))

    def apply(self, params: Sequence[PyTree], x: jax.Array) -> jax.Array:
        """Return the outputs [outputs, P] of the network for inputs [inputs, P].

        Each of the P examples is a column. If several networks read the same inputs
        under `vmap`, the first layers of all networks therefore become one matrix
        product, without a transposition.
        """
        layers = [x]
        for layer, theta in enumerate(params, start=1):
            s = theta["bias"][:, None]
            for source, weights in zip(
                self.sources(layer), theta["weights"], strict=True
            ):
                s = s + weights @ layers[source]
            last = layer == len(self.sizes) - 1
            layers.append(s if last and self.output == "linear" else softsign(s))
        return layers[-1]


def softsign(s: jax.Array) -> jax.Array:
    """Return s / (1 + |s|), the activation function of Proben1."""
    return s / (1 + jnp.abs(s))
