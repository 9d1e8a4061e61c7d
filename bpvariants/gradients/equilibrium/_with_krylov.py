"""The default adjoint: the solver's method, and conjugate gradients if it fails."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jax.tree_util import register_dataclass


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class with_krylov:
    """Exact adjoint by a method, and by conjugate gradients for examples it fails for.

    The gradient is well defined if I − J is invertible. So it is found even if the
    adjoint does not contract. In `info`, `krylov` says for each example which it was.

    Args:
      method: the adjoint solver `relaxation`, `anderson` or `broyden`.
    """

    method: Any
    approximate: ClassVar[bool] = False

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its info, of arrays [*batch]."""
        return self.method(matvec, b, batch_ndim, start, krylov=True)
