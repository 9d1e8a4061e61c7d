"""How to solve the adjoint equation (I − Jᵀ) z = b of a fixed point: as values.

Each is called with the map v ↦ (I − Jᵀ) v and b, and returns z with how it was found.
The same serves (I − J) v = b, for derivatives in forward mode. J itself, which would
have the size of the state squared, is never formed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers
from bpvariants.gradients._relaxation import (
    FixedPointInfo,
    largest,
    norm,
    relative,
    relax_to_fixed_point,
    times,
)
from bpvariants.types import PyTree


class Adjoint(Protocol):
    """A solver of (I − J) z = b, itself a pytree. `approximate` ones may end early."""

    approximate: ClassVar[bool]

    def __call__(
        self, matvec: Callable[[PyTree], PyTree], b: PyTree, batch_ndim: int
    ) -> tuple[PyTree, FixedPointInfo]:
        """Return z, and how each example [*batch] was solved."""
        ...


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class relax:
    """Exact adjoint by relaxation, z ← (1 − τ) z + τ (Jᵀ z + b) from z = b.

    It converges exactly where the forward relaxation of the same damping does, at the
    same rate; memory is that of a few states and of one evaluation's derivative, time
    that of a backward pass through one evaluation for each step.

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

    def __call__(self, matvec, b, batch_ndim):
        """Return z, and how each example [*batch] was solved."""
        size, b = _normalised(b, batch_ndim)
        subtract = lambda z, mz, b: z - mz + b
        z, info = relax_to_fixed_point(
            lambda z: jax.tree.map(subtract, z, matvec(z), b),
            b,
            lambda z: norm(b, batch_ndim),
            damping=self.damping,
            tol=self.tol,
            max_steps=self.max_steps,
            batch_ndim=batch_ndim,
        )
        return times(size, z), info


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

    def __call__(self, matvec, b, batch_ndim):
        """Return z, and how each example [*batch] was solved."""
        scale, b = _normalised(b, batch_ndim)
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


def _normalised(b: PyTree, batch_ndim: int) -> tuple[jax.Array, PyTree]:
    """Return a scale and b / scale, as the squares of tiny numbers would count as 0."""
    size = largest(b, batch_ndim)
    size = jnp.where(size == 0, 1, size)
    return size, times(1 / size, b)


def check_relaxation(damping: Any, tol: Any, max_steps: Any) -> None:
    """Check the settings of a relaxation, those that are Python numbers."""
    if are_numbers(damping) and not 0 < damping <= 1:
        raise ValueError(f"damping must lie in 0 < damping <= 1, got {damping}.")
    if are_numbers(tol) and not tol > 0:
        raise ValueError(f"tol must be positive, such as 1e-5, got {tol}.")
    if are_numbers(max_steps) and not max_steps >= 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
