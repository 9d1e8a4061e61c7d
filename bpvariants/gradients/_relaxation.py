"""Relaxation to a fixed point of any map, with what it says of its convergence.

    h ← (1 − τ) h + τ g(h)    until ‖g(h) − h‖ ≤ tol · scale

It converges where every eigenvalue μ of the Jacobian of g has |1 − τ + τμ| < 1.
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import widen
from bpvariants.gradients._masking import select
from bpvariants.types import PyTree

WINDOW = 20  # ratios of residuals oscillate; their mean over so many does not
GROWTH = 1e4  # how far above its lowest value ‖g(h) − h‖ may rise


class FixedPointInfo(NamedTuple):
    """How a relaxation went, [*batch] each: what cannot be raised under jit.

    Attributes:
      steps: evaluations of the map.
      residual: ‖g(h) − h‖ of what is returned, relative to the solver's scale.
      converged: bool, whether the residual is within the tolerance.
      spectral_radius: estimate of the factor by which a step shrinks the error; with
        damping 1, of the spectral radius of the Jacobian. From 1 on nothing converges.
    """

    steps: jax.Array
    residual: jax.Array
    converged: jax.Array
    spectral_radius: jax.Array


class _State(NamedTuple):
    h: PyTree
    best: PyTree  # the iterate with the lowest ‖g(h) − h‖
    lowest: jax.Array  # its ‖g(h) − h‖
    residual: jax.Array  # the same, relative to the scale
    recent: jax.Array  # [WINDOW, *batch], the last ‖g(h) − h‖
    steps: jax.Array
    active: jax.Array


def relax_to_fixed_point(
    g: Callable[[PyTree], PyTree],
    start: PyTree,
    scale: Callable[[PyTree], jax.Array],
    *,
    damping: float | jax.Array,
    tol: float | jax.Array,
    max_steps: int | jax.Array,
    batch_ndim: int,
) -> tuple[PyTree, FixedPointInfo]:
    """Return the iterate of lowest residual, and how it was found.

    An example whose residual is within tol, not finite or growing is left alone from
    then on, and the loop ends when all examples are, or after max_steps.
    """
    size = norm(start, batch_ndim)
    batch, dtype = size.shape, size.dtype
    tol = jnp.asarray(tol, dtype)

    def relax(state: _State) -> _State:
        new = g(state.h)
        difference = jax.tree.map(jnp.subtract, new, state.h)
        size = norm(difference, batch_ndim)
        residual = relative(size, scale(state.h))
        better = state.active & ((size < state.lowest) | (residual <= tol))
        lowest = jnp.where(better, size, state.lowest)
        recent = jnp.concatenate([state.recent[1:], size[None]])
        going_on = (residual > tol) & (size <= GROWTH * lowest)
        steps = state.steps + state.active.astype(jnp.int32)
        active = state.active & going_on & (steps < max_steps)
        move = lambda h, d: h + jnp.asarray(damping, h.dtype) * d
        return _State(
            h=select(active, jax.tree.map(move, state.h, difference), state.h),
            best=select(better, state.h, state.best),
            lowest=lowest,
            residual=jnp.where(better, residual, state.residual),
            recent=jnp.where(state.active[None], recent, state.recent),
            steps=steps,
            active=active,
        )

    state = _State(
        h=start,
        best=start,
        lowest=jnp.full(batch, jnp.inf, dtype),
        residual=jnp.full(batch, jnp.inf, dtype),
        recent=jnp.zeros((WINDOW, *batch), dtype),
        steps=jnp.zeros(batch, jnp.int32),
        active=jnp.ones(batch, bool),
    )
    state = jax.lax.while_loop(lambda state: jnp.any(state.active), relax, state)
    return state.best, FixedPointInfo(
        state.steps, state.residual, state.residual <= tol, _contraction(state)
    )


def norm(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return the Euclidean norm over all leaves, [*batch], in float32 or wider."""
    square = lambda leaf: jnp.sum(
        jnp.abs(widen(leaf)) ** 2, axis=tuple(range(batch_ndim, leaf.ndim))
    )
    return jnp.sqrt(sum(jax.tree.leaves(jax.tree.map(square, tree))))


def largest(tree: PyTree, batch_ndim: int) -> jax.Array:
    """Return the largest absolute value in all leaves, [*batch], 0 if there is none."""
    of_leaf = lambda leaf: jnp.max(
        jnp.abs(widen(leaf)), axis=tuple(range(batch_ndim, leaf.ndim)), initial=0
    )
    return reduce(jnp.maximum, jax.tree.leaves(jax.tree.map(of_leaf, tree)))


def times(factor: jax.Array, tree: PyTree) -> PyTree:
    """Multiply each example by its factor, [*batch]."""

    def multiply(leaf):
        shape = factor.shape + (1,) * (leaf.ndim - factor.ndim)
        return leaf * factor.reshape(shape).astype(leaf.dtype)

    return jax.tree.map(multiply, tree)


def relative(size: jax.Array, scale: jax.Array) -> jax.Array:
    """Return size / scale, 0 where both are 0."""
    return jnp.where(size == 0, 0, size / jnp.where(size == 0, 1, scale))


def _contraction(state: _State) -> jax.Array:
    """Return the geometric mean of the last ratios of residuals, which telescopes."""
    ratios = jnp.clip(state.steps - 1, 0, WINDOW - 1)
    first = jnp.take_along_axis(state.recent, WINDOW - 1 - ratios[None], axis=0)[0]
    ratio = relative(state.recent[-1], first)
    power = 1 / jnp.maximum(ratios, 1).astype(ratio.dtype)
    return jnp.where(ratios > 0, ratio**power, 0)
