"""Gated recurrent unit (GRU) in the form of PyTorch and cuDNN."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from bpvariants.cells import _dense
from bpvariants.cells._cell import Cell, params_of
from bpvariants.cells._dense_sequence import unroll_dense
from bpvariants.cells._recurrence import GRU
from bpvariants.types import PyTree


class Gru(Cell):
    """Gated recurrent unit (GRU); `gru(params, carry, x)` is one time step.

        r = σ(x_t W_r + h U_r + b_r),    z = σ(x_t W_z + h U_z + b_z),    h = h_{t−1}
        n = tanh(x_t W_n + b_n + r ⊙ (h U_n + b′)),    h_t = (1 − z) ⊙ n + z ⊙ h

    Here r is the reset gate, z is the update gate, and n is the candidate for the new
    state. W and U are weight matrices, b and b′ are biases, and σ is the logistic
    function. As in PyTorch, cuDNN and Flax, the reset gate r multiplies h U_n + b′, and
    not h itself. For the backward pass, a step stores five values per unit: r, z, n, h
    U_n + b′ and h. If the cell has n units and d inputs, a step takes 6 n (n + d)
    floating-point operations for each example, not counting elementwise operations.

    Args:
      params: the parameters of the cell, such as those drawn by `init`.
      carry: the old state h_{t−1}, [*batch, n].
      x: input x_t, [*batch, d].

    Returns:
      (h_t, h_t): the state is both the new carry and the output.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.gru.init(jax.random.key(0), 3, 16)
      >>> carry = cells.gru.carry(params)
      >>> h, ys = gradients.unroll(cells.gru, params, carry, jnp.ones((9, 3)))
      >>> ys.shape
      (9, 16)
    """

    def __call__(
        self, params: PyTree, carry: jax.Array, x: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        params_of("gru", params, ["candidate_bias"])
        _dense.check_step("gru", params, carry, x, 3)
        return _step(params, carry, x)

    @staticmethod
    def init(
        key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> dict[str, jax.Array]:
        """Draw the parameters of `gru`: W from N(0, 1/d), U from N(0, 1/n), biases 0.

        Args:
          key: a `jax.random.key`.
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units, which is the length of the last axis of the carry
            and of y.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.

        Returns:
          A dict of arrays: "inputs" is W [d, 3n], "recurrent" is U [n, 3n], "bias" is b
          [3n], and "candidate_bias" is b′ [n].

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.gru.init(jax.random.key(0), 3, 16)
          >>> params["inputs"].shape, params["recurrent"].shape, params["bias"].shape
          ((3, 48), (16, 48), (48,))
        """
        params = _dense.draw(key, inputs, units, 3, dtype)
        return params | {"candidate_bias": jnp.zeros_like(params["bias"][:units])}

    @staticmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> jax.Array:
        """Return the carry of `gru` before the first step: zeros.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.

        Example:
          >>> import jax
          >>> from bpvariants import cells
          >>> params = cells.gru.init(jax.random.key(0), 3, 16)
          >>> cells.gru.carry(params, (5,)).shape
          (5, 16)
        """
        return _dense.zeros("gru", params, batch_shape)

    def _unroll_two_phase(self, params: PyTree, carry: PyTree, xs: jax.Array) -> Any:
        return unroll_dense(GRU, params, carry, xs)

    def with_kernel(
        self,
        kernel: Literal["pallas"],
        *,
        interpret: Literal["tpu", "gpu"] | None = None,
    ) -> Cell:
        """Return this cell with a kernel that runs a whole sequence. Reverse mode only.

        The returned cell has the same parameters, carry and results as `gru`. If it
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
        so results differ from `gru` by rounding. `jax.jvp` is not possible.

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
          >>> step = cells.gru.with_kernel("pallas")
          >>> params = step.init(jax.random.key(0), 3, 16)
          >>> carry = step.carry(params, (5,))
          >>> carry, ys = gradients.unroll(step, params, carry, jnp.ones((9, 5, 3)))
          >>> ys.shape
          (9, 5, 16)
        """
        # Importing Pallas takes time, which users of no kernel need not spend.
        from bpvariants.cells._kernel_cell import check_kernel, with_kernel

        check_kernel(kernel, interpret)
        return with_kernel(self, "gru", interpret)


gru = Gru("gru")


@_dense.lean
def _step(params, h, x):
    units = h.shape[-1]
    gates, n = jnp.split(
        _dense.affine(x, params["inputs"], params["bias"]), [2 * units], axis=-1
    )
    of_h = _dense.affine(h, params["recurrent"])
    from_h = of_h[..., 2 * units :]
    bias = params["candidate_bias"].reshape((1,) * (from_h.ndim - 1) + (units,))
    r, z = jnp.split(gates + of_h[..., : 2 * units], 2, axis=-1)
    r, z = _dense.sigmoid(r), _dense.sigmoid(z)
    n = _dense.tanh(n + r * _dense.kept(from_h + bias))
    h = _dense.same_dtypes((1 - z) * n + z * h, h)
    return h, h
