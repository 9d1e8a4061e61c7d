"""Rounding errors of a map, measured by differences: the floor of its residuals.

Notation: d(h) = g(h) − h is the gap, and u a short vector along it. The second
difference

    d(h + (k+1) u) − 2 d(h + k u) + d(h + (k−1) u),    k = −N … N

of a smooth map is of size ‖u‖², and at a kink of size ‖u‖. Rounding errors do not
shrink with u. If g rounds many products coarsely, and so jumps from value to value,
they shrink like ‖u‖^½. So two lengths of u tell rounding errors from the rest.

Moré & Wild, "Estimating computational noise", SIAM Journal on Scientific Computing 33,
2011, doi:10.1137/100786125, estimate rounding errors by such differences.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants._dtypes import NARROW
from bpvariants._examples import norm, times
from bpvariants.types import PyTree

SPACING = 1 / 24  # ‖u‖ / ‖d‖, so that second differences of smooth maps are small
FINE = 51  # points from −d to d, so that a single unit meets the jump of its cycle
COARSE = 9  # points over this distance and a little more, at 8 u
SLOWLY = 3.3  # ratio of the two: 1 to √8 by rounding, 4 or more otherwise
NOISE = 6  # largest ‖d‖ that rounding explains, in second differences
COARSEST = 2**-5  # largest relative residual that rounding, to 8 bits, can leave


def reachable(tol: float | jax.Array, tree: PyTree, dtype: jnp.dtype) -> jax.Array:
    """Return the tolerance, raised to the machine epsilon of 16-bit leaves."""
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)}
    coarsest = [float(jnp.finfo(narrow).eps) for narrow in dtypes if narrow in NARROW]
    return jnp.maximum(jnp.asarray(tol, dtype), max(coarsest, default=0.0))


def explained(
    gap: Callable[[PyTree], PyTree],
    h: PyTree,
    difference: PyTree,
    residual: jax.Array,
    asked: jax.Array,
) -> jax.Array:
    """Return whether rounding explains the residual of linear equations, [*batch].

    A linear gap has no curvature, so h can be moved further than for :func:`rounding`.

    Args:
      gap: g(h) − h.
      h: the state that a solver has stopped at.
      difference: gap(h).
      residual: its size, relative to the solver's scale.
      asked: the examples of interest; the result is False for others.
    """
    asked = asked & (residual <= COARSEST)
    size = norm(difference, asked.ndim)
    return asked & (size <= NOISE * rounding(gap, h, 4 * size, asked))


def rounding(
    gap: Callable[[PyTree], PyTree],
    h: PyTree,
    length: jax.Array,
    asked: jax.Array,
) -> jax.Array:
    """Return the size [*batch] of the rounding errors of the gap near h.

    Args:
      gap: g(h) − h.
      h: the state around which it is evaluated. It is moved along the gap.
      length: [*batch], how far h is moved, such as the size of the gap.
      asked: the examples [*batch] of interest. If there are none, nothing is evaluated.

    Returns:
      The largest second difference, and 0 if it is not due to rounding.
    """
    count = jnp.where(jnp.any(asked), 1 + COARSE + FINE, 0)

    def walk(k, state):
        u, before, last, coarse, fine = state
        at = k - 1 - COARSE - FINE // 2
        at = jnp.where(k <= COARSE, 8 * (k - 1 - COARSE // 2), at)
        factor = lambda u: jnp.where(k == 0, 0, at).astype(jnp.finfo(u.dtype).dtype)
        new = gap(jax.tree.map(lambda leaf, u: leaf + factor(u) * u, h, u))
        along = _short(h, new, length)
        u = jax.tree.map(partial(jnp.where, k == 0), along, u)
        second = jax.tree.map(lambda a, b, c: (a - b) - (b - c), before, last, new)
        size = norm(second, length.ndim)
        is_coarse, is_fine = (k > 2) & (k <= COARSE), k > COARSE + 2
        coarse = jnp.where(is_coarse, jnp.maximum(coarse, size), coarse)
        fine = jnp.where(is_fine, jnp.maximum(fine, size), fine)
        return u, last, new, coarse, fine

    nothing = jnp.zeros_like(length)
    state = jax.lax.fori_loop(0, count, walk, (h, h, h, nothing, nothing))
    *_, coarse, fine = state
    return jnp.where(coarse <= SLOWLY * fine, fine, 0)


def _short(h: PyTree, along: PyTree, length: jax.Array) -> PyTree:
    """Return u, of exact multiples of the distance of neighbouring numbers at h."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(h))
    size = norm(along, length.ndim)
    wanted = jnp.maximum(SPACING * length, 2 * eps * norm(h, length.ndim))
    u = times(wanted / jnp.where(size == 0, 1, size), along)
    return jax.tree.map(lambda leaf, u: (leaf + u) - leaf, h, u)
