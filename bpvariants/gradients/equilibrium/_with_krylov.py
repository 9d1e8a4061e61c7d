"""Default adjoint solver: the solver's method, and conjugate gradients if it fails."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jax.tree_util import register_dataclass


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class with_krylov:
    """Exact adjoint by `method`; if it fails for an example, by conjugate gradients.

    The gradient is well defined if I − J is invertible, where J is the Jacobian of the
    map. For an invertible I − J, conjugate gradients can find the adjoint even if the
    iteration of `method` does not contract. `info.krylov` says which examples conjugate
    gradients solved.

    Args:
      method: adjoint solver that is tried first: `relaxation`, `anderson` or `broyden`.
    """

    method: Any
    approximate: ClassVar[bool] = False

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its convergence report, of arrays [*batch]."""
        return self.method(matvec, b, batch_ndim, start, krylov=True)
