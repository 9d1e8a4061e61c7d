"""Jacobians of all time steps: as matrices, as diagonals, or as small blocks.

Notation: h_t is the carry of one example, with n elements, and J_t = ∂h_t/∂h_{t−1}. A
block is a set of carry elements that read each other's old values directly, and not
through a sum over other elements, such as the two elements c and h of one unit of an
LSTM. Blocks are found from the jaxpr of the step. If no element reads an element of
another block in any way, J_t is block-diagonal, and blocks give Newton's method itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from bpvariants._carries import example_shapes, floating_leaves, one_example
from bpvariants._jaxpr.linearisation import tangent_program
from bpvariants._jaxpr.sparsity import dependence
from bpvariants.gradients.through_time._parallel_scan import (
    carried,
    dense_scan,
    elementwise_scan,
)
from bpvariants.types import PyTree, Step

Gap = Callable[[jax.Array], jax.Array]  # function trajectory -> residuals


class Blocks(NamedTuple):
    """Division of the n carry elements of one example into m blocks of at most b."""

    # int [m, b]: indices of the elements of each block; n in unused places
    members: np.ndarray
    # int [n]: place of each element in the flat array of `members`
    places: np.ndarray
    is_exact: bool  # whether all Jacobian entries outside the blocks are 0


def find_blocks(
    step: Step, params: PyTree, carry: PyTree, x: PyTree, batch_ndim: int
) -> Blocks:
    """Find the blocks of a step's Jacobian from its jaxpr, while tracing.

    A complex carry element counts as a block of its real and its imaginary part, which
    are two elements of the vector of the carry.
    """
    examples = example_shapes((carry, x), batch_ndim)
    program = tangent_program(one_example(step, batch_ndim), params, *examples)
    leaves = jax.eval_shape(floating_leaves, examples[0])
    twin = _real_parts(leaves)
    spread = lambda pattern: twin @ pattern.astype(np.float32) @ twin.T
    groups = [
        _components(spread(dependence(program, direct_only=direct).carry), twin)
        for direct in (True, False)
    ]
    is_exact = bool(groups[0].max(initial=0) == groups[1].max(initial=0))
    return _arranged(groups[0], is_exact)


def _real_parts(leaves: list[jax.ShapeDtypeStruct]) -> Any:
    """Return the sparse matrix that repeats complex elements as two real elements."""
    columns, start = [], 0
    for leaf in leaves:
        own = np.arange(start, start + leaf.size)
        columns += [own] * (2 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1)
        start += leaf.size
    columns = np.concatenate(columns)
    ones = np.ones(len(columns), np.float32)
    return sparse.csr_array((ones, (np.arange(len(columns)), columns)))


def _components(pattern: Any, twin: Any) -> np.ndarray:
    """Return the number of each element's component; parts of a complex number join."""
    linked = sparse.csr_array(pattern + twin @ twin.T)
    return sparse.csgraph.connected_components(linked, directed=False)[1]


def _arranged(labels: np.ndarray, is_exact: bool) -> Blocks:
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members = np.full((len(sizes), sizes.max()), len(labels))
    members[labels[order], within] = order
    places = np.empty(len(labels), int)
    places[order] = labels[order] * sizes.max() + within
    return Blocks(members, places, is_exact)


def propagate(
    slopes: Gap,
    wrong: jax.Array,
    jacobian: str,
    keep: jax.Array | float,
    reverse: bool,
    blocks: Blocks | None = None,
) -> jax.Array:
    """Compute the correction of each step's carry by a linear recurrence along time.

    `wrong` has the residuals, `keep` is 1 − λ with the setting λ = `shrink`, and
    slopes(v)_t is J_t v_{t−1} − v_t with the Jacobian J_t of step t.
    """
    if jacobian == "full":
        return dense_scan(keep * matrices(slopes, wrong), wrong, reverse)
    if jacobian == "diagonal":
        return elementwise_scan(keep * _diagonals(slopes, wrong), wrong, reverse)
    assert blocks is not None
    within = keep * block_matrices(slopes, wrong, blocks)
    return ungrouped(dense_scan(within, grouped(wrong, blocks), reverse), blocks)


def matrices(slopes: Gap, like: jax.Array) -> jax.Array:
    basis = jnp.eye(like.shape[-1], dtype=like.dtype)
    column = lambda e: carried(slopes, _everywhere(e, like))
    return jnp.moveaxis(jax.vmap(column)(basis), 0, -1)


def _diagonals(slopes: Gap, like: jax.Array) -> jax.Array:
    """Return the diagonal of each step's Jacobian, [T, *batch, n].

    To save memory, the entries are computed one after another, each for all steps at
    once.
    """
    numbers = jnp.arange(like.shape[-1])

    def entry(i):
        basis = (numbers == i).astype(like.dtype)
        return slopes(_everywhere(basis, like))[..., i] + 1

    return jnp.moveaxis(jax.lax.map(entry, numbers), 0, -1)


def block_matrices(slopes: Gap, like: jax.Array, blocks: Blocks) -> jax.Array:
    """Return the blocks of each step's Jacobian, [T, *batch, m, b, b].

    For a block-diagonal Jacobian, one product with a direction that is 1 at the j-th
    element of every block has column j of all blocks. Otherwise each element needs a
    product of its own; these are computed one after another.
    """
    members, units = blocks.members, like.shape[-1]
    if blocks.is_exact:
        basis = np.zeros((members.shape[1], units + 1), like.dtype)
        np.put_along_axis(basis, members.T, 1, axis=1)
        column = lambda e: grouped(carried(slopes, _everywhere(e, like)), blocks)
        columns = jax.vmap(column)(jnp.asarray(basis[:, :units]))
        return jnp.moveaxis(columns, 0, -1)
    rows = members[blocks.places // members.shape[1]]  # [n, b]: each element's block
    numbers = jnp.arange(units)

    def column_of(inputs):
        i, row = inputs
        basis = (numbers == i).astype(like.dtype)
        return _taken(carried(slopes, _everywhere(basis, like)), row)

    columns = jax.lax.map(column_of, (numbers, jnp.asarray(rows)))
    columns = jnp.concatenate([columns, jnp.zeros_like(columns[:1])])[members]
    return jnp.moveaxis(columns, (0, 1), (-3, -1))


def grouped(vectors: jax.Array, blocks: Blocks) -> jax.Array:
    """Arrange vectors [..., n] as blocks [..., m, b], with 0 in unused places."""
    return _taken(vectors, blocks.members)


def ungrouped(values: jax.Array, blocks: Blocks) -> jax.Array:
    flat = values.reshape(*values.shape[:-2], -1)
    return jnp.take(flat, blocks.places, axis=-1)


def _taken(vectors: jax.Array, indices: Any) -> jax.Array:
    return jnp.take(vectors, indices, axis=-1, mode="fill", fill_value=0)


def _everywhere(e: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(e.reshape((1,) * (like.ndim - 1) + e.shape), like.shape)
