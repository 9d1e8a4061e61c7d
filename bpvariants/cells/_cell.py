"""The type of a cell: a step that knows how to draw its parameters and to begin.

Each cell is a class with a single instance, not a function with attributes, because
type checkers, editors and `help` then know its `init` and its `carry`.
"""

import abc
from typing import Any

import jax

from bpvariants.types import PyTree


class Cell(abc.ABC):
    """A recurrent cell as one value, which every rule of `gradients` takes as a step.

        params = cell.init(key, inputs, units)
        carry = cell.carry(params, batch_shape)
        carry, y = cell(params, carry, x)

    A cell holds no arrays. Like a function, it compares by identity, is hashable and is
    pickled by its name. For a cell of your own, derive a class and make one instance.

    Args:
      name: of the variable that holds the cell, for `repr` and `pickle`.

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
          key: of `jax.random`.
          inputs: d, the size of x.
          units: n, the size of the carry.
          dtype: of all arrays; by default JAX's floating type.
        """

    @staticmethod
    @abc.abstractmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Return the carry before the first step.

        Args:
          params: of the cell.
          batch_shape: *batch.
        """

    def __repr__(self) -> str:
        return f"<cell {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__name__  # pickle and copy look it up, as they do for functions
