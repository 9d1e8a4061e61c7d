"""Tolerances at which several solvers reach the same error.

Solvers of different libraries stop by different criteria: by the norm of the residual
or by its largest element, relative or absolute, and with their own tolerance for the
adjoint. With equal tolerances their results are not equally good. Therefore each solver
gets the loosest tolerance with which its error is at most a given target.
"""

from collections.abc import Callable
from typing import NamedTuple

WITHIN = 2.0  # errors of compared solvers differ at most by this factor
STEP = 1.25  # factor between the tolerances that are tried
FIRST, LOOSEST = 3e-3, 3e-1
MOST = 20  # largest number of large steps


class Tuned(NamedTuple):
    """The tolerance of a solver, and the error of its result."""

    tol: float
    error: float

    def note(self, target: float) -> str:
        """Describe the error, and say if it is not within a factor of two."""
        words = f"error {self.error:.1e}"
        if self.error > target:
            return f"{words}; although {target:.0e} was asked for"
        if self.error * WITHIN < target:
            return f"{words}; no tolerance gives one nearer to {target:.0e}"
        return words


def tune(error_at: Callable[[float], float], target: float) -> Tuned:
    """Return the loosest tolerance whose error is at most `target`.

    The search goes up or down in large steps, then up again in small steps. If the
    error never falls to the target, the tolerance with the lowest error is returned.

    Args:
      error_at: function tol -> error of the result; NaN counts as infinite.
      target: largest error that is allowed.

    Example:
      >>> tuned = tune(lambda tol: 0.5 * tol, 1e-3)
      >>> 0.5e-3 < tuned.error <= 1e-3
      True
    """
    tried: dict[float, float] = {}

    def error(tol: float) -> float:
        if tol not in tried:
            found = error_at(tol)
            tried[tol] = found if found == found else float("inf")
        return tried[tol]

    low, large = FIRST, STEP**5
    while error(low) <= target and low * large <= LOOSEST:
        if error(low * large) > target:
            break
        low *= large
    while error(low) > target and len(tried) < MOST:
        low /= large
    if tried[low] > target:
        best = min(tried, key=lambda tol: tried[tol])
        return Tuned(best, tried[best])
    best = low
    for k in range(1, 5):
        if low * STEP**k > LOOSEST or tried[best] * WITHIN > target:
            break
        if error(low * STEP**k) <= target:
            best = low * STEP**k
    return Tuned(best, tried[best])
