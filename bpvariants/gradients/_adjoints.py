"""How to solve the adjoint equation (I − Jᵀ) z = b of a fixed point: as values.

Each is called with the map v ↦ (I − Jᵀ) v and b, and returns z with how it was found.
The same serves (I − J) v = b, for derivatives in forward mode. J itself, which would
have the size of the state squared, is never formed.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._masking import select
from bpvariants.gradients._examples import norm, normalised, relative, times
from bpvariants.gradients._iteration import FixedPointInfo
from bpvariants.gradients._relaxation import check_relaxation, relaxation
from bpvariants.gradients._solvers import check_no_start, solve_linear


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class relax:
    """Exact adjoint by relaxation, z ← (1 − τ) z + τ (Jᵀ z + b) from z = b.

    It converges exactly where the forward relaxation of the same damping does, at the
    same rate; memory is that of a few states and of one evaluation's derivative, time
    that of a backward pass through one evaluation for each step.

    Where it has not converged after max_steps, z is the last iterate, which is linear
    in b: with τ = 1 the sum Σ (Jᵀ)^k b over k < max_steps, as of :class:`neumann`.
    Where it grows, as it does for ρ(J) > 1, z is the first iterate, b.

    Args:
      damping: τ, 0 < τ ≤ 1.
      tol: largest residual ‖b − (I − Jᵀ) z‖ / ‖b‖ that counts as converged.
      max_steps: after how many steps to give up.

    Raises:
      ValueError: if a number is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> solve = gradients.relax(tol=1e-6)
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

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z, and how each example [*batch] was solved."""
        solver = relaxation(self.damping, self.tol, self.max_steps)
        size, outcome = solve_linear(solver, matvec, b, batch_ndim, start)
        (first, first_info), (last, info) = outcome.first, outcome.last
        info = jax.tree.map(partial(jnp.where, outcome.lost), first_info, info)
        return times(size, select(outcome.lost, first, last)), info


@register_dataclass
@dataclass(frozen=True)
class neumann:
    """Approximate adjoint by a truncated Neumann series, z = Σ_{k=0..K} (Jᵀ)^k b.

    Biased: its residual is (Jᵀ)^{K+1} b, which shrinks like ρ(J)^{K+1}. It is the
    gradient of K + 1 steps of backpropagation through time at the fixed point; K = 0 is
    Jacobian-free backpropagation. Time is that of K + 1 backward passes through one
    evaluation, the last of which tells the residual and is left out where nobody asks.

    Args:
      terms: K, how many terms after the first, at least 0.
      tol: largest residual, relative to ‖b‖, that `info` reports as converged.

    Raises:
      ValueError: if terms is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> solve = gradients.neumann(2)
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
        if not isinstance(self.terms, int) or self.terms < 0:
            raise ValueError(
                f"terms must be an integer of at least 0, got {self.terms!r}."
            )

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z, and how each example [*batch] was solved."""
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
        info = FixedPointInfo(steps, residual, residual <= self.tol, radius)
        return times(scale, z), info


def jfb(tol: float = 1e-5) -> neumann:
    """Jacobian-free backpropagation, the approximate adjoint z = b: `neumann(0)`.

    The gradient is that of one evaluation at h*, which is a direction of descent where
    f is contraction enough, at the cost of one backward pass.

    Args:
      tol: largest residual ‖Jᵀ b‖ / ‖b‖ that `info` reports as converged.

    Returns:
      The adjoint, a value.

    Example:
      >>> import jax
      >>> from bpvariants import gradients
      >>> f = lambda w, x, h: w * h + x  # h* = x / (1 − w)
      >>> solve = lambda w: gradients.fixed_point(
      ...     f, w, 1.0, 0.0, adjoint=gradients.jfb()
      ... )[0]
      >>> round(jax.grad(solve)(0.5).item(), 4)  # h*, of the exact h* / (1 − w)
      2.0

    References:
      Fung et al., "JFB: Jacobian-free backpropagation for implicit networks", AAAI
      2022, arXiv:2103.12803.
    """
    return neumann(0, tol)
