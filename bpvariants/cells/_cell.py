"""Base class of the cells: a step with methods for its parameters and first carry.

Each cell is a class with a single instance. A function with attributes would hide
`init` and `carry` from type checkers, editors and `help`.
"""

import abc
from typing import Any

import jax

from bpvariants.types import PyTree


class Cell(abc.ABC):
    """A recurrent cell, which every rule of `gradients` accepts as a step.

        params = cell.init(key, inputs, units)
        carry = cell.carry(params, batch_shape)
        carry, y = cell(params, carry, x)

    A cell holds no arrays. Like a function, it compares by identity, is hashable and is
    pickled by its name. To write your own cell, derive a class and make one instance.

    Args:
      name: the name of the variable that holds the cell, for `repr` and `pickle`.

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
        """Take one step; return the new carry and the output y."""

    @staticmethod
    @abc.abstractmethod
    def init(key: jax.Array, inputs: int, units: int, *, dtype: Any = None) -> PyTree:
        """Draw the parameters.

        Args:
          key: a `jax.random.key`.
          inputs: d, the size of x.
          units: n, the size of the carry.
          dtype: the dtype of all arrays; by default JAX's floating type.
        """

    @staticmethod
    @abc.abstractmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Return the carry before the first step.

        Args:
          params: the parameters of the cell.
          batch_shape: the sizes of the batch axes, *batch.
        """

    def __repr__(self) -> str:
        return f"<cell {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__name__  # pickle and copy look up this name, as for functions
