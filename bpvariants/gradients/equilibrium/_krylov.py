"""Conjugate gradients (Craig's method) for a linear equation A z = b.

Notation: A* is the conjugate transpose of A, z* is the solution, and z₀ is the start.
r = b − A z is the residual, r₀ is the residual of z₀, and p is the search direction.
Each step minimises ‖z − z*‖ over z₀ + span{A* r₀, (A*A) A* r₀, …}, and applies A and A*
once:

    p ← A* r + p ‖r‖² / ‖r_before‖²,    z ← z + p ‖r‖² / ‖p‖²,    r = b − A z

In exact arithmetic, the method solves an equation with n unknowns in at most n steps,
even if a relaxation of this equation diverges.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._examples import relative, squared_norm, times
from bpvariants._masking import select
from bpvariants.types import PyTree


class Krylov(NamedTuple):
    """Which examples conjugate gradients solve, and the state of the iteration."""

    on: jax.Array  # bool [*batch]: whether conjugate gradients solve the example
    direction: PyTree  # search direction p, with the shapes of z
    size: jax.Array  # [*batch]: norm of the residual at the previous step


def no_krylov(start: PyTree, size: jax.Array) -> Krylov:
    """Return the state before conjugate gradients solve any example."""
    direction = jax.tree.map(jnp.zeros_like, start)
    on = jnp.zeros(size.shape, bool)
    return Krylov(on, direction, jnp.full_like(size, jnp.inf))


def restart(krylov: Krylov, again: jax.Array) -> Krylov:
    """Drop the last search direction of the examples where `again` is True."""
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
    """Take a step of conjugate gradients for the examples where `moves` is True.

    r is the residual b − A z of the linear equation A z = b, `size` is the norm of r,
    and `pull` multiplies by the conjugate transpose of A.
    """
    add = lambda a, factor, b: jax.tree.map(jnp.add, a, times(factor, b))
    p = add(pull(r), relative(size, krylov.size) ** 2, krylov.direction)
    length = relative(size**2, squared_norm(p, size.ndim))
    return select(moves, add(z, length, p), z), krylov._replace(
        direction=select(moves, p, krylov.direction),
        size=jnp.where(moves, size, krylov.size),
    )
