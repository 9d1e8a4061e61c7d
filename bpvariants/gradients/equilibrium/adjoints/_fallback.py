"""Two adjoint solvers, of which the second solves what the first does not."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._masking import select
from bpvariants.gradients.equilibrium._protocols import Adjoint


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class fallback:
    """Exact adjoint by one solver, and by another for examples where the first fails.

    The default of :func:`fixed_point`, with on_failure="nan", is of this kind: first
    the method of the solver, then :class:`cg`. The gradient is well defined if I − J is
    invertible, and so it is found even if the adjoint does not contract. If both fail
    for an example, z and its residual are those of the first solver.

    In `info`, `steps` counts the steps of both solvers, and `spectral_radius` is the
    estimate of the first. So an example that has converged, with a `spectral_radius` of
    1 or more, was solved by the second. If the first solver succeeds everywhere, the
    second is not run.

    Args:
      first: adjoint solver for all examples.
      second: adjoint solver for examples where `first` did not converge.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> relaxation, cg = gradients.adjoints.relaxation(), gradients.adjoints.cg()
      >>> solve = gradients.adjoints.fallback(relaxation, cg)
      >>> z, info = solve(lambda v: v + v, jnp.array(1.0), 0)  # I − Jᵀ = 2
      >>> z.item(), info.converged.item(), info.spectral_radius.item()
      (0.5, True, 1.0)
    """

    first: Adjoint
    second: Adjoint
    approximate: ClassVar[bool] = False

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its info, of arrays [*batch]."""
        options = {} if start is None else {"start": start}
        z, info = self.first(matvec, b, batch_ndim, **options)

        def solve_rest(b):
            rest = select(info.converged, jax.tree.map(jnp.zeros_like, b), b)
            other, report = self.second(matvec, rest, batch_ndim)
            solved = ~info.converged & report.converged
            return select(solved, other, z), info._replace(
                steps=info.steps + jnp.where(info.converged, 0, report.steps),
                residual=jnp.where(solved, report.residual, info.residual),
                converged=info.converged | solved,
            )

        done = jnp.all(info.converged)
        return jax.lax.cond(done, lambda b: (z, info), solve_rest, b)
