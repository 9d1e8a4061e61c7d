"""Conjugate gradients for a linear gap d(z) = b − A z, of which A* is applied too.

They minimise ‖z − z*‖ over z₀ + span{A* r₀, (A*A) A* r₀, …} (Craig's method):

    p ← A* r + p ‖r‖² / ‖r_before‖²,    z ← z + p ‖r‖² / ‖p‖²,    r = b − A z

In exact arithmetic they end after at most n steps, whether or not relaxation would. The
residual r is that of the equation itself, so each step applies A and A* once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._examples import relative, squared_norm, times
from bpvariants._masking import select
from bpvariants.types import PyTree


class Krylov(NamedTuple):
    """Which examples are solved by conjugate gradients, and what these remember."""

    on: jax.Array  # bool [*batch]
    direction: PyTree  # p, like z
    size: jax.Array  # [*batch], ‖r_before‖


def no_krylov(start: PyTree, size: jax.Array) -> Krylov:
    """Return the memory before any example is solved this way."""
    direction = jax.tree.map(jnp.zeros_like, start)
    on = jnp.zeros(size.shape, bool)
    return Krylov(on, direction, jnp.full_like(size, jnp.inf))


def restart(krylov: Krylov, again: jax.Array) -> Krylov:
    """Forget the last direction of some examples."""
    zeros = jax.tree.map(jnp.zeros_like, krylov.direction)
    return krylov._replace(
        direction=select(again, zeros, krylov.direction),
        size=jnp.where(again, jnp.inf, krylov.size),
    )


def krylov_step(
    pull: Callable[[PyTree], PyTree],
    krylov: Krylov,
    moves: jax.Array,
    z: PyTree,
    r: PyTree,
    size: jax.Array,
) -> tuple[PyTree, Krylov]:
    """Move the examples of `moves`, whose residual is r of this size; pull is A*."""
    add = lambda a, factor, b: jax.tree.map(jnp.add, a, times(factor, b))
    p = add(pull(r), relative(size, krylov.size) ** 2, krylov.direction)
    length = relative(size**2, squared_norm(p, size.ndim))
    return select(moves, add(z, length, p), z), krylov._replace(
        direction=select(moves, p, krylov.direction),
        size=jnp.where(moves, size, krylov.size),
    )
