"""Relaxation to a fixed point: damped iteration, or Pineda's differential equation.

With the map g and the damping τ, the iteration is

    h ← (1 − τ) h + τ g(h)    until ‖g(h) − h‖ ≤ tol · scale
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_limits
from bpvariants._examples import norm, times
from bpvariants._settings import check_no_text
from bpvariants.gradients.equilibrium._iteration import iterate
from bpvariants.gradients.equilibrium._method import Method


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class relaxation:
    """Solver of h = f(h) by damped iteration, h ← (1 − τ) h + τ f(h), with damping τ.

    Each step costs one evaluation of f; the memory holds a few states. The solver gives
    up on an example if ‖f(h) − h‖ is not finite, or exceeds 10⁴ times the lowest
    ‖f(h) − h‖ so far.

    *Oscillation.* If no damping is given, τ is 1 at first, and each example has its own
    τ. Every 20 steps, the solver predicts from the last 20 residuals of an example
    whether max_steps steps are enough. If max_steps steps are too few and the iterates
    h of this example oscillate, the solver halves τ. So the iteration converges even if
    h is a single number and the derivative of f at the fixed point is −1.
    `info.damping` returns the last τ of each example. A given damping never changes.

    *In continuous time.* Pineda's network obeys T dh/dt = −h + f(h), with a time
    constant T. Euler's method with time step dt is the relaxation with τ = dt / T. So
    the damping τ sets the time step; with τ = 1, a step replaces h by f(h). The adjoint
    obeys a similar differential equation, which is written in two conventions, for y or
    for z. Let f(h) = g(u), where u = W h, W is the weight matrix, and g is an
    activation function with the derivative g′. E is the loss, b = ∂E/∂h, and * is the
    element-wise product:

        A    T dy/dt = −y + g′(u) * (Wᵀ y + b)      dE/dW = y hᵀ
        B    T dz/dt = −z + Wᵀ (g′(u) * z) + b      dE/dW = (g′(u) * z) hᵀ

    At the fixed point, y = g′(u) * z. `gradients.adjoints.relaxation` uses convention
    B, because the transposed Jacobian of f is Jᵀ = Wᵀ diag(g′(u)).

    *Stability.* Let μ be the eigenvalues of the Jacobian J = ∂f/∂h at the fixed point.
    J and Jᵀ have the same eigenvalues, so h and the adjoint have the same conditions of
    stability. The differential equation is stable if Re μ < 1 for every μ. The
    relaxation with damping τ is stable if |1 − τ + τμ| < 1 for every μ, which is a
    stronger condition. For τ = 1, the condition is that the spectral radius of J is
    below 1. If every μ is real and below 1, the condition is τ < 2 / (1 − μ_min), where
    μ_min is the least eigenvalue; if μ_min is −1 or less, h oscillates at τ = 1, but
    settles with a smaller τ. If a real μ is 1 or more, the relaxation is stable for no
    τ.

    Args:
      damping: damping τ, 0 < τ ≤ 1; 1 is undamped. Default: 1 at first, and halved for
        examples that oscillate without converging.
      tol: largest relative residual that counts as converged.
      max_steps: maximum number of evaluations of f.
      atol: absolute tolerance. An example has also converged if ‖f(h) − h‖ is at most
        atol. Default: tol². Give atol if the fixed point may be 0.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> from bpvariants import gradients
      >>> flip = lambda w, h, x: w * h + x  # w = −1.5 overshoots by half, each time
      >>> for damping in (1.0, 0.6):
      ...     solver = gradients.solvers.relaxation(damping)
      ...     _, info = gradients.fixed_point(flip, -1.5, 0.0, 1.0, solver=solver)
      ...     print(info.converged.item(), info.steps.item())
      False 24
      True 19

    References:
      Almeida, Proc. ICNN, San Diego 1987. Pineda, "Generalization of back-propagation
      to recurrent neural networks", Physical Review Letters 59, 1987,
      doi:10.1103/PhysRevLett.59.2229.
    """

    damping: float | jax.Array | None = None
    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000
    atol: float | jax.Array | None = None

    def __post_init__(self):
        """Check the settings."""
        check_relaxation(self.damping, self.tol, self.max_steps, self.atol)

    def solve(self, gap, start, scale, batch_ndim, pull=None):
        """Iterate until ‖gap(h)‖ ≤ tol · scale(h) or a failure; gap(h) is f(h) − h."""
        if self.damping is None:
            method = _oscillation_damped(batch_ndim)
        else:
            damped = lambda h, d: h + jnp.asarray(self.damping, h.dtype) * d
            move = lambda memory, h, d, step: (jax.tree.map(damped, h, d), memory)
            damping = lambda memory: jnp.asarray(self.damping)
            method = Method(lambda start: (), move, damping=damping)
        settings = {"tol": self.tol, "max_steps": self.max_steps}
        settings |= {"batch_ndim": batch_ndim, "pull": pull}
        return iterate(gap, start, scale, method, **settings)


def _oscillation_damped(batch_ndim: int) -> Method:
    """Return a relaxation that halves its damping; its memory is the damping."""
    move = lambda damping, h, d, step: (
        jax.tree.map(jnp.add, h, times(damping, d)),
        damping,
    )
    return Method(
        lambda start: jnp.ones_like(norm(start, batch_ndim)),
        move,
        damping=lambda damping: damping,
        halve=lambda damping, which: jnp.where(which, damping / 2, damping),
    )


def check_relaxation(damping: Any, tol: Any, max_steps: Any, atol: Any = None) -> None:
    """Check those settings of a relaxation that are Python numbers."""
    check_no_text(damping=damping)
    if are_numbers(damping) and not 0 < damping <= 1:
        raise ValueError(f"damping must satisfy 0 < damping <= 1, got {damping}.")
    check_limits(tol, max_steps, atol)
