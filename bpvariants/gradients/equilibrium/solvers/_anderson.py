"""Anderson acceleration of a fixed-point iteration.

Notation: z_i the last m iterates of an example, G_i = g(z_i) − z_i their residuals, the
mixing β, the ridge λ:

    α = argmin ‖Σ α_i G_i‖² + λ Σ α_i² ‖G_i‖²    with Σ α_i = 1
    z ← Σ α_i (z_i + β G_i)
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_count, check_limits
from bpvariants._examples import norm, times
from bpvariants.gradients.equilibrium._iteration import iterate_vectors, Method
from bpvariants.gradients.equilibrium._protocols import solve_linear

REBOUND = 100  # how far the residual may rise before the history is thrown away


class _Memory(NamedTuple):
    points: jax.Array  # [*batch, depth, n], the latest last
    residuals: jax.Array  # [*batch, depth, n]
    pairs: jax.Array  # [*batch], how many are known, not more than matter
    lowest: jax.Array  # [*batch], the lowest residual since


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class anderson:
    """Anderson acceleration, a solver of h = f(h) for where relaxation is slow.

    It goes to the combination of the last few iterates whose residuals cancel best. On
    linear maps that is GMRES, restarted little by little; near ρ(J) = 1 it takes a
    fraction of the steps of :class:`relaxation`, and it often converges where that does
    not. The first two steps are plain, h ← h + β (f(h) − h), and so is one at which the
    residual has risen a hundredfold, which also forgets what was before.

    It solves the adjoint equation as well: `gradients.solvers.anderson` and
    `gradients.adjoints.anderson` are this one class. Where it is the solver it is by
    default the adjoint too, with the same settings. The gradient is that of the fixed
    point, never of the steps to it.

    A step costs one evaluation of f and O(m² n + m³) for each example of n numbers and
    m = depth; memory 2 m n.

    Args:
      depth: m, how many iterates are combined, at least 1.
      mixing: β, 0 < β ≤ 1, the damping of the combination; 1 is undamped.
      ridge: λ, which keeps the combination from magnifying errors of rounding; to it is
        added what the dtype makes necessary.
      tol: largest relative residual that counts as converged. Float32 reaches 1e-6.
      max_steps: after how many evaluations of f to give up.

    Raises:
      ValueError: if a number is out of its range.

    Example:
      >>> from bpvariants import gradients
      >>> slow = lambda w, h, x: w * h + x
      >>> _, info = gradients.fixed_point(slow, 0.99, 0.0, 1.0, max_steps=2000)
      >>> solver = gradients.solvers.anderson()
      >>> _, faster = gradients.fixed_point(slow, 0.99, 0.0, 1.0, solver=solver)
      >>> info.steps.item() > 400, faster.steps.item() < 10
      (True, True)

    References:
      Anderson, "Iterative procedures for nonlinear integral equations", Journal of the
      ACM 12, 1965, doi:10.1145/321296.321305. Walker & Ni, "Anderson acceleration for
      fixed-point iterations", SIAM Journal on Numerical Analysis 49, 2011,
      doi:10.1137/10078356X.
    """

    depth: int = field(default=5, metadata={"static": True})
    mixing: float | jax.Array = 1.0
    ridge: float | jax.Array = 1e-8
    tol: float | jax.Array = 1e-5
    max_steps: int | jax.Array = 1000
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_count("depth", self.depth)
        if are_numbers(self.mixing) and not 0 < self.mixing <= 1:
            raise ValueError(f"mixing must lie in 0 < mixing <= 1, got {self.mixing}.")
        if are_numbers(self.ridge) and not self.ridge >= 0:
            raise ValueError(f"ridge must be at least 0, got {self.ridge}.")
        check_limits(self.tol, self.max_steps)

    def solve(self, gap, start, scale, batch_ndim):
        """Return iterates with ‖gap(h)‖ ≤ tol · scale(h), or how it failed."""
        method = Method(self._init, self._move, may_rise=True)
        settings = {"tol": self.tol, "max_steps": self.max_steps}
        return iterate_vectors(
            gap, start, scale, method, batch_ndim=batch_ndim, **settings
        )

    def __call__(self, matvec, b, batch_ndim, start=None):
        """Return z, and how each example [*batch] was solved."""
        size, outcome = solve_linear(self, matvec, b, batch_ndim, start)
        return times(size, outcome.best[0]), outcome.best[1]

    def _init(self, start: jax.Array) -> _Memory:
        none = jnp.zeros((*start.shape[:-1], self.depth, start.shape[-1]), start.dtype)
        size = norm(start, start.ndim - 1)
        pairs = jnp.zeros(size.shape, jnp.int32)
        return _Memory(none, none, pairs, jnp.full_like(size, jnp.inf))

    def _move(self, memory, h, difference, size):
        rebound = size > REBOUND * memory.lowest
        lowest = jnp.where(rebound, size, jnp.minimum(size, memory.lowest))
        pairs = jnp.where(rebound, 1, jnp.minimum(memory.pairs + 1, self.depth + 2))
        points = append(memory.points, h)
        residuals = append(memory.residuals, difference)
        places = _leading(jnp.arange(self.depth, dtype=jnp.int32), size)
        known = places >= self.depth - pairs[..., None]
        alpha = self._combination(residuals, known)
        mixing = jnp.asarray(self.mixing, h.dtype)
        mixed = jnp.sum(alpha[..., None] * (points + mixing * residuals), axis=-2)
        right = (pairs > 2) & jnp.isfinite(norm(mixed, mixed.ndim - 1))
        h = jnp.where(right[..., None], mixed, h + mixing * difference)
        return h, _Memory(points, residuals, pairs, lowest)

    def _combination(self, residuals: jax.Array, known: jax.Array) -> jax.Array:
        """Return α [*batch, depth], 0 for what is not known."""
        dtype = residuals.dtype
        sizes = jnp.where(known, norm(residuals, residuals.ndim - 1), 0)
        inverse = jnp.where(sizes > 0, 1 / jnp.where(sizes > 0, sizes, 1), 0)
        # Of unit vectors, as residuals of many sizes would drown the smallest.
        unit = residuals * inverse[..., None]
        gram = jnp.einsum(
            "...in,...jn->...ij", unit, unit, precision=jax.lax.Precision.HIGHEST
        )
        ridge = jnp.asarray(self.ridge, dtype) + self.depth * jnp.finfo(dtype).eps
        diagonal = jnp.where(sizes > 0, ridge, 1)[..., None]
        eye = _leading(jnp.eye(self.depth, dtype=dtype), sizes[..., 0])
        gram = gram + diagonal * eye
        c = sizes[..., -1:] * inverse
        alpha = c * jnp.linalg.solve(gram, c[..., None])[..., 0]
        return alpha / jnp.sum(alpha, axis=-1, keepdims=True)


def _leading(array: jax.Array, size: jax.Array) -> jax.Array:
    """Give an array an axis of one for each of those of size."""
    return array.reshape((1,) * size.ndim + array.shape)


def append(history: jax.Array, new: jax.Array) -> jax.Array:
    """Add a row [*batch, n] to a history [*batch, m, n], and drop its oldest."""
    return jnp.concatenate([history[..., 1:, :], new[..., None, :]], axis=-2)
