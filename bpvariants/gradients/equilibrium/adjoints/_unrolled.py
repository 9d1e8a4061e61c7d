"""Backpropagation through a few steps of relaxation that start at the fixed point.

From a fixed point h* of f, K steps with damping τ lead to the state h_K. The gradient
dE/dθ of a loss E of h_K is computed by backpropagation through these K steps:

    h_0 = h*,    h_{k+1} = (1 − τ) h_k + τ f(θ, h_k, x)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import check_count
from bpvariants._examples import norm, normalised, relative, times
from bpvariants.gradients.equilibrium._protocols import check_no_start
from bpvariants.gradients.equilibrium._rounding import reachable
from bpvariants.gradients.equilibrium._solution import FixedPointInfo
from bpvariants.gradients.equilibrium._with_derivative_of import with_derivative_of
from bpvariants.gradients.equilibrium.solvers._relaxation import check_relaxation
from bpvariants.types import PyTree


@register_dataclass
@dataclass(frozen=True)
class unrolled:
    """Approximate adjoint by backpropagation through K steps from a constant h*.

    The adjoint is z = τ Σ_{k<K} ((1 − τ) I + τ Jᵀ)^k b, where b is the cotangent of the
    fixed point h*, J is the Jacobian of f at h*, and τ is the damping. The gradient
    that follows from z is called the phantom gradient. With τ = 1, `neumann(K − 1)`
    gives the same z. With this class, :func:`fixed_point` differentiates the K steps
    themselves and solves no adjoint equation. So the gradients of this class can be
    used to check those of other adjoint solvers.

    Reverse mode takes the time and memory of K evaluations of f and their backward
    passes. Forward mode differentiates the same K steps, and is the transpose of
    reverse mode. Second derivatives are also those of the K steps. First and second
    derivatives differ from the exact ones by about ρ^K, where ρ is the spectral radius
    of (1 − τ) I + τ J. With this class, :func:`recurrent_backprop` computes z as a sum,
    and stores no iterates.

    Args:
      steps: K, the number of steps, at least 1.
      damping: damping τ of the K steps, 0 < τ ≤ 1; 1 is undamped.
      tol: largest residual, relative to ‖b‖, that `info` reports as converged.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> import jax
      >>> from bpvariants import gradients
      >>> f = lambda w, h, x: w * h + x  # h* = x / (1 − w)
      >>> solve = lambda w: gradients.fixed_point(
      ...     f, w, 0.0, 1.0, adjoint=gradients.adjoints.unrolled(2)
      ... )[0]
      >>> round(jax.grad(solve)(0.5).item(), 4)  # h* (1 + w), of h* / (1 − w)
      3.0

    References:
      Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE
      78, 1990, doi:10.1109/5.58337. Geng et al., "On training implicit models", 2021,
      arXiv:2111.05177 (phantom gradients).
    """

    steps: int = field(metadata={"static": True})
    damping: float | jax.Array = 1.0
    tol: float | jax.Array = 1e-5
    approximate: ClassVar[bool] = True

    def __post_init__(self):
        """Check the settings."""
        check_count("steps", self.steps)
        check_relaxation(self.damping, self.tol, 1)

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z and its convergence report, of arrays [*batch]."""
        check_no_start(self, start)
        scale, b = normalised(b, batch_ndim)
        residual_of = lambda z: jax.tree.map(jnp.subtract, b, matvec(z))
        zeros = jax.tree.map(jnp.zeros_like, b)
        z = jax.lax.fori_loop(
            0, self.steps, lambda _, z: self._damp(z, residual_of(z)), zeros
        )
        residual = relative(norm(residual_of(z), batch_ndim), norm(b, batch_ndim))
        steps = jnp.full(residual.shape, self.steps, jnp.int32)
        converged = residual <= reachable(self.tol, b, residual.dtype)
        radius = residual ** (1 / self.steps)
        no = jnp.zeros_like(converged)
        info = FixedPointInfo(
            steps, residual, converged, radius, no, jnp.ones_like(radius), no
        )
        return times(scale, z), info

    def through(self, g: Callable[[PyTree], PyTree], h: PyTree) -> PyTree:
        """Return h with the derivative of K steps of g that start at a constant h."""

        def step(moved: PyTree, _: Any):
            difference = jax.tree.map(jnp.subtract, g(moved), moved)
            return self._damp(moved, difference), None

        h = jax.lax.stop_gradient(h)
        moved = jax.lax.scan(step, h, length=self.steps)[0]
        return with_derivative_of(moved, h)

    def _damp(self, h: PyTree, difference: PyTree) -> PyTree:
        damped = lambda h, d: h + jnp.asarray(self.damping, h.dtype) * d
        return jax.tree.map(damped, h, difference)
