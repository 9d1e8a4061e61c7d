"""Long short-term memory (LSTM); the gates are in PyTorch's order: i, f, g, o."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from bpvariants.cells import _dense
from bpvariants.cells._cell import Cell
from bpvariants.cells._dense_sequence import unroll_dense
from bpvariants.cells._recurrence import LSTM
from bpvariants.types import PyTree


class Lstm(Cell):
    """Long short-term memory (LSTM); `lstm(params, carry, x)` is one time step.

        (i, f, g, o) = x_t W + h_{t−1} U + b
        c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g),    h_t = σ(o) ⊙ tanh(c_t),    y_t = h_t

    Here i, f and o are the input, forget and output gates, and g is the candidate for
    the cell state c_t. The carry is (c, h). W and U are weight matrices, b is a bias,
    and σ is the logistic function. For the backward pass, a step with n units stores
    the four gates i, f, g, o and the carry, which are 6 n array elements per example.
    With d inputs, a step takes 8 n (n + d) floating-point operations for each example,
    not counting elementwise operations.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state, a pair (c_{t−1}, h_{t−1}) of arrays [*batch, n].
      x: input x_t, [*batch, d].

    Returns:
      The carry (c_t, h_t), and the output h_t.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.lstm.init(jax.random.key(0), 3, 16)
      >>> carry = cells.lstm.carry(params)
      >>> carry, ys = gradients.unroll(cells.lstm, params, carry, jnp.ones((9, 3)))
      >>> ys.shape
      (9, 16)
    """

    def __call__(
        self, params: PyTree, carry: PyTree, x: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        _dense.check_step("lstm", params, carry, x, 4, "(c, h)")
        return _step(params, carry, x)

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, jax.Array]:
        """Draw the parameters of `lstm`: W from N(0, 1/d), U from N(0, 1/n), bias 0.

        To give an untrained network a longer memory, set the bias of the forget gate f
        to 1: `params["bias"].at[n : 2 * n].set(1)`.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units, which is the length of the last axis of the carry
            and of y.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of arrays: "inputs" is W [d, 4n], "recurrent" is U [n, 4n], and "bias"
            is b [4n].

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.lstm.init(jax.random.key(0), 3, 16)
          >>> params["inputs"].shape, params["recurrent"].shape, params["bias"].shape
          ((3, 64), (16, 64), (64,))
        """
        return _dense.draw(key, inputs, units, 4, dtype)

    @staticmethod
    def carry(
        params: PyTree, batch_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Return the carry of `lstm` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.lstm.init(jax.random.key(0), 3, 16)
          >>> [leaf.shape for leaf in cells.lstm.carry(params, (5,))]
          [(5, 16), (5, 16)]
        """
        c = _dense.zeros("lstm", params, batch_shape)
        return c, c

    def _unroll_two_phase(self, params: PyTree, carry: PyTree, xs: jax.Array) -> Any:
        return unroll_dense(LSTM, params, carry, xs)

    def with_kernel(
        self,
        kernel: Literal["pallas"],
        *,
        interpret: Literal["tpu", "gpu"] | None = None,
    ) -> Cell:
        """Return this cell with a kernel that runs a whole sequence. Reverse mode only.

        The returned cell has the same parameters, carry and results as `lstm`. If it
        is the step of `gradients.unroll`, `bptt` or `bidirectional`,
        with remat=None and backward="scan", one Pallas kernel runs all time steps on a
        TPU or an NVIDIA GPU; a second kernel runs the backward pass. Everywhere else,
        also inside a step that you write yourself, the cell runs step by step. On a
        CPU, a scan runs the same computation as the kernel.

        The speed of the kernels has not been measured, and they have not been run on a
        TPU or GPU: tests run them in Pallas' interpret mode, and lower them for both
        platforms. Measure with `python -m experiments benchmarks --only kernels`. A TPU
        keeps the matrices U in its vector memory, so U must fit there. A GPU runs 16
        examples on each of its multiprocessors; a small batch leaves most of the GPU
        idle. In bfloat16 the kernels compute in float32 and round states and residuals,
        so results differ from `lstm` by rounding. `jax.jvp` is not possible.

        Args:
          kernel: "pallas".
          interpret: None, or a platform, "tpu" or "gpu", whose kernel then runs in
            Pallas' interpret mode on any platform. Interpret mode is slow, and is for
            tests.

        Returns:
          A cell. Equal arguments return the same object.

        Raises:
          ValueError: if kernel or interpret is unknown. While a sequence is run, if
            params, carry and xs do not have one common dtype.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from bpvariants import cells, gradients
          >>> step = cells.lstm.with_kernel("pallas")
          >>> params = step.init(jax.random.key(0), 3, 16)
          >>> carry = step.carry(params, (5,))
          >>> carry, ys = gradients.unroll(step, params, carry, jnp.ones((9, 5, 3)))
          >>> ys.shape
          (9, 5, 16)
        """
        # Importing Pallas takes time, which users of no kernel need not spend.
        from bpvariants.cells._kernel_cell import check_kernel, with_kernel

        check_kernel(kernel, interpret)
        return with_kernel(self, "lstm", interpret)


lstm = Lstm("lstm")


@_dense.lean
def _step(params, carry, x):
    from_x = _dense.affine(x, params["inputs"], params["bias"])
    gates = from_x + _dense.affine(carry[1], params["recurrent"])
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    i, f, o = (_dense.sigmoid(gate) for gate in (i, f, o))
    c = f * carry[0] + i * _dense.tanh(g)
    c, h = _dense.same_dtypes((c, o * jnp.tanh(c)), carry)
    return (c, h), h
