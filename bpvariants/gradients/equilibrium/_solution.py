"""Results of solvers: the report of convergence, and the pair (h*, info)."""

from typing import Any, NamedTuple, NoReturn

import jax

from bpvariants.types import PyTree

UNPACK = (
    "fixed_point returns the pair (h, info), not h alone. Write "
    "`h, info = gradients.fixed_point(…)`, or take `.h` of the result."
)


class FixedPointInfo(NamedTuple):
    """Convergence report of a fixed-point solver, arrays [*batch].

    It is returned because compiled code cannot raise errors.

    Attributes:
      steps: number of evaluations of the map, without those of the test for rounding.
      residual: ‖g(h) − h‖ of the returned iterate, relative to the solver's scale.
      converged: bool, whether the residual is within the tolerance, or as low as the
        rounding errors of the map allow; then `residual` is above the tolerance. The
        error is up to residual / (1 − spectral_radius).
      spectral_radius: estimate of the factor by which a step shrinks the error. For
        relaxation with damping 1, it estimates the spectral radius of the Jacobian. At
        1 or more, the iteration does not converge.
      krylov: bool, whether conjugate gradients took over from the method because it
        failed, which only the default adjoint does. Then `steps` counts the steps of
        both, and `spectral_radius` is the factor of conjugate gradients.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    spectral_radius: jax.Array
    krylov: jax.Array | bool = False


class Outcome(NamedTuple):
    """Three of the iterates, each with its :class:`FixedPointInfo`."""

    first: tuple[PyTree, FixedPointInfo]
    best: tuple[PyTree, FixedPointInfo]  # with the lowest ‖g(h) − h‖, or converged
    last: tuple[PyTree, FixedPointInfo]
    lost: jax.Array  # bool [*batch], whether it grew too much or was not finite


def _is_no_array(self: Any, *_: Any) -> NoReturn:
    raise TypeError(UNPACK)


class FixedPoint(NamedTuple):
    """Result of :func:`fixed_point`, to be unpacked as `h, info`.

    It is no array: arithmetic on it raises a TypeError that says so.
    """

    h: PyTree  # h*, leaves [*batch, ...]
    info: FixedPointInfo  # arrays [*batch]

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _is_no_array
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = _is_no_array
    __pow__ = __rpow__ = __neg__ = __abs__ = _is_no_array
    __jax_array__ = _is_no_array  # called by the functions of jax.numpy
    # Comparisons keep the meaning that they have for tuples.

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"no attribute {name!r}: {UNPACK}")
