"""State and result of a training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import is_key
from bpvariants._pictures import axes_for, draw_losses
from bpvariants._tables import aligned, in_short, short
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
    stopped: str | None
    skipped: Any
    nonfinite_step: Any
    resumed_from: int | None

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def table(self, most: int = 10) -> str:
        """Return a text table of the losses, before the update of each step shown.

        With `runs`, the table has the mean, the lowest and the highest loss of the
        runs. The last lines have times, memory, and why the training ended early.

        Args:
          most: largest number of steps in the table; they are evenly spaced, and
            include the first and the last step.
        """
        values = np.asarray(self.values)
        count = values.shape[-1]
        shown = np.unique(
            np.linspace(0, count - 1, min(most, count)).round().astype(int)
        )
        if values.ndim == 1:
            rows = [["step", "loss"]] + [[str(i + 1), short(values[i])] for i in shown]
        else:
            rows = [["step", "mean loss", "lowest", "highest"]]
            measures = np.mean(values, 0), np.min(values, 0), np.max(values, 0)
            rows += [
                [str(i + 1), *(short(each[i]) for each in measures)] for i in shown
            ]
        return "\n".join([aligned(rows), *self._remarks()])

    def plot(self, axes: Any = None) -> Any:
        """Draw the loss of each step; with `runs`, also the median of the runs.

        If all losses are positive, and the highest is more than 10 times the lowest,
        the scale of the losses is logarithmic. `plot` needs Matplotlib.

        Args:
          axes: Matplotlib axes to draw into. Default: the axes of a new pyplot figure.

        Returns:
          The Matplotlib axes of the picture.

        Example:
          >>> import jax, optax
          >>> from matplotlib.figure import Figure
          >>> from bpvariants import training
          >>> rule = jax.value_and_grad(lambda w: (w**2, None), has_aux=True)
          >>> result = training.fit(rule, optax.sgd(0.4), 1.0, (), steps=5)
          >>> result.plot(Figure().subplots()).get_yscale()
          'log'
        """
        axes = axes_for("result.plot", axes)
        values = np.asarray(self.values, float)
        draw_losses(axes, np.arange(1, values.shape[-1] + 1), values)
        if values.ndim > 1:
            axes.legend(frameon=False)
        return axes

    def _words(self) -> str:
        values = np.asarray(self.values)
        many = values.ndim > 1
        runs = f"{values.shape[0]} runs of " * many
        words = [f"{runs}{self.steps} step{'s' * (self.steps != 1)}"]
        if values.shape[-1]:
            ends = (short(np.mean(values[..., i])) for i in (0, -1))
            words.append(f"{'mean ' * many}loss {' → '.join(ends)}")
        return ", ".join([*words, *self._remarks()])

    def _remarks(self) -> list[str]:
        remarks = [
            f"{short(self.seconds)} s of training, {short(self.compile_seconds)} s of "
            "compilation"
        ]
        if self.temp_bytes is not None:
            remarks.append(f"{self.temp_bytes} bytes of temporary memory")
        if self.stopped is not None:
            remarks.append(f"stopped: {self.stopped!r}")
        if np.any(self.skipped):
            remarks.append(f"{int(np.sum(self.skipped))} steps skipped because of NaN")
        if self.resumed_from is not None:
            remarks.append(f"resumed from step {self.resumed_from}")
        return remarks


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
