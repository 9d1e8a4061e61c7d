"""Adjoint by a linear solver of lineax, an optional package."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import check_limits, described
from bpvariants._dtypes import cast_like, widen
from bpvariants._examples import norm, normalised, relative, times
from bpvariants.gradients.equilibrium._protocols import check_no_start
from bpvariants.gradients.equilibrium._rounding import check_linear, reachable
from bpvariants.gradients.equilibrium._solution import FixedPointInfo


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class linear_solver:
    """Exact adjoint: solve (I − Jᵀ) z = b by a linear solver of lineax.

    z is the adjoint, b is the cotangent of the fixed point, and J is the Jacobian of f
    at the fixed point. The residual of each example is computed from z, not taken from
    the report of lineax. If the solver of lineax fails, no error is raised. The
    equations of all examples are solved as one system. So for B examples of n elements,
    a direct solver such as LU forms a matrix [B n, B n]. For many examples, use an
    iterative solver, or apply `jax.vmap` to :func:`fixed_point`.

    Args:
      solver: a solver of lineax, such as `lineax.GMRES(rtol=1e-8, atol=1e-8)`.
      tol: largest residual ‖b − (I − Jᵀ) z‖ / ‖b‖ that counts as converged.

    Raises:
      ValueError: if solver is None, a name or a class, or tol is not positive; when the
        adjoint is computed, if lineax is not installed.

    Example:
      >>> import lineax  # doctest: +SKIP
      >>> from bpvariants import gradients
      >>> adjoint = gradients.adjoints.linear_solver(lineax.LU())  # doctest: +SKIP
      >>> f = lambda w, h, x: w * h + x
      >>> solve = lambda w: gradients.fixed_point(  # doctest: +SKIP
      ...     f, w, 0.0, 1.0, adjoint=adjoint
      ... )[0]

    References:
      Rader, Lyons & Kidger, "Lineax: unified linear solves and linear least-squares in
      JAX and Equinox", 2023, arXiv:2311.17283.
    """

    solver: Any
    tol: float | jax.Array = 1e-5
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        if self.solver is None or isinstance(self.solver, str | type):
            raise ValueError(
                "solver must be a solver of lineax, such as lineax.LU() or "
                f"lineax.GMRES(rtol=1e-8, atol=1e-8); got {described(self.solver)}. "
                "gradients.adjoints.cg() needs no other package."
            )
        check_limits(self.tol, 1)

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its convergence report, of arrays [*batch]."""
        lineax = _lineax(self.solver)
        check_no_start(self, start)
        scale, b = normalised(b, batch_ndim)
        wide = widen(b)  # lineax takes no bfloat16 or float16
        in_wide = lambda v: widen(matvec(cast_like(v, b)))
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wide
        )
        operator = lineax.FunctionLinearOperator(in_wide, like)
        solution = lineax.linear_solve(operator, wide, self.solver, throw=False)
        z = cast_like(solution.value, b)
        left, reached = check_linear(matvec, b, z, batch_ndim)
        residual = relative(left, norm(b, batch_ndim))
        taken = solution.stats.get("num_steps")  # direct solvers have none
        taken = 1 if taken is None else taken
        steps = jnp.broadcast_to(jnp.asarray(taken, jnp.int32), residual.shape)
        converged = (residual <= reachable(self.tol, b, residual.dtype)) | reached
        radius = residual ** (1 / jnp.maximum(steps, 1).astype(residual.dtype))
        no = jnp.zeros_like(converged)
        info = FixedPointInfo(
            steps, residual, converged, radius, no, jnp.ones_like(radius), no
        )
        return times(scale, z), info


def _lineax(solver: Any) -> Any:
    try:
        import lineax  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"solver must be one of lineax, got {solver!r}, and lineax is not "
            "installed; install it by `pip install lineax`, or use "
            "gradients.adjoints.cg(), which needs no other package and no contraction."
        ) from error
    return lineax
