"""Reversible relaxation: a finite iteration whose backward pass recovers its states.

Notation: f is a map, θ its parameters, h_0 the start, N the number of steps, 0 < β < 1,
and E is a loss of the result h* = z_N. Two states y and z start at h_0 and take turns:

    y_{k+1} = (1 − β) y_k + β f(z_k),    z_{k+1} = (1 − β) z_k + β f(y_{k+1})

Both half steps can be inverted, so the backward pass recovers the states in reverse
order instead of storing them:

    z_k = (z_{k+1} − β f(y_{k+1})) / (1 − β),    y_k = (y_{k+1} − β f(z_k)) / (1 − β)

The adjoints start at ȳ = 0 and z̄ = ∂E/∂z_N. For k = N − 1, …, 0:

    ȳ ← ȳ + β f′(y_{k+1})ᵀ z̄,   θ̄ ← θ̄ + β (∂f/∂θ at y_{k+1})ᵀ z̄,   z̄ ← (1 − β) z̄
    z̄ ← z̄ + β f′(z_k)ᵀ ȳ,       θ̄ ← θ̄ + β (∂f/∂θ at z_k)ᵀ ȳ,       ȳ ← (1 − β) ȳ
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_count, check_limits
from bpvariants._settings import check_one_of
from bpvariants.gradients.equilibrium.adjoints._reversible_states import (
    fixed_point_states,
    FixedPoint,
    Floating,
)


@register_dataclass
@dataclass(frozen=True)
class reversible:
    """Exact gradient of a finite iteration, whose states are recovered, not stored.

    The iteration is its own solver. Two states y and z start at init and take N steps:

        y ← (1 − β) y + β f(θ, z, x),    z ← (1 − β) z + β f(θ, y, x)

    h is z after N steps. The backward pass computes the states again, from the last to
    the first. So only the last two states are stored, and by default one bit for each
    element and half step. The gradient is exact for the result of these N steps, also
    if they have not converged, so on_failure does not depend on `info.converged`. The
    derivative with respect to init is that of N steps, too.

    Prefer another adjoint solver if f contracts slowly, because N steps may not reach
    the fixed point. Prefer :func:`unrolled` or a scan if memory does not matter: they
    evaluate f less often. The forward pass takes 2 N evaluations of f, and the backward
    pass 2 N evaluations and 2 N backward passes; by default, it takes 2 N evaluations
    more. Only reverse mode exists.

    With state="floating", only two states are stored. But each inverse half step
    divides rounding errors by 1 − β, so in float32 a gradient often fails after a few
    tens of steps. At the same time, the adjoint decays. An example goes back until its
    adjoint is smaller than its rounding errors. If its state is lost before, the
    example has failed: a state is lost if it is twice as large as all states of the
    forward pass, or differs from init after the last inverse step. The product of the
    state's error and the adjoint's relative size must be at most tol. With
    on_failure="nan", gradients that depend on a failed example are NaN. With "truncate"
    and "ignore", its remaining terms are left out, so the gradient is biased.
    `equilibrium.adjoint` of :func:`recurrent_backprop` reports failures. A smaller β or
    fewer steps help, or state="fixed_point".

    With state="fixed_point", the default, the states are integers, and every state is
    recovered bit for bit, whatever N and β are. A step that contracts forgets digits,
    so an exact inverse must store them: one bit per element and half step if β ≤ 1/2,
    and log₂ of ⌈1 / (1 − β)⌉ bits otherwise. Thus memory grows with N, but 1/32 as fast
    as that of stored float32 states. β is rounded to a multiple of 2⁻¹⁵. Float32 and
    narrower states have steps of 2⁻²³ and must stay below 64; float64 states have steps
    of 2⁻⁴⁹ and must stay below 4096. If a state or a value of f is larger, h is NaN.
    The map f must be deterministic.

    Args:
      beta: β, a Python number, 0 < β < 1.
      steps: N, the number of steps, at least 1. Each step evaluates f twice.
      state: "fixed_point" or "floating".
      tol: largest relative residual that `info` reports as converged, and largest
        relative error of the gradient that does not count as a failure.

    Raises:
      ValueError: if a setting is out of its range, or if beta is traced.

    Example:
      >>> import jax
      >>> from bpvariants import gradients
      >>> f = lambda w, h, x: w * h + x  # h* = x / (1 − w)
      >>> solve = lambda w: gradients.fixed_point(
      ...     f, w, 0.0, 1.0, adjoint=gradients.adjoints.reversible(0.5, steps=40)
      ... )
      >>> h, info = solve(0.5)
      >>> round(h.item(), 4), info.steps.item(), info.converged.item()
      (2.0, 80, True)
      >>> round(jax.grad(lambda w: solve(w)[0])(0.5).item(), 3)  # x / (1 − w)²
      4.0

    References:
      McCallum et al., "Reversible deep equilibrium models", 2025, arXiv:2509.12917.
      MacKay et al., "Reversible recurrent neural networks", 2018, arXiv:1810.10999
      (stored digits of fixed-point states).
    """

    beta: float = field(metadata={"static": True})
    steps: int = field(default=30, metadata={"static": True})
    state: Literal["floating", "fixed_point"] = field(
        default="fixed_point", metadata={"static": True}
    )
    tol: float | jax.Array = 1e-5
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_beta(self.beta)
        check_count("steps", self.steps)
        check_one_of("state", self.state, ("floating", "fixed_point"))
        check_limits(self.tol, 1)
        if self.state == "fixed_point":
            fixed_point_states(self.beta)

    @property
    def states(self) -> Floating | FixedPoint:
        """The arithmetic of the states."""
        if self.state == "fixed_point":
            return fixed_point_states(self.beta)
        return Floating(float(self.beta))


def check_beta(beta: Any) -> None:
    """Check that beta is a Python number between 0 and 1."""
    if not are_numbers(beta) or isinstance(beta, bool):
        raise ValueError(
            "beta must be a Python number, known while tracing, because the iteration "
            f"has no derivative with respect to beta; got {beta!r}."
        )
    if not 0 < beta < 1:
        raise ValueError(
            f"beta must satisfy 0 < beta < 1, got {beta}; with 0 the states do not "
            "move, and with 1 they cannot be recovered. Try 0.5."
        )
