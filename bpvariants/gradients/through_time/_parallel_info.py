"""Information on a run of `parallel_unroll`, with a table and a picture."""

from typing import Any, NamedTuple

import jax
import numpy as np

from bpvariants._pictures import axes_for, draw_convergence
from bpvariants._tables import convergence, in_short, table_of_examples
from bpvariants.types import PyTree


class ParallelInfo(NamedTuple):
    """Information on one run of :func:`parallel_unroll`, for each example.

    All fields except carries have shape [*batch], with batch_ndim axes.

    Attributes:
      steps: number of iterations; 1 with method "linear"; 0 if method "auto" chose to
        run the network step by step.
      residual: largest |f(θ, h_{t−1}, x_t) − h_t| along the returned trajectory, where
        f(θ, h_{t−1}, x_t) is the carry that the step computes.
      converged: bool, whether the parallel method found the trajectory: "linear" up to
        rounding, "newton" up to its tolerance.
      fell_back: bool, whether the network was run step by step because the parallel
        method failed.
      carries: h_1 … h_T, leaves [T, *batch, ...]. A later call with similar arguments
        can take `carries` as its `guess`.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    fell_back: jax.Array
    carries: PyTree

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def table(self, most: int = 20) -> str:
        """Return a text table with a line for each example; does not work under `jit`.

        Args:
          most: largest number of lines; if there are more examples, those with the
            largest residuals are shown.
        """
        return table_of_examples(
            dict(zip(self._fields[:4], self[:4], strict=True)), most
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw a point for each example: its number of iterations, and its residual.

        `plot` needs Matplotlib, and does not work under `jit`.

        Args:
          axes: Matplotlib axes to draw into. Default: the axes of a new pyplot figure.

        Returns:
          The Matplotlib axes of the picture.
        """
        axes = axes_for("info.plot", axes)
        draw_convergence(axes, self.steps, self.residual, self.converged, "iterations")
        return axes

    def _words(self) -> str:
        words = convergence(self.steps, self.residual, self.converged, "iterations")
        fell = int(np.sum(np.asarray(self.fell_back)))
        return words + f", {fell} run step by step" * (fell > 0)
