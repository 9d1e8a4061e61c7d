"""State and result of a training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_key
from bpvariants.types import PyTree


class TrainState(NamedTuple):
    """What a step replaces; with runs, leaves have an axis of runs first."""

    params: PyTree
    opt_state: PyTree
    carry: PyTree  # of a stateful rule, else None


class Reached(NamedTuple):
    """Replaced as one, so that Ctrl-C never finds half of it."""

    state: TrainState
    alive: jax.Array  # [] or [runs], False once a NaN has ended the training
    steps: int
    skipped: np.ndarray  # [] or [runs], how many steps were not finite, and not taken
    bad: np.ndarray  # [] or [runs], the first step that was not finite, else −1


class FitResult(NamedTuple):
    """What :func:`fit` returns. With `runs`, arrays have an axis of runs first.

    Attributes:
      params: where the training ended.
      opt_state: the state of the update then.
      carry: the carry of a stateful rule then, else None.
      values: [steps] ([runs, steps]), the loss before each step; of a run that a NaN
        ended, NaN from there on.
      steps: how many steps were taken, those before a resumption included.
      interrupted: whether Ctrl-C, or the end of data, came before the last one.
      seconds: spent in steps by this call, without compilation and logging.
      compile_seconds: spent in compilation, of chunks of all sizes.
      temp_bytes: that a chunk allocates, as XLA says; None if it does not.
      stopped: why it ended before the last step: "interrupt", "data", "stop" or
        "nonfinite"; None if it did not.
      skipped: [] ([runs]), how many steps were not finite and so were not taken.
      nonfinite_step: [] ([runs]), the first step that was not finite, −1 if none was.
      resumed_from: the step of the checkpoint that it went on from, or None.
    """

    params: PyTree
    opt_state: PyTree
    carry: PyTree
    values: np.ndarray
    steps: int
    interrupted: bool
    seconds: float
    compile_seconds: float
    temp_bytes: int | None
    stopped: str | None = None
    skipped: Any = 0
    nonfinite_step: Any = -1
    resumed_from: int | None = None


class Values:
    """The losses of all steps so far, in an array that has room for all to come."""

    def __init__(self, steps: int, runs: int | None):
        self._shape = (steps,) if runs is None else (runs, steps)
        self._all = None

    def put(self, first: int, values: np.ndarray) -> None:
        """Put in the values of the steps from the first on, [..., steps]."""
        if self._all is None:
            self._all = np.empty(self._shape, values.dtype)
        self._all[..., first : first + values.shape[-1]] = values

    def until(self, steps: int) -> np.ndarray:
        """Return those of so many steps, a view."""
        if self._all is None:
            return np.zeros((*self._shape[:-1], 0))
        return self._all[..., :steps]


def own(tree: PyTree) -> PyTree:
    """Return a copy whose arrays are nobody else's, and each its own: to write over."""

    def copy(leaf):
        leaf = jnp.array(leaf)
        # A weak type would not survive a checkpoint, and decides what types come out.
        return leaf if is_key(leaf) else leaf.astype(leaf.dtype)

    return jax.tree.map(copy, tree)
