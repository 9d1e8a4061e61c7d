"""Anderson acceleration of a fixed-point iteration.

Notation: z_i are the last m iterates of an example. For the map g, the iterate z_i has
the residual G_i = g(z_i) − z_i and the weight α_i. β is the mixing factor, λ is the
ridge:

    α = argmin ‖Σ α_i G_i‖² + λ Σ α_i² ‖G_i‖²    with Σ α_i = 1
    z ← Σ α_i (z_i + β G_i)

The vectors z_i + β G_i and G_i / ‖G_i‖ are stored in rows, and each step overwrites the
oldest row. The products G_i · G_j of rows that stay are stored, too. So a step reads
each stored vector once and writes one row of each kind.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from bpvariants._checks import are_numbers, check_count, check_limits
from bpvariants._examples import norm, select, times
from bpvariants._settings import check_no_text
from bpvariants.gradients.equilibrium._method import Method, Step
from bpvariants.gradients.equilibrium._protocols import solve_linear
from bpvariants.gradients.equilibrium._vectors import iterate_vectors

UNROLLED = 8  # largest size of matrices that are reduced without LAPACK
REBOUND = 100  # factor by which a residual may rise before old iterates are dropped


class _Memory(NamedTuple):
    moved: jax.Array  # [*batch, depth, n]: z + β G for each of the last iterates z
    units: jax.Array  # [*batch, depth, n]: G / ‖G‖ of each of these iterates
    products: jax.Array  # [*batch, depth, depth]: products of the rows of `units`
    sizes: jax.Array  # [*batch, depth]: ‖G‖ of each row, or 0 for a row not to be used
    pairs: jax.Array  # [*batch]: iterates since the last drop, at most depth + 2
    lowest: jax.Array  # [*batch]: lowest residual since iterates were last dropped
    place: jax.Array  # []: number of the row that the next step overwrites


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
    O(m n + m³) more operations; 2 m n elements are stored.

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
        used = lambda memory: jnp.ones(memory.lowest.shape, bool)
        method = Method(self._init, self._move, may_rise=True, accelerated=used)
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
        products = jnp.zeros((*size.shape, self.depth, self.depth), start.dtype)
        pairs = jnp.zeros(size.shape, jnp.int32)
        lowest = jnp.full_like(size, jnp.inf)
        place = jnp.zeros((), jnp.int32)
        return _Memory(none, none, products, products[..., 0], pairs, lowest, place)

    def _move(self, memory, h, difference, step: Step) -> tuple[jax.Array, _Memory]:
        size, moves = step.size, step.moves
        rebound = size > REBOUND * memory.lowest
        lowest = jnp.where(rebound, size, jnp.minimum(size, memory.lowest))
        pairs = jnp.where(rebound, 1, jnp.minimum(memory.pairs + 1, self.depth + 2))
        here = _leading(jnp.arange(self.depth, dtype=jnp.int32), size) == memory.place
        mixing = jnp.asarray(self.mixing, h.dtype)
        plain = h + mixing * difference
        unit = difference * jnp.where(size > 0, 1 / size, 0)[..., None]
        put = partial(_put, place=memory.place, moves=moves)
        moved, units = put(memory.moved, plain), put(memory.units, unit)
        with_new = jnp.einsum("...in,...n->...i", units, unit, precision="highest")
        products = jnp.where(
            here[..., None],
            with_new[..., None, :],
            jnp.where(here[..., None, :], with_new[..., None], memory.products),
        )
        old = jnp.where(rebound[..., None], 0, memory.sizes)
        sizes = jnp.where(here, size[..., None], old)
        alpha = self._weights(products, sizes, size)
        mixed = jnp.einsum("...i,...in->...n", alpha, moved, precision="highest")
        right = (pairs > 2) & jnp.all(jnp.isfinite(alpha), axis=-1)
        kept = memory.products, memory.sizes, memory.pairs, memory.lowest
        new: Any = select(moves, (products, sizes, pairs, lowest), kept)
        products, sizes, pairs, lowest = new
        place = (memory.place + 1) % self.depth
        memory = _Memory(moved, units, products, sizes, pairs, lowest, place)
        return jnp.where(right[..., None], mixed, plain), memory

    def _weights(
        self, products: jax.Array, sizes: jax.Array, size: jax.Array
    ) -> jax.Array:
        """Return the weights α [*batch, depth], 0 for rows not to be used.

        Residuals are scaled to unit length. Otherwise, rounding errors of products of
        large residuals would hide small residuals.
        """
        dtype, used = products.dtype, sizes > 0
        gram = jnp.where(used[..., None] & used[..., None, :], products, 0)
        ridge = jnp.asarray(self.ridge, dtype) + self.depth * jnp.finfo(dtype).eps
        eye = _leading(jnp.eye(self.depth, dtype=dtype), size)
        gram = gram + jnp.where(used, ridge, 1)[..., None] * eye
        c = jnp.where(used, size[..., None] / jnp.where(used, sizes, 1), 0)
        alpha = c * solve_positive(gram, c)
        return alpha / jnp.sum(alpha, axis=-1, keepdims=True)


def solve_positive(a: jax.Array, b: jax.Array) -> jax.Array:
    """Solve a x = b for small, symmetric and positive definite matrices a.

    The matrices [*batch, m, m] are reduced to the identity, column by column. Unlike a
    call of LAPACK, which costs more than all other operations if m is about 5, this
    takes m elementwise operations for the whole batch. Positive definite matrices need
    no exchange of rows.
    """
    m = a.shape[-1]
    if m > UNROLLED:
        return jnp.linalg.solve(a, b[..., None])[..., 0]
    both = jnp.concatenate([a, b[..., None]], axis=-1)
    for k in range(m):
        row = both[..., k, :] / both[..., k, k, None]
        rest = both - both[..., :, k, None] * row[..., None, :]
        both = rest.at[..., k, :].set(row)
    return both[..., -1]


def _put(rows: jax.Array, new: jax.Array, place: jax.Array, moves: jax.Array):
    """Write `new` [*batch, n] to the row `place` of the examples that move."""
    new = new[..., None, :]
    axis = rows.ndim - 2
    old = jax.lax.dynamic_slice_in_dim(rows, place, 1, axis)
    new = jnp.where(moves[..., None, None], new, old)
    return jax.lax.dynamic_update_slice_in_dim(rows, new, place, axis)


def _leading(array: jax.Array, size: jax.Array) -> jax.Array:
    """Add leading axes of length 1 to an array, one for each axis of `size`."""
    return array.reshape((1,) * size.ndim + array.shape)


def append(history: jax.Array, new: jax.Array) -> jax.Array:
    """Add a row [*batch, n] to a history [*batch, m, n], and drop the oldest row."""
    return jnp.concatenate([history[..., 1:, :], new[..., None, :]], axis=-2)
