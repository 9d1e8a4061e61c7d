"""Results of fixed-point solvers: the convergence report, and the pair (h*, report)."""

from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from bpvariants._pictures import axes_for, draw_convergence
from bpvariants._tables import convergence, in_short, short, table_of_examples
from bpvariants.types import PyTree

ADVICE = (
    "Where spectral_radius is below 1, give more steps: max_steps=. Where it is 1 or "
    "more,\nuse solver=gradients.solvers.anderson(), or limit the weights by "
    "updates.project_spectral_norm."
)
UNPACK = (
    "fixed_point returns the pair (h, info), not h alone. Write "
    "`h, info = gradients.fixed_point(…)`, or take `.h` of the result."
)


class FixedPointInfo(NamedTuple):
    """Convergence report of a fixed-point solver; each field is an array [*batch].

    The report is returned because compiled code cannot raise errors.

    Attributes:
      steps: number of evaluations of the map. Evaluations that only measure rounding
        errors are not counted.
      residual: ‖g(h) − h‖ / ‖h‖, where g is the map and h is the returned iterate. If
        ‖h‖ is below atol / tol, ‖g(h) − h‖ is divided by atol / tol instead. For an
        adjoint z, the residual is the norm of b − A z for its linear equation A z = b,
        divided by ‖b‖.
      converged: bool, whether the residual is within the tolerance, or is above it only
        because of rounding errors of the map. The relative error of the returned
        iterate is up to residual / (1 − spectral_radius).
      spectral_radius: estimate of the factor by which one step of the solver multiplies
        the error of the iterate. For relaxation with damping 1, it estimates the
        spectral radius of the Jacobian. If it is 1 or more, the iteration does not
        converge.
      krylov: bool, whether the solver's own method failed and conjugate gradients took
        over. Only the default adjoint solver uses conjugate gradients. If they took
        over, `steps` counts the steps of both methods, and `spectral_radius` is that of
        conjugate gradients.
      damping: the damping τ of the last step of a relaxation; 1 for the other solvers.
        If the caller gave no damping, a τ below 1 shows that the relaxation oscillated
        and was slowed down.
      accelerated: bool, whether the last steps were those of Anderson acceleration. Of
        the solvers, `auto` chooses between relaxation and Anderson acceleration for
        each example.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    spectral_radius: jax.Array
    krylov: jax.Array | bool = False
    damping: jax.Array | float = 1.0
    accelerated: jax.Array | bool = False

    def __repr__(self) -> str:
        return in_short(self, self._words)

    def table(self, most: int = 20) -> str:
        """Return a text table with a line for each example; does not work under `jit`.

        If an example has not converged, the last lines say what to do.

        Args:
          most: largest number of lines; if there are more examples, those with the
            largest residuals are shown.
        """
        text = table_of_examples(self._asdict(), most)
        failed = int(np.sum(~np.asarray(self.converged)))
        which = f"{failed} of {np.size(self.converged)} examples did"
        which = which if np.ndim(self.converged) else "The example did"
        return text + f"\n{which} not converge. {ADVICE}" * (failed > 0)

    def plot(self, axes: Any = None) -> Any:
        """Draw a point for each example: its number of steps, and its residual.

        `plot` needs Matplotlib, and does not work under `jit`.

        Args:
          axes: Matplotlib axes to draw into. Default: the axes of a new pyplot figure.

        Returns:
          The Matplotlib axes of the picture.

        Example:
          >>> import jax.numpy as jnp
          >>> from matplotlib.figure import Figure
          >>> from bpvariants import gradients
          >>> halve = lambda w, h, x: h / 2 + x
          >>> h, info = gradients.fixed_point(halve, 0.0, jnp.zeros(2), jnp.ones(2))
          >>> info.converged.item(), info.plot(Figure().subplots()).get_yscale()
          (True, 'log')
        """
        axes = axes_for("info.plot", axes)
        draw_convergence(axes, self.steps, self.residual, self.converged, "steps")
        return axes

    def _words(self) -> str:
        words = convergence(self.steps, self.residual, self.converged, "steps")
        taken = int(np.sum(np.asarray(self.krylov)))
        words += f", conjugate gradients in {taken}" * (taken > 0)
        fast = int(np.sum(np.asarray(self.accelerated)))
        words += f", accelerated in {fast}" * (fast > 0)
        least = float(np.min(np.asarray(self.damping), initial=1.0))
        return words + (f", damping {short(least)}" if least < 1 else "")


class Outcome(NamedTuple):
    """First, best and last iterate of a solver, each with a :class:`FixedPointInfo`."""

    first: tuple[PyTree, FixedPointInfo]
    best: tuple[PyTree, FixedPointInfo]  # converged iterate, or that of lowest residual
    last: tuple[PyTree, FixedPointInfo]
    lost: jax.Array  # bool [*batch]: whether the residual grew too much or became NaN


def _is_no_array(self: Any, *_: Any) -> NoReturn:
    raise TypeError(UNPACK)


class FixedPoint(NamedTuple):
    """Result of :func:`fixed_point`: a pair, to be unpacked as `h, info`.

    The pair is not an array: arithmetic on it raises a TypeError that says so.
    """

    h: PyTree  # the fixed point h*, leaves [*batch, ...]
    info: FixedPointInfo  # convergence report, arrays [*batch]

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _is_no_array
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = _is_no_array
    __pow__ = __rpow__ = __neg__ = __abs__ = _is_no_array
    __jax_array__ = _is_no_array  # jax.numpy calls this method
    # Comparisons keep the meaning that they have for tuples.

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"no attribute {name!r}: {UNPACK}")
