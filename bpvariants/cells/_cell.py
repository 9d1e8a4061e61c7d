"""Base class of recurrent cells: step functions with the methods `init` and `carry`.

Each cell is the only instance of its class, and `init` and `carry` are methods of this
class. If a cell were a function with the attributes `init` and `carry`, then type
checkers, editors and `help` would not find these attributes.
"""

import abc
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count, check_single_key, is_count
from bpvariants._settings import described
from bpvariants.types import PyTree


class Cell(abc.ABC):
    """A recurrent cell; every gradient rule for sequences accepts a cell as its step.

        params = cell.init(key, inputs, units)
        carry = cell.carry(params, batch_shape)
        carry, y = cell(params, carry, x)

    A cell contains no arrays. Like functions, cells are compared by identity, are
    hashable, and are pickled by name. To write your own cell, derive a class from
    `Cell` and create one instance of the class.

    Args:
      name: name of the cell. In its module, assign the cell to a variable of this name,
        because `pickle` looks up the cell by the name.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells
      >>> for cell in (cells.tanh, cells.gru, cells.min_gru):
      ...     params = cell.init(jax.random.key(0), 3, 16)
      ...     carry, y = cell(params, cell.carry(params, (5,)), jnp.ones((5, 3)))
      ...     print(cell.__name__, y.shape)
      tanh (5, 16)
      gru (5, 16)
      min_gru (5, 16)
    """

    def __init__(self, name: str):
        self.__name__ = self.__qualname__ = name

    @abc.abstractmethod
    def __call__(self, params: PyTree, carry: PyTree, x: jax.Array) -> tuple[Any, Any]:
        """Run one time step; return the new carry and the output y."""

    @staticmethod
    @abc.abstractmethod
    def init(key: jax.Array, inputs: int, units: int, *, dtype: Any = None) -> PyTree:
        """Draw the parameters of the cell at random.

        Args:
          key: a `jax.random.key`.
          inputs: number of inputs: the length of the last axis of x.
          units: number of units: the length of the last axis of the carry.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.
        """

    @staticmethod
    @abc.abstractmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Return the cell's carry before the first time step.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, as a tuple; () for one example.
        """

    def __repr__(self) -> str:
        return f"<cell {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__name__  # pickle and copy look up the cell by name


def check_init(key: Any, dtype: Any, inputs: Any, **sizes: Any) -> None:
    """Check the arguments of a cell's `init`; the number of inputs may be 0."""
    check_single_key(key)
    check_count("inputs", inputs, 0, "it is the length of the last axis of x")
    for name, size in sizes.items():
        check_count(name, size)
    try:
        floating = dtype is None or jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(
            f"dtype must be a floating dtype, such as jnp.float32, got {dtype!r}."
        )


def check_batch_shape(batch_shape: Any) -> tuple[int, ...]:
    sizes = isinstance(batch_shape, tuple | list)
    if not sizes or not all(is_count(size, 0) for size in batch_shape):
        raise ValueError(
            "batch_shape must be a tuple of integers, the sizes of the batch axes, "
            f"such as (32,) or (); got {batch_shape!r}."
        )
    return tuple(batch_shape)


def params_of(cell: str, params: PyTree, names: Sequence[str]) -> list[PyTree]:
    """Return the entries `names` of a cell's params, or raise a ValueError."""
    try:
        return [params[name] for name in names]
    except (KeyError, IndexError, TypeError) as error:
        keys = getattr(params, "keys", None)
        got = described(params) if keys is None else f"the keys {[*keys()]}"
        raise ValueError(
            f"params must be what cells.{cell}.init(key, inputs, units) returns, with "
            f"the keys {[*names]}; got {got}."
        ) from error


def check_widths(
    cell: str, carry: PyTree, x: Any, inputs: int, units: int, parts: str = ""
) -> None:
    """Check that a carry [*batch, units] and an input [*batch, inputs] fit a cell.

    `parts` names the arrays of a carry that is a pair, such as "(c, h)".
    """
    is_pair = isinstance(carry, tuple | list) and len(carry) == 2
    leaves: list[Any] = list(carry) if is_pair else [carry]
    widths = [jnp.shape(h)[-1:] for h in leaves if hasattr(h, "shape")]
    if is_pair != bool(parts) or widths != [(units,)] * len(leaves):
        wanted = f"{parts}, two arrays" if parts else "an array"
        got = ", ".join(map(described, leaves)) if is_pair else described(carry)
        raise ValueError(
            f"carry must be {wanted} [*batch, {units}], as cells.{cell}.carry(params, "
            f"batch_shape) returns for these params; got {got}."
        )
    if jnp.shape(x)[-1:] != (inputs,):
        raise ValueError(
            f"x must be an array [*batch, {inputs}], because these params are from "
            f"cells.{cell}.init(key, inputs={inputs}, units={units}); got "
            f"{described(x)}."
        )
