"""Base class of recurrent cells: a step with methods that make parameters and carry.

A cell is an object, the only instance of its class, and `init` and `carry` are its
methods. If a cell were a function with the attributes `init` and `carry`, then type
checkers, editors and `help` would not find these attributes.
"""

import abc
from typing import Any

import jax

from bpvariants.types import PyTree


class Cell(abc.ABC):
    """A recurrent cell; every gradient rule for sequences accepts it as a step.

        params = cell.init(key, inputs, units)
        carry = cell.carry(params, batch_shape)
        carry, y = cell(params, carry, x)

    A cell contains no arrays. Like functions, cells are compared by identity, are
    hashable, and are pickled by name. To write your own cell, derive a class from
    `Cell` and create one instance of the class.

    Args:
      name: name of the cell, which must also be the name of the module's variable that
        contains the cell, because `pickle` looks up the cell by this name.

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
          inputs: number d of inputs, which is the length of the last axis of x.
          units: number n of units, which is the length of the carry's last axis.
          dtype: the dtype of all parameters. Default: JAX's default floating dtype.
        """

    @staticmethod
    @abc.abstractmethod
    def carry(params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Return the cell's carry before the first time step.

        Args:
          params: the parameters of the cell.
          batch_shape: sizes *batch of the batch axes; () for a single example.
        """

    def __repr__(self) -> str:
        return f"<cell {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__name__  # pickle and copy look up the cell by name
