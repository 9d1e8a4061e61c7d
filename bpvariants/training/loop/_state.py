"""State and result of a training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_key
from bpvariants.types import PyTree


class TrainState(NamedTuple):
    """State of a training between two steps; with `runs`, leaves are [runs, ...]."""

    params: PyTree
    opt_state: PyTree
    carry: PyTree  # None if the rule takes no carry


class Reached(NamedTuple):
    """State and counts of a training, in a tuple that is replaced after each chunk."""

    state: TrainState
    alive: jax.Array  # [] or [runs]: False after NaN has ended the run
    steps: int
    skipped: np.ndarray  # [] or [runs]: number of skipped steps
    bad: np.ndarray  # [] or [runs]: index of the first step with NaN, or −1


class FitResult(NamedTuple):
    """Result of :func:`fit`. With `runs`, arrays have a first axis of runs.

    Attributes:
      params: final params.
      opt_state: final state of the update.
      carry: final carry of the rule; None if the rule takes no carry.
      values: [steps], or [runs, steps]: the loss of each training step, before the
        step's update. If NaN ended a run, the values of later steps are NaN.
      steps: number of training steps taken, including those before a resumption.
      interrupted: whether Ctrl-C, SIGTERM or the end of the data ended the training
        before the last step.
      seconds: time that this call of `fit` spent in training steps, without compilation
        and logging.
      compile_seconds: time that this call of `fit` spent in compilation.
      temp_bytes: temporary memory in bytes that a chunk of steps needs; None if XLA
        does not report it.
      stopped: why the training ended before the last step: "interrupt", "data", "stop"
        or "nonfinite"; None if the last step was taken.
      skipped: [], or [runs]: number of steps that were skipped because of NaN or
        infinity.
      nonfinite_step: [], or [runs]: index of the first step with NaN or infinity; −1 if
        there was none.
      resumed_from: step of the checkpoint from which the training resumed, or None.
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
    """Losses of the steps so far, in an array that has space for all steps."""

    def __init__(self, steps: int, runs: int | None):
        self._shape = (steps,) if runs is None else (runs, steps)
        self._all = None

    def put(self, first: int, values: np.ndarray) -> None:
        """Store the losses [..., k] of the k steps that begin with step `first`."""
        if self._all is None:
            self._all = np.empty(self._shape, values.dtype)
        self._all[..., first : first + values.shape[-1]] = values

    def until(self, steps: int) -> np.ndarray:
        """Return the losses of the first `steps` steps, as a view of the array."""
        if self._all is None:
            return np.zeros((*self._shape[:-1], 0))
        return self._all[..., :steps]


def own(tree: PyTree) -> PyTree:
    """Return a tree with a copy of each array, so that the copies may be donated."""

    def copy(leaf):
        leaf = jnp.array(leaf)
        # Drop weak types, because checkpoints do not store them.
        return leaf if is_key(leaf) else leaf.astype(leaf.dtype)

    return jax.tree.map(copy, tree)
