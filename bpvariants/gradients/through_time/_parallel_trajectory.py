"""Solve for all carries at once; differentiate the solution by one linear recurrence.

A network's step f has parameters θ and input x_t. The trajectory h = (h_1 … h_T) of the
carry is the root of

    g(h)_t = f(θ, h_{t−1}, x_t) − h_t = 0,    t = 1 … T.

With J_t = ∂f/∂h_{t−1}, the derivative of g maps a direction v to J_t v_{t−1} − v_t. To
apply the inverse of this derivative, a linear recurrence along time is solved.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import as_vectors
from bpvariants._dtypes import cast_like, widen
from bpvariants.gradients.through_time._parallel_jacobians import Blocks
from bpvariants.gradients.through_time._parallel_newton import (
    iterate,
    newton,
    solve_tangent,
)
from bpvariants.gradients.through_time._parallel_scan import carried, elementwise_scan
from bpvariants.types import PyTree


class Found(NamedTuple):
    """Information on how Newton's method computed a trajectory."""

    steps: jax.Array  # [*batch]: number of iterations
    converged: jax.Array  # [*batch] bool: whether the iterations converged
    in_place: bool  # whether examples that did not converge were run step by step


def linear_trajectory(all_steps: Any, start: PyTree) -> tuple[PyTree, PyTree]:
    """Return the trajectory of an elementwise affine step, and the result of a check.

    The trajectory is the result of one Newton iteration from 0. If the Jacobians of the
    step are diagonal, one forward derivative, in a direction of all ones, contains the
    diagonals of all Jacobians. Another Jacobian-vector product is used to check that
    the Jacobians are diagonal and do not depend on the carry. This second product is
    computed at the trajectory, in a direction whose elements all differ. The second
    result, [T, *batch, ...], is True for the carry elements that passed this check.
    """

    def new_carries(hs):
        return widen(all_steps(cast_like(hs, start))[0])

    def gap(hs):
        return jax.tree.map(jnp.subtract, new_carries(hs), hs)

    def solve(gap, zeros):
        del gap  # unused: its derivative A_t v_{t−1} − v_t loses digits of A_t
        ones = jax.tree.map(jnp.ones_like, zeros)
        return elementwise_scan(*jax.jvp(new_carries, (zeros,), (ones,))[::-1])

    def tangent_solve(slopes, y):
        factors = carried(slopes, jax.tree.map(jnp.ones_like, y))
        return elementwise_scan(factors, jax.tree.map(jnp.negative, y))

    hs = jax.lax.custom_root(gap, widen(start), solve, tangent_solve)
    held = jax.lax.stop_gradient(hs)
    ones = jax.tree.map(jnp.ones_like, held)
    zeros = jax.tree.map(jnp.zeros_like, held)
    at_zero = jax.jvp(new_carries, (zeros,), (ones,))[1]
    probe = _all_different(held)
    seen = jax.jvp(new_carries, (held,), (probe,))[1]
    tolerance = 1000 * spacing(start)
    close = lambda a, b, v: is_close(a, b * v, jnp.abs(b), tolerance)
    passed = jax.tree.map(close, *jax.lax.stop_gradient((seen, at_zero, probe)))
    return cast_like(hs, start), passed


def _all_different(tree: PyTree) -> PyTree:
    """Return random values in [1, 2), from a fixed seed, equal at all time steps."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    real = lambda leaf: jnp.finfo(leaf.dtype).dtype
    draw = lambda key, leaf: jnp.broadcast_to(
        jax.random.uniform(key, leaf.shape[1:], real(leaf), 1, 2), leaf.shape
    )
    drawn = [draw(key, leaf) for key, leaf in zip(keys, leaves, strict=True)]
    return structure.unflatten(cast_like(drawn, leaves))


def is_close(
    a: jax.Array, b: jax.Array, size: jax.Array, tolerance: float
) -> jax.Array:
    """Return whether |a − b| ≤ tolerance · (largest `size` along time).

    The result has one flag for each element. If an element of a or b is not finite,
    these elements count as close, because other checks find values that are not finite.
    A size that is not finite counts as 0, so that it does not hide an error at other
    times.
    """
    finite = jnp.isfinite(a) & jnp.isfinite(b)
    size = jnp.where(jnp.isfinite(size), size, jnp.zeros_like(size))
    size = jnp.max(size, axis=0, keepdims=True)
    off = jnp.abs(a - b) > jnp.asarray(tolerance, size.dtype) * size
    return ~(finite & off)


def newton_trajectory(
    all_steps: Any,
    in_order: Any,
    start: PyTree,
    method: newton,
    batch_ndim: int,
    blocks: Blocks | None = None,
) -> tuple[PyTree, Found]:
    """Return the trajectory that Newton's method finds, and a :class:`Found`.

    `all_steps` runs all steps in parallel from given carries; `in_order` runs the steps
    one after another.
    """
    times = jax.tree.leaves(start)[0].shape[: batch_ndim + 1]  # [T, *batch]
    vectors, as_tree = as_vectors(start, times)
    as_vector = lambda tree: as_vectors(tree, times)[0]
    eps = spacing(start)
    elements = lambda leaf: math.prod(leaf.shape[batch_ndim + 1 :])
    sizes = tuple(
        elements(leaf) * (2 if jnp.iscomplexobj(leaf) else 1)
        for leaf in jax.tree.leaves(start)
    )

    def gap(hs):
        return as_vector(all_steps(as_tree(hs))[0]) - hs

    def solve(gap, vectors):
        found = iterate(gap, vectors, method, eps, sizes, blocks=blocks)
        converged, hs = found.converged, found.trajectory
        if method.on_failure == "sequential":
            choose = lambda: jnp.where(
                converged[None, ..., None], hs, as_vector(in_order())
            )
            hs = jax.lax.cond(jnp.all(converged), lambda: hs, choose)
        # custom_root needs floating auxiliary outputs, so cast the counts of iterations
        # and the flags.
        how = found.steps, converged
        return hs, jax.tree.map(lambda a: a.astype(hs.dtype), how)

    tangent_solve = partial(
        solve_tangent, method=method, eps=eps, sizes=sizes, blocks=blocks
    )
    hs, (steps, converged) = jax.lax.custom_root(
        gap, vectors, solve, tangent_solve, has_aux=True
    )
    in_place = method.on_failure == "sequential"
    return as_tree(hs), Found(jnp.int32(steps), converged != 0, in_place)


def spacing(tree: PyTree) -> float:
    """Return the largest machine epsilon among the dtypes of a pytree."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
