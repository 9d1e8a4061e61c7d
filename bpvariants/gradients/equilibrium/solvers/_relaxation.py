"""Relaxation to a fixed point: the plain solver, and Pineda's differential equation.

h ← (1 − τ) h + τ g(h)    until ‖g(h) − h‖ ≤ tol · scale
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_limits
from bpvariants.gradients.equilibrium._iteration import iterate, Method


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class relaxation:
    """Solver of h = f(h) by damped iteration, h ← (1 − τ) h + τ f(h).

    Each step costs one evaluation of f; memory is that of a few states. An example is
    given up where ‖f(h) − h‖ is not finite or 10⁴ times above its lowest value.

    *In continuous time.* Pineda's network obeys T dh/dt = −h + f(h), with a time
    constant T. Euler's method with steps of dt is this relaxation with τ = dt / T:
    damping is the step of time, and with τ = 1 the network jumps to f(h). The adjoint
    obeys such an equation of its own, in either of two conventions. For h = g(u),
    u = W h, b = ∂E/∂h, slopes g′(u), and * between the units:

        A    T dy/dt = −y + g′(u) * (Wᵀ y + b)      dE/dW = y hᵀ
        B    T dz/dt = −z + Wᵀ (g′(u) * z) + b      dE/dW = (g′(u) * z) hᵀ

    with y = g′(u) * z at rest. B is what `gradients.adjoints.relaxation` does, as
    Jᵀ = Wᵀ diag(g′(u)).

    *Where it is stable.* With μ the eigenvalues of J = ∂f/∂h at h*, forward and adjoint
    alike, for J and Jᵀ have the same: the equation where every Re μ < 1; its steps only
    where every |1 − τ + τμ| < 1, which is more, and is ρ(J) < 1 at τ = 1. For real μ
    that is τ < 2 / (1 − μ_min): where J has an eigenvalue of −1 or less, which makes h
    oscillate at τ = 1, a smaller τ settles. No τ helps where some μ ≥ 1.

    Args:
      damping: τ, 0 < τ ≤ 1; 1 is undamped.
      tol: largest relative residual that counts as converged. Float32 reaches 1e-6.
      max_steps: after how many evaluations of f to give up.

    Raises:
      ValueError: if a number is out of its range.

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

    damping: float | jax.Array = 1.0
    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000

    def __post_init__(self):
        """Check the settings."""
        check_relaxation(self.damping, self.tol, self.max_steps)

    def solve(self, gap, start, scale, batch_ndim):
        """Return iterates with ‖gap(h)‖ ≤ tol · scale(h), or how it failed."""
        damped = lambda h, d: h + jnp.asarray(self.damping, h.dtype) * d
        move = lambda memory, h, d, size: (jax.tree.map(damped, h, d), memory)
        method = Method(lambda start: (), move)
        settings = {"tol": self.tol, "max_steps": self.max_steps}
        return iterate(gap, start, scale, method, batch_ndim=batch_ndim, **settings)


def check_relaxation(damping: Any, tol: Any, max_steps: Any) -> None:
    """Check the settings of a relaxation, those that are Python numbers."""
    if are_numbers(damping) and not 0 < damping <= 1:
        raise ValueError(f"damping must lie in 0 < damping <= 1, got {damping}.")
    check_limits(tol, max_steps)
