"""Test whether only rounding errors keep a parallel iteration from converging.

Notation: h is a trajectory, g(h) are its residuals, d is the last change of h, and s is
a factor. The second difference

    g(h + s d) − 2 g(h) + g(h − s d)

is proportional to s² if g is smooth, and to s if g has a kink at h. Rounding errors in
the second difference shrink at most like √s. The second differences for two factors s
therefore show whether they are caused by rounding errors.
"""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp

from bpvariants._examples import norm

FACTORS = 1.0, 0.125  # the two factors s
# Largest ratio of the second differences for the two factors that counts as rounding.
# The ratio is 1 to √8 if rounding errors cause the differences; otherwise it is 8 or
# 64.
SLOWLY = 3.3
# Largest ratio of the change of h to the second difference that rounding errors
# explain. The recurrence adds up the rounding errors of many steps.
NOISE = 32


def is_rounding(
    gap: Callable[[jax.Array], jax.Array],
    h: jax.Array,
    wrong: jax.Array,
    change: jax.Array,
    sizes: tuple[int, ...],
) -> jax.Array:
    """Return whether rounding errors of `gap` explain the change, [*batch, leaves].

    `h` is a trajectory [T, *batch, n], `wrong` are the residuals gap(h), and `change`
    is the last change of h. The result has one entry for each leaf of the carry.
    """

    def second_difference(factor):
        ahead, behind = (gap(h + sign * factor * change) for sign in (1, -1))
        return _norms(ahead - 2 * wrong + behind, sizes)

    factors = jnp.asarray(FACTORS, h.dtype)
    far, near = jax.lax.map(second_difference, factors)
    return (far <= SLOWLY * near) & (_norms(change, sizes) <= NOISE * near)


def largest(trajectory: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Return the largest absolute value of each leaf along time, [*batch, leaves]."""
    values = jnp.max(jnp.abs(trajectory), axis=0)
    over = lambda leaf: jnp.max(leaf, axis=-1, initial=0)
    return jnp.stack([over(leaf) for leaf in _leaves(values, sizes)], axis=-1)


def _norms(trajectory: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Return the Euclidean norm of each leaf along time, [*batch, leaves]."""
    leaves = _leaves(jnp.moveaxis(trajectory, 0, -2), sizes)  # [*batch, T, n]
    return jnp.stack([norm(leaf, leaf.ndim - 2) for leaf in leaves], axis=-1)


def _leaves(vectors: jax.Array, sizes: tuple[int, ...]) -> list[jax.Array]:
    """Split vectors [*batch, n] into the parts of the carry's leaves."""
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return [vectors[..., a:b] for a, b in pairwise(ends)]
