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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import NARROW
from bpvariants._examples import norm, squared_norm, times
from bpvariants._masking import select
from bpvariants.types import PyTree

SPACING = 1 / 24  # ‖u‖ / ‖d‖, so that second differences of smooth maps are small
COARSE = 9  # points from −4 to 4 times 8 u
FINE = 51  # points from −d to d, so that a single unit meets the jump of its cycle
POINTS = COARSE + FINE
SLOWLY = 3.3  # ratio of the two: 1 to √8 by rounding, 4 or more otherwise
NOISE = 6  # largest ‖d‖ that rounding explains, in second differences
COARSEST = 2**-5  # largest relative residual that rounding, to 8 bits, can leave
STRETCHES = 4  # multiples at which a linear map is evaluated


def reachable(tol: float | jax.Array, tree: PyTree, dtype: jnp.dtype) -> jax.Array:
    """Return the tolerance, raised to the machine epsilon of 16-bit leaves."""
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)}
    coarsest = [float(jnp.finfo(narrow).eps) for narrow in dtypes if narrow in NARROW]
    return jnp.maximum(jnp.asarray(tol, dtype), max(coarsest, default=0.0))


class Walk(NamedTuple):
    """A walk along h + k u that measures rounding errors, one point in each step."""

    place: jax.Array  # int [*batch], number of the next point; 0 is no walk
    start: PyTree  # h
    u: PyTree
    last: PyTree  # the gap at the last point
    rise: PyTree  # its change since the point before
    largest: jax.Array  # [2, *batch], squares of second differences at 8 u and at u


def no_walk(h: PyTree, size: jax.Array) -> Walk:
    """Return the walk of examples that do not walk; size is an array [*batch]."""
    zeros = jax.tree.map(jnp.zeros_like, h)
    place = jnp.zeros(size.shape, jnp.int32)
    return Walk(place, h, zeros, zeros, zeros, jnp.zeros((2, *size.shape), size.dtype))


def begin_walk(
    walk: Walk, asked: jax.Array, h: PyTree, along: PyTree, length: jax.Array
) -> Walk:
    """Begin the walks of the examples asked for, from h along a gap of this length.

    The step u consists of exact multiples of the distance of neighbouring numbers.
    """
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(h))
    factor = jnp.maximum(SPACING, 2 * eps * jnp.sqrt(in_units(length, h)))
    u = times(factor, along)
    u = jax.tree.map(lambda leaf, u: (leaf + u) - leaf, h, u)
    return walk._replace(
        place=jnp.where(asked, 1, walk.place),
        start=select(asked, h, walk.start),
        u=select(asked, u, walk.u),
    )


def point(walk: Walk) -> PyTree:
    """Return the next point of a walk."""
    k = walk.place - 1
    far = 8 * (k - COARSE // 2)
    near = k - COARSE - FINE // 2
    at = jnp.where(k < COARSE, far, near)
    move = times(at.astype(jnp.float32), walk.u)
    return jax.tree.map(jnp.add, walk.start, move)


def go_on(walk: Walk, gap: PyTree, length: jax.Array) -> Walk:
    """Take in the gap at the point of a walk, and move to the next."""
    k = walk.place - 1
    rise = jax.tree.map(jnp.subtract, gap, walk.last)
    size = in_units(length, jax.tree.map(jnp.subtract, rise, walk.rise))
    counts = jnp.stack([(k >= 2) & (k < COARSE), k >= COARSE + 2])
    before = jnp.where(k > 0, walk.largest, 0)  # none at the first point
    return walk._replace(
        place=jnp.where(walk.place > 0, walk.place + 1, 0),
        last=gap,
        rise=rise,
        largest=jnp.maximum(before, jnp.where(counts, size, 0)),
    )


def noise(walk: Walk) -> jax.Array:
    """Return the square [*batch] of the rounding errors, in units of the length.

    It is 0 if the second differences are not due to rounding.
    """
    coarse, fine = walk.largest
    return jnp.where(coarse <= SLOWLY**2 * fine, fine, 0)


def in_units(length: jax.Array, tree: PyTree) -> jax.Array:
    """Return the squared norm [*batch] of each example, in units of its length."""
    return squared_norm(times(1 / length, tree), length.ndim)


def check_linear(
    matvec: Callable[[PyTree], PyTree], b: PyTree, z: PyTree, batch_ndim: int
) -> tuple[jax.Array, jax.Array]:
    """Return ‖b − A z‖ [*batch], and whether the rounding errors of A explain it.

    They show in A (s z) / s, which would not depend on the factor s without them.
    """

    def evaluate(k, state):
        first, residual, noise = state
        factor = jnp.float32(1) + jnp.float32(0.3) * k.astype(jnp.float32)
        inverse = lambda leaf: leaf / factor.astype(leaf.dtype)
        scaled = jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), z)
        new = jax.tree.map(inverse, matvec(scaled))
        other = jax.tree.map(partial(jnp.where, k == 0), b, first)
        size = norm(jax.tree.map(jnp.subtract, new, other), batch_ndim)
        first = jax.tree.map(partial(jnp.where, k == 0), new, first)
        residual = jnp.where(k == 0, size, residual)
        return first, residual, jnp.where(k == 0, 0, jnp.maximum(noise, size))

    size = norm(b, batch_ndim)
    start = (b, jnp.zeros_like(size), jnp.zeros_like(size))
    _, residual, noise = jax.lax.fori_loop(0, STRETCHES, evaluate, start)
    return residual, (residual <= NOISE * noise) & (residual <= COARSEST * size)
