"""Broyden's method with limited memory, for fixed points.

Notation: d(h) = g(h) − h is the function whose root is the fixed point of the map g.
H ≈ (∂d/∂h)⁻¹ is an estimate of the inverse Jacobian of d. Each step adds a product u vᵀ
to H. H = −I + Σ u_i v_iᵀ is stored as the vectors u_i, v_i of the last r steps. Δh and
Δd are the changes of h and d in the last step:

    v = Hᵀ Δh,   u = (Δh − H Δd) / (vᵀ Δd),   H ← H + u vᵀ,   h ← h − H d
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import check_count, check_limits
from bpvariants._examples import norm, select, times
from bpvariants.gradients.equilibrium._method import Method, Step
from bpvariants.gradients.equilibrium._protocols import solve_linear
from bpvariants.gradients.equilibrium._vectors import iterate_vectors
from bpvariants.gradients.equilibrium.solvers._anderson import (
    append,
    REBOUND,
)


class _Memory(NamedTuple):
    us: jax.Array  # [*batch, rank, n]: vectors u_i of H = −I + Σ u_i v_iᵀ, or zeros
    vs: jax.Array  # [*batch, rank, n]: vectors v_i of H, or zeros
    h: jax.Array  # [*batch, n]: iterate at which the last step began
    difference: jax.Array  # [*batch, n]: g(h) − h at this iterate
    begun: jax.Array  # [*batch]: whether a step has already been taken
    lowest: jax.Array  # [*batch]: lowest residual since H was last reset to −I


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class broyden:
    """Broyden's method: a solver of h = f(h) for cases where relaxation is slow.

    Broyden's method is a quasi-Newton method: from its steps, it estimates (I − J)⁻¹,
    where J is the Jacobian of f. Near the fixed point, Broyden's method converges
    superlinearly, whether or not f is a contraction. The first step is plain, h ← f(h).
    If the residual rises to more than 100 times its lowest value, the estimate of
    (I − J)⁻¹ is dropped, and the next step is plain.

    This class also solves the adjoint equation: `gradients.solvers.broyden` and
    `gradients.adjoints.broyden` are the same class. If it is given as the solver, it is
    by default also the adjoint solver, with the same settings. The gradient is that of
    the fixed point, not of the steps that lead to it. Broyden's method has no damping.

    For each example of n elements, with r = rank, a step takes one evaluation of f and
    O(r n) more operations; 2 r n elements are stored.

    Args:
      rank: r, the number of rank-one changes of the estimate that are stored (the
        latest ones), at least 1.
      tol: largest relative residual that counts as converged.
      max_steps: maximum number of evaluations of f.
      atol: absolute tolerance. An example has also converged if ‖f(h) − h‖ is at most
        atol. Default: tol². Give atol if the fixed point may be 0. The adjoint solver
        does not use atol.

    Raises:
      ValueError: if a setting is out of its range.

    Example:
      >>> from bpvariants import gradients
      >>> grows = lambda w, h, x: w * h + x  # no contraction, but h* = −2
      >>> solver = gradients.solvers.broyden()
      >>> h, info = gradients.fixed_point(grows, 1.5, 0.0, 1.0, solver=solver)
      >>> round(h.item(), 4), info.converged.item()
      (-2.0, True)

    References:
      Broyden, "A class of methods for solving nonlinear simultaneous equations",
      Mathematics of Computation 19, 1965, doi:10.1090/S0025-5718-1965-0198670-6. Bai,
      Kolter & Koltun, "Deep equilibrium models", 2019, arXiv:1909.01377.
    """

    rank: int = field(default=30, metadata={"static": True})
    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000
    atol: float | jax.Array | None = None
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_count("rank", self.rank)
        check_limits(self.tol, self.max_steps, self.atol)

    def solve(self, gap, start, scale, batch_ndim, pull=None):
        """Iterate until ‖gap(h)‖ ≤ tol · scale(h) or a failure; gap(h) is f(h) − h."""
        method = Method(self._init, _move, may_rise=True)
        settings = {"tol": self.tol, "max_steps": self.max_steps}
        settings |= {"batch_ndim": batch_ndim, "pull": pull}
        return iterate_vectors(gap, start, scale, method, **settings)

    def __call__(self, matvec, b, batch_ndim, start=None, krylov=False):
        """Return z and its convergence report, of arrays [*batch]."""
        size, outcome = solve_linear(self, matvec, b, batch_ndim, start, krylov)
        return times(size, outcome.best[0]), outcome.best[1]

    def _init(self, start: jax.Array) -> _Memory:
        none = jnp.zeros((*start.shape[:-1], self.rank, start.shape[-1]), start.dtype)
        size = norm(start, start.ndim - 1)
        begun, lowest = jnp.zeros(size.shape, bool), jnp.full_like(size, jnp.inf)
        return _Memory(none, none, start, start, begun, lowest)


def _move(memory: _Memory, h: jax.Array, difference: jax.Array, step: Step):
    size = step.size
    rebound = size > REBOUND * memory.lowest
    lowest = jnp.where(rebound, size, jnp.minimum(size, memory.lowest))
    dh, dd = h - memory.h, difference - memory.difference
    us, vs = (append(pair, jnp.zeros_like(h)) for pair in (memory.us, memory.vs))
    v = _times(vs, us, dh)
    scale = jnp.sum(v * dd, axis=-1)
    length = lambda a: jnp.linalg.vector_norm(a, axis=-1)
    eps = jnp.finfo(h.dtype).eps
    learns = memory.begun & (jnp.abs(scale) > eps * length(v) * length(dd))
    u = (dh - _times(us, vs, dd)) / jnp.where(learns, scale, 1)[..., None]
    us = us.at[..., -1, :].set(jnp.where(learns[..., None], u, 0))
    vs = vs.at[..., -1, :].set(jnp.where(learns[..., None], v, 0))
    us, vs = (jnp.where(rebound[..., None, None], 0, pair) for pair in (us, vs))
    new = h - _times(us, vs, difference)
    begun = jnp.ones_like(memory.begun)
    after = _Memory(us, vs, h, difference, begun, lowest)
    return new, select(step.moves, after, memory)


def _times(lefts: jax.Array, rights: jax.Array, x: jax.Array) -> jax.Array:
    """Return (−I + Σ l_i r_iᵀ) x for the rows l_i of `lefts` and r_i of `rights`."""
    weights = jnp.sum(rights * x[..., None, :], axis=-1, keepdims=True)
    return jnp.sum(weights * lefts, axis=-2) - x
