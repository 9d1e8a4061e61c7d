"""Cells that run a whole sequence in one kernel."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_flags
from bpvariants.cells._cell import Cell
from bpvariants.cells._recurrence import GRU, LSTM, Recurrence
from bpvariants.cells._sequence import DTYPES, Interpret, run_sequence
from bpvariants.types import PyTree


class KernelCell(Cell):
    """A cell whose `unroll` runs a whole sequence; `Gru.with_kernel` returns one.

    One time step of the cell, `init` and `carry` are those of the cell without kernel.
    """

    def __init__(self, cell: Cell, recurrence: Recurrence, interpret: Interpret):
        super().__init__(cell.__name__)
        self._cell, self._recurrence = cell, recurrence
        self._interpret: Interpret = interpret

    def __call__(self, params: PyTree, carry: PyTree, x: jax.Array) -> tuple[Any, Any]:
        return self._cell(params, carry, x)

    def init(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key: jax.Array, inputs: int, units: int, *, dtype: Any = None
    ) -> PyTree:
        """Draw the parameters, as the cell without kernel does."""
        return self._cell.init(key, inputs, units, dtype=dtype)

    def carry(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, params: PyTree, batch_shape: tuple[int, ...] = ()
    ) -> PyTree:
        """Return the carry before the first step, as the cell without kernel does."""
        return self._cell.carry(params, batch_shape)

    def unroll(
        self,
        params: PyTree,
        carry: PyTree,
        xs: jax.Array,
        mask: jax.Array | None,
        reset: jax.Array | None,
        initial: PyTree,
    ) -> tuple[PyTree, jax.Array]:
        """Run all time steps; `gradients.unroll` and the gradient rules call this.

        Args:
          params: the parameters of the cell.
          carry: the state before the first step, arrays [*batch, n].
          xs: inputs, [T, *batch, d].
          mask: [T, *batch] bool, False in padding; or None.
          reset: [T, *batch] bool, True if `initial` replaces the carry; or None.
          initial: the carry after a reset.

        Returns:
          The carry after the last step, and the outputs [T, *batch, n].
        """
        self._check(params, carry, xs, mask=mask, reset=reset)
        states, structure = jax.tree.flatten(carry)
        firsts = jax.tree.leaves(initial)
        last, ys = run_sequence(
            self._recurrence, self._interpret, params, states, xs, mask, reset, firsts
        )
        return structure.unflatten(last), ys

    def _check(self, params, carry, xs, **flags):
        x = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
        jax.eval_shape(self._cell, params, carry, x)
        leaves = [*jax.tree.leaves((params, carry)), xs]
        dtypes = sorted({str(jnp.result_type(leaf)) for leaf in leaves})
        if len(dtypes) > 1 or dtypes[0] not in DTYPES:
            raise ValueError(
                f"params, carry and xs of cells.{self.__name__} with kernel='pallas' "
                "must all have the same dtype, float32 or bfloat16 (float64 only on a "
                f"CPU); got {', '.join(dtypes)}."
            )
        for name, flag in flags.items():
            if flag is not None:
                check_flags(name, flag[0], carry)

    def __repr__(self) -> str:
        return f"<cell {self.__name__} with kernel='pallas'>"

    def __reduce__(self) -> Any:
        return with_kernel, (self._cell, self._recurrence.name, self._interpret)


def check_kernel(kernel: object, interpret: object) -> None:
    if kernel != "pallas":
        raise ValueError(
            f"kernel must be 'pallas', got {kernel!r}; without a kernel, use the cell "
            "itself."
        )
    if interpret not in (None, "tpu", "gpu"):
        raise ValueError(
            "interpret must be None, 'tpu' or 'gpu', the platform whose kernel runs "
            f"in interpret mode; got {interpret!r}."
        )


@cache  # equal arguments give the same object, so jax.jit does not trace again
def with_kernel(cell: Cell, recurrence: str, interpret: Interpret) -> Cell:
    return KernelCell(cell, {"gru": GRU, "lstm": LSTM}[recurrence], interpret)
