"""Elementwise parts of a GRU step and of an LSTM step, and their derivatives.

Notation: a step adds the products p_g = h_{t−1} U_g + b′_g to the terms x_g = x_t W_g +
b_g of k gates g. The functions below compute the rest of the step, element by element.
They take lists of arrays of equal shape, so that a kernel can apply them to any tile of
the arrays [B, n].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Tiles = list[jax.Array]


class Recurrence(NamedTuple):
    """Functions and sizes that define a dense recurrent cell.

    The last of the `states` is h, which is multiplied by U, and is also the output y.
    """

    name: str
    gates: int  # k, the number of matrices U_g
    states: int  # number of arrays [B, n] in the carry
    kept: int  # number of arrays [B, n] that the backward pass needs besides the carry
    # (x, p, old states) -> (new states, kept arrays)
    forward: Callable[[Tiles, Tiles, Tiles], tuple[Tiles, Tiles]]
    # (kept arrays, old states, cotangents of the new states) ->
    #   (cotangents of x, cotangents of the old states except through p)
    backward: Callable[[Tiles, Tiles, Tiles], tuple[Tiles, Tiles]]
    # (cotangents of x, kept arrays) -> cotangents of p
    hidden: Callable[[Tiles, Tiles], Tiles]


def _gru_forward(x, p, states):
    (h,) = states
    r, z = jax.nn.sigmoid(x[0] + p[0]), jax.nn.sigmoid(x[1] + p[1])
    n = jnp.tanh(x[2] + r * p[2])
    return [(1 - z) * n + z * h], [r, z, n, p[2]]


def _gru_backward(kept, states, cotangents):
    (r, z, n, p), (h,), (dh,) = kept, states, cotangents
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (h - n) * z * (1 - z)
    return [dn * p * r * (1 - r), dz, dn], [dh * z]


def _gru_hidden(dx, kept):
    return [dx[0], dx[1], dx[2] * kept[0]]


def _lstm_forward(x, p, states):
    i, f, o = (jax.nn.sigmoid(x[gate] + p[gate]) for gate in (0, 1, 3))
    g = jnp.tanh(x[2] + p[2])
    c = f * states[0] + i * g
    return [c, o * jnp.tanh(c)], [i, f, g, o]


def _lstm_backward(kept, states, cotangents):
    (i, f, g, o), (c, _), (dc, dh) = kept, states, cotangents
    tanh_c = jnp.tanh(f * c + i * g)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    dx = [
        dc * g * i * (1 - i),
        dc * c * f * (1 - f),
        dc * i * (1 - g * g),
        dh * tanh_c * o * (1 - o),
    ]
    return dx, [dc * f, jnp.zeros_like(dh)]


def _lstm_hidden(dx, kept):
    del kept
    return dx


GRU = Recurrence("gru", 3, 1, 4, _gru_forward, _gru_backward, _gru_hidden)
LSTM = Recurrence("lstm", 4, 2, 4, _lstm_forward, _lstm_backward, _lstm_hidden)
