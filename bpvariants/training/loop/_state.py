"""State and result of a training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_key
from bpvariants.types import PyTree


class TrainState(NamedTuple):
    """State that each step replaces; with runs, leaves have a first axis of runs."""

    params: PyTree
    opt_state: PyTree
    carry: PyTree  # carry of a stateful rule, else None


class Reached(NamedTuple):
    """Progress of a training, replaced as a whole so that Ctrl-C never splits it."""

    state: TrainState
    alive: jax.Array  # [] or [runs], False once a NaN has ended the training
    steps: int
    skipped: np.ndarray  # [] or [runs], how many steps were skipped as not finite
    bad: np.ndarray  # [] or [runs], the first step that was not finite, else −1


class FitResult(NamedTuple):
    """Result of :func:`fit`. With `runs`, arrays have a first axis of runs.

    Attributes:
      params: final params.
      opt_state: final state of the update.
      carry: final carry of a stateful rule, else None.
      values: [steps] ([runs, steps]), the loss of each step, before its update. Values
        after the step at which a NaN ended a run are NaN.
      steps: number of steps taken, including those before a resumption.
      interrupted: whether a signal or the end of the data ended the training early.
      seconds: time that this call spent in steps, without compilation and logging.
      compile_seconds: time that this call spent in compilation.
      temp_bytes: temporary memory of a chunk, None if XLA does not report the memory.
      stopped: why the training ended before the last step: "interrupt", "data", "stop"
        or "nonfinite"; None if the last step was taken.
      skipped: [] ([runs]), number of steps that were skipped as not finite.
      nonfinite_step: [] ([runs]), the first step that was not finite; −1 if none was.
      resumed_from: step of the checkpoint that the training resumed from, or None.
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
    """Losses of all steps so far, in an array allocated for all steps to come."""

    def __init__(self, steps: int, runs: int | None):
        self._shape = (steps,) if runs is None else (runs, steps)
        self._all = None

    def put(self, first: int, values: np.ndarray) -> None:
        """Store values [..., k] of k steps, beginning with step `first`."""
        if self._all is None:
            self._all = np.empty(self._shape, values.dtype)
        self._all[..., first : first + values.shape[-1]] = values

    def until(self, steps: int) -> np.ndarray:
        """Return the values of the first `steps` steps, as a view."""
        if self._all is None:
            return np.zeros((*self._shape[:-1], 0))
        return self._all[..., :steps]


def own(tree: PyTree) -> PyTree:
    """Copy each array of a tree into memory of its own, so that it may be donated."""

    def copy(leaf):
        leaf = jnp.array(leaf)
        # Drop weak types: they affect the dtypes of results, and checkpoints lose them.
        return leaf if is_key(leaf) else leaf.astype(leaf.dtype)

    return jax.tree.map(copy, tree)
