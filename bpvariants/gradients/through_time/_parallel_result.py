"""Info on a parallel run, and NaN for the examples whose trajectory is wrong."""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._dtypes import is_floating, widen
from bpvariants._examples import largest
from bpvariants.gradients.through_time._parallel_info import ParallelInfo
from bpvariants.gradients.through_time._parallel_trajectory import (
    Found,
    is_close,
    spacing,
)
from bpvariants.types import PyTree


def inspect(
    new: PyTree, carries: PyTree, how: Any, batch_ndim: int
) -> tuple[jax.Array, ParallelInfo]:
    """Return which examples [*batch] have a correct trajectory, and the info."""
    new, old = jax.lax.stop_gradient((widen(new), widen(carries)))
    over_time = lambda tree: jnp.max(largest(tree, batch_ndim + 1), axis=0)
    differences = jax.tree.map(jnp.subtract, new, old)
    residual = over_time(differences)
    if isinstance(how, Found):
        steps, converged, in_place = how
        fell_back = ~converged & in_place
        info = ParallelInfo(steps, residual, converged, fell_back, carries)
        return converged | fell_back, info
    # Check each carry element separately, so that a large element does not hide the
    # error of another element.
    tol = max(1000 * spacing(new), 8 * spacing(carries))
    close = lambda a, b, passed: passed & is_close(a, b, jnp.abs(b), tol)
    each = jax.tree.leaves(jax.tree.map(close, new, old, how))
    axes = lambda leaf: (0, *range(1 + batch_ndim, leaf.ndim))
    right = jnp.all(jnp.stack([jnp.all(leaf, axes(leaf)) for leaf in each]), axis=0)
    steps = jnp.ones(residual.shape, jnp.int32)
    fell_back = jnp.zeros(residual.shape, bool)
    converged = right & jnp.isfinite(residual)
    return right, ParallelInfo(steps, residual, converged, fell_back, carries)


def nan_unless(right: jax.Array, tree: PyTree, axes_before: int) -> PyTree:
    """Multiply the values of examples with a wrong trajectory by NaN.

    This also makes the derivatives of these examples NaN.
    """

    def spoil(leaf):
        if not is_floating(leaf):
            return leaf
        factor = jnp.where(right, 1, jnp.nan).astype(leaf.dtype)
        trailing = (1,) * (leaf.ndim - axes_before - right.ndim)
        return leaf * factor.reshape((1,) * axes_before + right.shape + trailing)

    return jax.tree.map(spoil, tree)
