"""Rounding errors of a map g, measured by second differences.

Rounding errors limit how small the residual ‖g(h) − h‖ of an iteration can become.
Notation: d(h) = g(h) − h, and u is a short vector in the direction of d(h). The second
difference at the point h + k u, for an integer k from −N to N, is

    d(h + (k+1) u) − 2 d(h + k u) + d(h + (k−1) u)

The second difference is proportional to ‖u‖² if g is smooth, and to ‖u‖ at a kink of g.
Rounding errors in the second difference do not shrink with u, or shrink like ‖u‖^½ if g
rounds many products coarsely. So second differences for two lengths of u show whether
rounding errors cause them.

Moré & Wild, "Estimating computational noise", SIAM Journal on Scientific Computing 33,
2011, doi:10.1137/100786125, estimate rounding errors by higher-order differences.
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

# Ratio ‖u‖ / ‖d‖ of the step u to d(h) = g(h) − h. The ratio is small, because the
# second differences of a smooth map are then small.
SPACING = 1 / 24
COARSE = 9  # number of points h + 8 k u, for k from −4 to 4
# Number of points h + k u. They reach from about h − d to h + d, where d = g(h) − h. If
# h is a single number and rounding makes g(h) jump between two values, the jump lies
# between two of these points.
FINE = 51
POINTS = COARSE + FINE
# Threshold for the ratio of second differences with the step 8 u to those with u. The
# ratio is 1 to √8 if rounding errors cause the differences, and otherwise 4 or more.
SLOWLY = 3.3
NOISE = 6  # rounding explains a ‖d‖ of at most NOISE times the second difference
COARSEST = 2**-5  # largest relative residual that rounding to 8 bits can explain
STRETCHES = 4  # number of factors s for which check_linear evaluates A (s z)


def reachable(tol: float | jax.Array, tree: PyTree, dtype: jnp.dtype) -> jax.Array:
    """Return tol; for 16-bit leaves, raise it to at least their machine epsilon."""
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)}
    coarsest = [float(jnp.finfo(narrow).eps) for narrow in dtypes if narrow in NARROW]
    return jnp.maximum(jnp.asarray(tol, dtype), max(coarsest, default=0.0))


class Walk(NamedTuple):
    """State of the test for rounding errors, a walk along the points h + k u.

    Each step of the solver's loop evaluates the map at one point of the walk.
    """

    place: jax.Array  # int [*batch]: number of the next point, or 0 without a walk
    start: PyTree  # the point h, in the middle of the walk
    u: PyTree
    last: PyTree  # g(h) − h at the last point
    rise: PyTree  # change of g(h) − h since the point before the last point
    largest: jax.Array  # [2, *batch]: largest squared second difference for 8 u, u


def no_walk(h: PyTree, size: jax.Array) -> Walk:
    """Return the state in which no example is tested; `size` is an array [*batch]."""
    zeros = jax.tree.map(jnp.zeros_like, h)
    place = jnp.zeros(size.shape, jnp.int32)
    return Walk(place, h, zeros, zeros, zeros, jnp.zeros((2, *size.shape), size.dtype))


def begin_walk(
    walk: Walk, asked: jax.Array, h: PyTree, along: PyTree, length: jax.Array
) -> Walk:
    """Begin a walk for the examples where `asked` is True.

    The walk passes through h in the direction of `along`, a vector of norm `length`.
    The step u is rounded to multiples of the spacing of floating-point numbers near h.
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
    """Record the gap g(h) − h at the point of each walk; move to the next point."""
    k = walk.place - 1
    rise = jax.tree.map(jnp.subtract, gap, walk.last)
    size = in_units(length, jax.tree.map(jnp.subtract, rise, walk.rise))
    counts = jnp.stack([(k >= 2) & (k < COARSE), k >= COARSE + 2])
    before = jnp.where(k > 0, walk.largest, 0)  # 0 at the first point
    return walk._replace(
        place=jnp.where(walk.place > 0, walk.place + 1, 0),
        last=gap,
        rise=rise,
        largest=jnp.maximum(before, jnp.where(counts, size, 0)),
    )


def noise(walk: Walk) -> jax.Array:
    """Return the squared rounding errors [*batch] of the map g, divided by ‖g(h) − h‖².

    The result is 0 if rounding errors do not cause the second differences of the map.
    """
    coarse, fine = walk.largest
    return jnp.where(coarse <= SLOWLY**2 * fine, fine, 0)


def in_units(length: jax.Array, tree: PyTree) -> jax.Array:
    """Return the squared norms [*batch] of the examples, divided by length²."""
    return squared_norm(times(1 / length, tree), length.ndim)


def check_linear(
    matvec: Callable[[PyTree], PyTree], b: PyTree, z: PyTree, batch_ndim: int
) -> tuple[jax.Array, jax.Array]:
    """Return ‖b − A z‖ [*batch], and whether the rounding errors of A explain it.

    A is the linear map `matvec`. Without rounding errors, A (s z) / s does not depend
    on the factor s. So the differences of A (s z) / s between several factors s measure
    the rounding errors.
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
