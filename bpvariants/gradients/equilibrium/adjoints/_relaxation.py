"""Relaxation of the adjoint: an iteration of the linearised network run backwards."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._examples import times
from bpvariants._masking import select
from bpvariants._settings import check_number
from bpvariants.gradients.equilibrium._protocols import solve_linear
from bpvariants.gradients.equilibrium.solvers._relaxation import (
    check_relaxation,
    relaxation as forward_relaxation,
)


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class relaxation:
    """Exact adjoint by relaxation, z ← (1 − τ) z + τ (Jᵀ z + b) from z = b.

    z is the adjoint, b is the cotangent of the fixed point, J is the Jacobian of f at
    the fixed point, and τ is the damping. The iteration converges under the same
    condition as the forward relaxation with the same damping, and at the same rate.
    The memory holds a few states, and the values that one backward pass through f
    needs. Each step takes one backward pass through one evaluation of f.

    If the iteration has not converged after max_steps steps, z is the last iterate,
    which is linear in b. With τ = 1 and the Jacobian J of f, the last iterate is the
    sum Σ (Jᵀ)^k b over k < max_steps, as in :class:`neumann`. If the iterates diverge,
    z is the first iterate: b, or the start if one is given. With τ = 1, the iterates
    diverge if the spectral radius of J is above 1.

    Args:
      damping: damping τ, 0 < τ ≤ 1; 1 is undamped.
      tol: largest residual ‖b − (I − Jᵀ) z‖ / ‖b‖ that counts as converged.
      max_steps: maximum number of steps.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> solve = gradients.adjoints.relaxation(tol=1e-6)
      >>> z, info = solve(lambda v: v - 0.5 * v, jnp.array(1.0), 0)
      >>> round(z.item(), 5), info.steps.item(), info.converged.item()
      (2.0, 20, True)

    References:
      Almeida, Proc. ICNN, San Diego 1987. Pineda, "Generalization of back-propagation
      to recurrent neural networks", Physical Review Letters 59, 1987,
      doi:10.1103/PhysRevLett.59.2229.
    """

    damping: float | jax.Array = 1.0
    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_relaxation(self.damping, self.tol, self.max_steps)

    def __call__(self, matvec, b, batch_ndim, start=None, krylov=False):
        """Return z and its convergence report, of arrays [*batch]."""
        check_number("damping", self.damping, remedy="1 is undamped")
        solver = forward_relaxation(self.damping, self.tol, self.max_steps)
        size, outcome = solve_linear(solver, matvec, b, batch_ndim, start, krylov)
        (first, first_info), (last, info) = outcome.first, outcome.last
        info = jax.tree.map(partial(jnp.where, outcome.lost), first_info, info)
        return times(size, select(outcome.lost, first, last)), info
