"""Minimal gated unit (minGRU): a GRU whose gate and candidate depend only on the input.

Notation: h is the state [n], x is the input [d], z is the gate, c is the candidate
state, and σ is the logistic function.

    z_t = σ(x_t W_z + b_z),    c_t = x_t W_c + b_c
    h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ c_t

The new state h_t is an affine function of h_{t−1}, whose factor 1 − z_t depends only on
x_t.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like
from bpvariants.cells import _dense
from bpvariants.cells._cell import (
    Cell,
    check_batch_shape,
    check_init,
    check_widths,
    params_of,
)
from bpvariants.types import PyTree


class MinGru(Cell):
    """Minimal gated unit (minGRU); `min_gru(params, carry, x)` is one time step.

        z = σ(x W_z + b_z),    h_t = (1 − z) ⊙ h_{t−1} + z ⊙ (x W_c + b_c),    y_t = h_t

    Here z is the gate, and x W_c + b_c is the candidate for the new state. W_z and W_c
    are weight matrices, b_z and b_c are biases, and σ is the logistic function. If the
    cell has n units and d inputs, a step takes 4 n d floating-point operations for each
    example, not counting elementwise operations.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state h_{t−1}, [*batch, n].
      x: input x_t, [*batch, d].

    Returns:
      (h_t, h_t): the state is both the new carry and the output.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.min_gru.init(jax.random.key(0), 3, 16)
      >>> carry = cells.min_gru.carry(params)
      >>> (carry, ys), info = gradients.parallel_unroll(
      ...     cells.min_gru, params, carry, jnp.ones((1000, 3)), method="linear"
      ... )
      >>> ys.shape, info.converged.item()
      ((1000, 16), True)

    References:
      Feng et al., "Were RNNs all we needed?", 2024.
    """

    def __call__(
        self, params: PyTree, carry: jax.Array, x: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        both = params_of("min_gru", params, ("gate", "candidate"))
        (gate, gate_bias), (candidate, bias) = both
        check_widths("min_gru", carry, x, *gate.shape)
        z = jax.nn.sigmoid(_dense.affine(x, gate, gate_bias))
        h = (1 - z) * carry + z * _dense.affine(x, candidate, bias)
        h = cast_like(h, carry)
        return h, h

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Draw the parameters of `min_gru`: matrices from N(0, 1/d), biases 0.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units, which is the length of the last axis of the carry
            and of y.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict: "gate" is the pair of W_z [d, n] and b_z [n], and "candidate" is the
          pair of W_c [d, n] and b_c [n].

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.min_gru.init(jax.random.key(0), 3, 16)
          >>> [leaf.shape for leaf in params["gate"]]
          [(3, 16), (16,)]
        """
        check_init(key, dtype, inputs, units=units)
        names = "gate", "candidate"
        keys = jax.random.split(key, len(names))
        scale = 1 / math.sqrt(max(inputs, 1))

        def layer(key):
            matrix = scale * jax.random.normal(key, (inputs, units))
            matrix = matrix.astype(dtype or matrix.dtype)
            return matrix, jnp.zeros((units,), matrix.dtype)

        return {name: layer(key) for name, key in zip(names, keys, strict=True)}

    @staticmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> jax.Array:
        """Return the carry of `min_gru` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.min_gru.init(jax.random.key(0), 3, 16)
          >>> cells.min_gru.carry(params, (5,)).shape
          (5, 16)
        """
        ((_, bias),) = params_of("min_gru", params, ("gate",))
        batch = check_batch_shape(batch_shape)
        return jnp.zeros((*batch, *bias.shape), bias.dtype)


min_gru = MinGru("min_gru")
