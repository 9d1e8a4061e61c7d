"""Default adjoint solver: the solver's method, and conjugate gradients if it fails."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jax.tree_util import register_dataclass


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class with_krylov:
    """Exact adjoint by a method, and by conjugate gradients for examples it fails for.

    With the Jacobian J of the map, the gradient is well defined if I − J is invertible.
    Conjugate gradients can then find it even if the adjoint iteration does not
    contract. `info.krylov` says which examples conjugate gradients solved.

    Args:
      method: adjoint solver that is tried first: `relaxation`, `anderson` or `broyden`.
    """

    method: Any
    approximate: ClassVar[bool] = False

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its convergence report, of arrays [*batch]."""
        return self.method(matvec, b, batch_ndim, start, krylov=True)
