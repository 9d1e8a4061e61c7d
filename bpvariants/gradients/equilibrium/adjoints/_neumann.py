"""Truncated Neumann series for the adjoint; Jacobian-free backpropagation (JFB).

An adjoint solver is called with the map v ↦ (I − Jᵀ) v and the cotangent b, where J is
the Jacobian of f at the fixed point. The adjoint solver returns z, which solves
(I − Jᵀ) z = b exactly or approximately, and a convergence report. For derivatives in
forward mode, the equation is (I − J) z = b instead. For a state of n elements, J has n²
entries; the matrix J is never formed.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import check_count
from bpvariants._examples import norm, normalised, relative, times
from bpvariants.gradients.equilibrium._protocols import check_no_start
from bpvariants.gradients.equilibrium._rounding import reachable
from bpvariants.gradients.equilibrium._solution import FixedPointInfo


@register_dataclass
@dataclass(frozen=True)
class neumann:
    """Approximate adjoint by a truncated Neumann series, z = Σ_{k=0..K} (Jᵀ)^k b.

    J is the Jacobian of f at the fixed point, and b is the cotangent of the fixed
    point. z is biased: its residual is (Jᵀ)^{K+1} b, which shrinks like the spectral
    radius of J to the power K + 1. The gradient equals that of backpropagation through
    K + 1 time steps in which the state stays at the fixed point. With K = 0, the method
    is Jacobian-free backpropagation. The method takes K + 1 backward passes through one
    evaluation of f. The last pass only computes the residual. Under jit, the last pass
    is left out if `info` is not used.

    Args:
      terms: K, the number of terms after the first, at least 0.
      tol: largest residual, relative to ‖b‖, that `info` reports as converged.

    Raises:
      ValueError: if terms is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> solve = gradients.adjoints.neumann(2)
      >>> z, info = solve(lambda v: v - 0.5 * v, jnp.array(1.0), 0)
      >>> z.item(), info.residual.item(), info.converged.item()  # 1 + 1/2 + 1/4
      (1.75, 0.125, False)

    References:
      Liao et al., "Reviving and improving recurrent back-propagation", 2018,
      arXiv:1803.06396. Fung et al., "JFB: Jacobian-free backpropagation for implicit
      networks", 2022, arXiv:2103.12803 (K = 0).
    """

    terms: int = field(metadata={"static": True})
    tol: float = 1e-5
    approximate: ClassVar[bool] = True

    def __post_init__(self):
        """Check the settings."""
        check_count("terms", self.terms, minimum=0)

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its convergence report, of arrays [*batch]."""
        check_no_start(self, start)
        scale, b = normalised(b, batch_ndim)
        transposed = lambda v: jax.tree.map(jnp.subtract, v, matvec(v))

        def add_term(_, term_and_sum):
            term, total = term_and_sum
            term = transposed(term)
            return term, jax.tree.map(jnp.add, total, term)

        term, z = jax.lax.fori_loop(0, self.terms, add_term, (b, b))
        size, last = norm(b, batch_ndim), norm(transposed(term), batch_ndim)
        residual = relative(last, size)
        steps = jnp.full(residual.shape, self.terms + 1, jnp.int32)
        radius = residual ** (1 / (self.terms + 1))
        converged = residual <= reachable(self.tol, b, residual.dtype)
        no = jnp.zeros_like(converged)
        info = FixedPointInfo(
            steps, residual, converged, radius, no, jnp.ones_like(radius), no
        )
        return times(scale, z), info


def jfb(tol: float = 1e-5) -> neumann:
    """Jacobian-free backpropagation, the approximate adjoint z = b: `neumann(0)`.

    z is the adjoint, and b is the cotangent of the fixed point h*. The gradient is that
    of one evaluation of f at a constant h*, and takes one backward pass. The negative
    gradient is a descent direction of the loss if f contracts strongly enough.

    Args:
      tol: largest residual ‖Jᵀ b‖ / ‖b‖ that `info` reports as converged.

    Returns:
      The adjoint solver, `neumann(0, tol)`.

    Example:
      >>> import jax
      >>> from bpvariants import gradients
      >>> f = lambda w, h, x: w * h + x  # h* = x / (1 − w)
      >>> solve = lambda w: gradients.fixed_point(
      ...     f, w, 0.0, 1.0, adjoint=gradients.adjoints.jfb()
      ... )[0]
      >>> round(jax.grad(solve)(0.5).item(), 4)  # h*, of the exact h* / (1 − w)
      2.0

    References:
      Fung et al., "JFB: Jacobian-free backpropagation for implicit networks", AAAI
      2022, arXiv:2103.12803.
    """
    return neumann(0, tol)
