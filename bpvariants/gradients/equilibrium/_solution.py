"""Results of fixed-point solvers: the convergence report, and the pair (h*, report)."""

from typing import Any, NamedTuple, NoReturn

import jax

from bpvariants.types import PyTree

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
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    spectral_radius: jax.Array
    krylov: jax.Array | bool = False
    damping: jax.Array | float = 1.0


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
