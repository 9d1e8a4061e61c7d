"""A network of LeNet's shape; each layer is a pair (function, activation)."""

import jax
import jax.numpy as jnp

from bpvariants.types import PyTree

# Shapes of the weights of each layer: [height, width, inputs, outputs] of a
# convolution, [inputs, outputs] of a dense layer. Images are padded to 32 × 32 pixels.
SHAPES = ((5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10))
SIDE, RIMS = 28, (2, 0)


def _convolution(rim: int):
    """Return a convolution s = y ∗ w + b, computed as a matrix product of patches.

    On each side, y is padded with `rim` zeros. On CPUs, the matrix product was three
    times as fast as XLA's convolution. Under `vmap` over weights, the difference is
    larger, because XLA's convolution becomes a grouped convolution.
    """

    def convolve(params, y):
        w, b = params["w"], params["b"]
        y = jnp.pad(y, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
        high, wide = w.shape[:2]
        rows, columns = y.shape[1] - high + 1, y.shape[2] - wide + 1
        beside = [y[:, :, j : j + columns] for j in range(wide)]
        y = jnp.concatenate(beside, axis=-1)
        y = jnp.concatenate([y[:, i : i + rows] for i in range(high)], axis=-1)
        return y @ w.reshape(-1, w.shape[-1]) + jnp.reshape(b, (1, 1, 1, -1))

    return convolve


def _dense(params, y):
    return y.reshape(len(y), -1) @ params["w"] + params["b"][None]


def _rectified_pool(s):
    y = jax.nn.relu(s)
    batch, rows, columns, channels = y.shape
    y = y.reshape(batch, rows // 2, 2, columns // 2, 2, channels)
    y = jnp.maximum(y[:, :, 0], y[:, :, 1])
    return jnp.maximum(y[:, :, :, 0], y[:, :, :, 1])


def _identity(s):
    return s


LAYERS = [(_convolution(rim), _rectified_pool) for rim in RIMS]
LAYERS += [(_dense, jax.nn.relu), (_dense, jax.nn.relu), (_dense, _identity)]


def init(key: jax.Array) -> tuple[dict[str, jax.Array], ...]:
    """Draw the parameters of all layers: weights by Xavier initialisation, biases 0."""
    draw = jax.nn.initializers.glorot_normal()
    keys = jax.random.split(key, len(SHAPES))
    return tuple(
        {"w": draw(key, shape), "b": jnp.zeros(shape[-1])}
        for key, shape in zip(keys, SHAPES, strict=True)
    )


def logits(params: PyTree, images: jax.Array) -> jax.Array:
    """Return the logits [B, 10] of images [B, 28, 28, 1]."""
    y = images
    for (function, activation), theta in zip(LAYERS, params, strict=True):
        y = activation(function(theta, y))
    return y
