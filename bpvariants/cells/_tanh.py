"""Elman network: tanh of an affine function of the input and the previous state."""

from typing import Any

import jax

from bpvariants.cells import _dense
from bpvariants.cells._cell import Cell
from bpvariants.types import PyTree


class Tanh(Cell):
    """Elman network; `tanh(params, carry, x)` is one time step.

        h_t = tanh(x_t W + h_{t−1} U + b),    y_t = h_t

    Here h_t is the state, x_t is the input, W and U are weight matrices, and b is a
    bias. For the backward pass, a step stores the states h_t and h_{t−1}. If the
    network has n units and d inputs, a step takes 2 n (n + d) floating-point operations
    for each example, not counting elementwise operations.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state h_{t−1}, [*batch, n].
      x: input x_t, [*batch, d].

    Returns:
      (h_t, h_t): the state is both the new carry and the output.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.tanh.init(jax.random.key(0), 3, 16)
      >>> carry = cells.tanh.carry(params)
      >>> h, ys = gradients.unroll(cells.tanh, params, carry, jnp.ones((9, 3)))
      >>> ys.shape
      (9, 16)
    """

    def __call__(
        self, params: PyTree, carry: jax.Array, x: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        _dense.check_step("tanh", params, carry, x, 1)
        return _step(params, carry, x)

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, jax.Array]:
        """Draw the parameters of `tanh`: W from N(0, 1/d), U from N(0, 1/n), bias 0.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units, which is the length of the last axis of the carry
            and of y.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of arrays: "inputs" is W [d, n], "recurrent" is U [n, n], and "bias" is
            b [n].

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.tanh.init(jax.random.key(0), 3, 16)
          >>> params["inputs"].shape, params["recurrent"].shape, params["bias"].shape
          ((3, 16), (16, 16), (16,))
        """
        return _dense.draw(key, inputs, units, 1, dtype)

    @staticmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> jax.Array:
        """Return the carry of `tanh` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.tanh.init(jax.random.key(0), 3, 16)
          >>> cells.tanh.carry(params, (5,)).shape
          (5, 16)
        """
        return _dense.zeros("tanh", params, batch_shape)


tanh = Tanh("tanh")


@_dense.lean
def _step(params, h, x):
    from_x = _dense.affine(x, params["inputs"], params["bias"])
    z = from_x + _dense.affine(h, params["recurrent"])
    h = _dense.same_dtypes(_dense.tanh(z), h)
    return h, h
