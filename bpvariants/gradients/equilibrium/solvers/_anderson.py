"""Anderson acceleration of a fixed-point iteration.

Notation: z_i are the last m iterates of an example. For the map g, the iterate z_i has
the residual G_i = g(z_i) − z_i and the weight α_i. β is the mixing factor, λ is the
ridge:

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
from bpvariants._settings import check_no_text
from bpvariants.gradients.equilibrium._iteration import Method
from bpvariants.gradients.equilibrium._protocols import solve_linear
from bpvariants.gradients.equilibrium._vectors import iterate_vectors

REBOUND = 100  # factor by which a residual may rise before old iterates are dropped


class _Memory(NamedTuple):
    points: jax.Array  # [*batch, depth, n]: the last iterates, oldest first
    residuals: jax.Array  # [*batch, depth, n]: g(z) − z of each of these iterates z
    pairs: jax.Array  # [*batch]: iterates since the last drop, at most depth + 2
    lowest: jax.Array  # [*batch]: lowest residual since iterates were last dropped


@register_dataclass  # settings may be tracers
@dataclass(frozen=True)
class anderson:
    """Anderson acceleration: a solver of h = f(h) for cases where relaxation is slow.

    For each of the last few iterates h, the method computes h + β (f(h) − h), where β
    is the argument `mixing`. The next iterate is a weighted sum of these vectors. The
    weights add up to 1 and minimise the norm of the weighted sum of the residuals
    f(h) − h. If f is linear, the method is a GMRES that drops the oldest iterates. If
    the spectral radius of the Jacobian of f is near 1, Anderson acceleration takes a
    fraction of the steps of :class:`relaxation`, and it often converges where
    relaxation does not. The first two steps are plain: h ← h + β (f(h) − h). If the
    residual rises to more than 100 times its lowest value, the stored iterates are
    dropped, and the method starts again with two plain steps.

    This class also solves the adjoint equation: `gradients.solvers.anderson` and
    `gradients.adjoints.anderson` are the same class. If it is given as the solver, it
    is by default also the adjoint solver, with the same settings. The gradient is that
    of the fixed point, not of the steps that lead to it.

    For each example of n elements, with m = depth, a step takes one evaluation of f and
    O(m² n + m³) more operations; 2 m n elements are stored.

    Args:
      depth: m, the number of iterates that are combined, at least 1.
      mixing: factor β of the residuals in each step, 0 < β ≤ 1; 1 is undamped.
      ridge: regularisation λ of the weights, which keeps a step from amplifying
        rounding errors. A small number that depends on the dtype is added to λ.
      tol: largest relative residual that counts as converged.
      max_steps: maximum number of evaluations of f.
      atol: absolute tolerance. An example has also converged if ‖f(h) − h‖ is at most
        atol. Default: tol². Give atol if the fixed point may be 0. The adjoint solver
        does not use atol.

    Raises:
      ValueError: if a setting is out of its range.

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
    atol: float | jax.Array | None = None
    approximate: ClassVar[bool] = False

    def __post_init__(self):
        """Check the settings."""
        check_count("depth", self.depth)
        check_no_text(mixing=self.mixing, ridge=self.ridge)
        if are_numbers(self.mixing) and not 0 < self.mixing <= 1:
            raise ValueError(f"mixing must satisfy 0 < mixing <= 1, got {self.mixing}.")
        if are_numbers(self.ridge) and not self.ridge >= 0:
            raise ValueError(f"ridge must be at least 0, got {self.ridge}.")
        check_limits(self.tol, self.max_steps, self.atol)

    def solve(self, gap, start, scale, batch_ndim, pull=None):
        """Iterate until ‖gap(h)‖ ≤ tol · scale(h) or a failure; gap(h) is f(h) − h."""
        method = Method(self._init, self._move, may_rise=True)
        settings = {"tol": self.tol, "max_steps": self.max_steps}
        settings |= {"batch_ndim": batch_ndim, "pull": pull}
        return iterate_vectors(gap, start, scale, method, **settings)

    def __call__(self, matvec, b, batch_ndim, start=None, krylov=False):
        """Return z and its convergence report, of arrays [*batch]."""
        size, outcome = solve_linear(self, matvec, b, batch_ndim, start, krylov)
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
        """Return the weights [*batch, depth], 0 for iterates that are not yet set."""
        dtype = residuals.dtype
        sizes = jnp.where(known, norm(residuals, residuals.ndim - 1), 0)
        inverse = jnp.where(sizes > 0, 1 / jnp.where(sizes > 0, sizes, 1), 0)
        # Residuals are scaled to unit length. Otherwise, rounding errors of products of
        # large residuals would hide small residuals.
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
    """Add leading axes of length 1 to an array, one for each axis of `size`."""
    return array.reshape((1,) * size.ndim + array.shape)


def append(history: jax.Array, new: jax.Array) -> jax.Array:
    """Add a row [*batch, n] to a history [*batch, m, n], and drop the oldest row."""
    return jnp.concatenate([history[..., 1:, :], new[..., None, :]], axis=-2)
