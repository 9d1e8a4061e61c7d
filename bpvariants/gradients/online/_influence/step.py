"""Update of the influence by one step, M_t = J_t M_{t−1} + I_t, for stored entries.

The carry h_t has n elements. M_t = dh_t/dθ is the influence of the params θ on h_t. The
derivatives of one step are I_t = ∂h_t/∂θ and J_t = ∂h_t/∂h_{t−1}.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import (
    as_vectors,
    carry_dtype,
    floating_leaves,
    replace_floating,
)
from bpvariants._dtypes import cast_like, widen
from bpvariants._jaxpr.jacobian_entries import compute_entries
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.plan import Plan
from bpvariants.gradients.online._online_step import OnlineStep
from bpvariants.types import PyTree

# For each array of params, its influence on K carry elements: an array [*batch, K,
# *shape], or, if its layout is split, K arrays [*batch, *shape].
Rows = list[jax.Array | list[jax.Array] | None]
SUMMED = 16  # number of blocks that `_sum_of_blocks` adds up
UNROLLED = 8  # largest number of terms that are added one by one, without a gather


def no_influence(layout: Layout, now: OnlineStep, params: PyTree) -> Rows:
    dtype = carry_dtype(now.start)

    def of_leaf(leaf, shape):
        if leaf is None:
            return None
        if leaf.is_split:
            return [jnp.zeros((*now.batch, *shape), dtype) for _ in leaf.rows]
        return jnp.zeros((*now.batch, len(leaf.rows), *shape), dtype)

    shapes = [jnp.shape(theta) for theta in jax.tree.leaves(params)]
    return list(map(of_leaf, layout.leaves, shapes))


class Linearised(NamedTuple):
    """The computed parts of a step's linearisation, for each example.

    Attributes:
      jacobian: [*batch, entries + 1]: the computed entries of J_t = ∂h_t/∂h_{t−1}, and
        a 0 at the end.
      immediate: for each array of params, the results of the backward passes for I_t =
        ∂h_t/∂θ: a list of arrays [*batch, *shape], or [*batch, passes, *shape].
    """

    jacobian: jax.Array
    immediate: list[jax.Array | list[jax.Array]]


def linearise(plan: Plan, now: OnlineStep, params: PyTree) -> Linearised:
    thetas, structure = jax.tree.flatten(params)

    def of_example(start, inputs):
        def new_carry(thetas, leaves):
            theta = cast_like(structure.unflatten(thetas), params)
            new, _ = now.example(theta, replace_floating(start, leaves), inputs)
            return as_vectors(new, ())[0]

        leaves = widen(floating_leaves(start))
        new, pull = jax.vjp(new_carry, widen(thetas), leaves)
        back, by = partial(_pull_back, pull), plan.carry
        immediate, of_carry = back(jnp.asarray(plan.passes, new.dtype))
        if by.entries is not None:
            arguments = jax.tree.leaves((params, start, inputs))
            jacobian = compute_entries(plan.program, by.entries, arguments)
            return jacobian.astype(new.dtype), immediate
        passes = np.asarray(by.passes)
        assert passes is not None  # a plan has either `passes` or `entries`
        if not np.array_equal(plan.passes, passes):
            of_carry = back(jnp.asarray(passes, new.dtype))[1]
        return as_vectors(of_carry, (len(passes),))[0].reshape(-1), immediate

    for _ in now.batch:
        of_example = jax.vmap(of_example)
    jacobian, immediate = of_example(now.start, now.inputs)
    return Linearised(_with_zero(jacobian), immediate)


def _pull_back(pull: Callable, cotangents: jax.Array) -> tuple[list, PyTree]:
    """Apply `pull` to each cotangent of a stack; return its parts for θ and h_{t−1}.

    The parts for h_{t−1} are stacked. A few parts for an array of params stay a list.
    XLA then computes each outer product where it is used, without storing it.
    """
    if not 0 < len(cotangents) <= UNROLLED:
        return jax.vmap(pull)(cotangents)
    thetas, carries = zip(*map(pull, cotangents), strict=True)
    carries = jax.tree.map(lambda *parts: jnp.stack(parts), *carries)
    return list(map(list, zip(*thetas, strict=True))), carries


def through_carry(plan: Plan, found: Linearised, error: jax.Array) -> jax.Array:
    """Return the product of the row vector `error` and J = ∂h_t/∂h_{t−1}, [*batch, n].

    Element i of the product is correct only if row i of the influence is stored. (The
    other elements are not needed.)
    """
    lookup = plan.carry.lookup
    rows, columns = np.nonzero(lookup >= 0)
    counts = np.bincount(columns, minlength=len(lookup))[:-1]
    if counts.max(initial=0) > UNROLLED:
        jacobian = _look_up(found.jacobian, lookup[:-1, :-1])
        return jnp.einsum("...i,...ik->...k", error.astype(jacobian.dtype), jacobian)
    padded = _with_zero(error.astype(found.jacobian.dtype))
    total = jnp.zeros_like(error, found.jacobian.dtype)
    every = np.arange(len(counts))
    for k in range(counts.max(initial=0)):  # add the k-th nonzero entry of each column
        place = np.full(len(counts), len(counts))
        first = np.cumsum(counts) - counts
        some = counts > k
        place[some] = rows[np.argsort(columns, kind="stable")][(first + k)[some]]
        entries = _look_up(found.jacobian, lookup[place, every])
        total += _look_up(padded, place) * entries
    return total


def next_influence(plan: Plan, found: Linearised, entering: Rows) -> Rows:
    jacobian, immediate = found

    def of_leaf(leaf, colours, passes, old):
        if leaf is None or old is None:
            return None
        new = _next_rows if leaf.is_split else _next_of_leaf
        return new(plan, leaf, colours, jacobian, passes, old)

    leaves = plan.layout.leaves, plan.colours, immediate, entering
    return list(map(of_leaf, *leaves))


def add_through(
    grads: PyTree, layout: Layout, error: jax.Array, influence: Rows
) -> PyTree:
    """Add to `grads` the product of `error` and the influence, summed over the batch.

    `error` is a cotangent of the carry, as an array [*batch, n]. If no rows of the
    influence are stored for an array of params, the array's gradient does not change.
    """
    thetas, structure = jax.tree.flatten(grads)
    rank, padded, new = error.ndim - 1, _with_zero(error), []
    for leaf, rows, grad in zip(layout.leaves, influence, thetas, strict=True):
        if leaf is None or rows is None:
            new.append(grad)
            continue
        if isinstance(rows, list):  # one array for each row of the influence
            first, *others = (
                _sum_of_products(_look_up(padded, places), row, rank)
                for places, row in zip(leaf.rows, rows, strict=True)
            )
            late = sum(others, start=first)
        elif leaf.is_full:
            of_rows = padded[..., leaf.rows.reshape(-1)]
            late = jnp.tensordot(of_rows, rows, axes=rank + 1)
        else:
            late = _sum_of_products(_look_up(padded, leaf.rows), rows, rank + 1)
        new.append(grad + late.reshape(grad.shape))
    return structure.unflatten(new)


def _next_of_leaf(plan, leaf, colours, jacobian, passes, old):
    dtype, rank = old.dtype, jacobian.ndim - 1
    rows = leaf.rows
    if leaf.is_full:
        rows = rows.reshape(-1)
        matrix = jacobian[..., plan.carry.lookup[rows[:, None], rows]].astype(dtype)
        size = math.prod(old.shape[rank + 1 :])
        new = matrix @ old.reshape(*old.shape[: rank + 1], size)
        new = new.reshape(old.shape)
    else:
        places = plan.carry.lookup[rows[:, None], rows]
        new = _times(jacobian.astype(dtype), places, old, rank)
    new = new + _immediate(colours, passes, rank).astype(dtype)
    if leaf.allowed.all() or not leaf.is_full:  # absent rows of `new` are 0 already
        return new
    return jnp.where(leaf.allowed, new, jnp.zeros((), dtype))


def _next_rows(plan, leaf, colours, jacobian, passes, old):
    """Return the new influence of an array of params whose K rows are K arrays."""
    dtype, rank = old[0].dtype, jacobian.ndim - 1
    jacobian, new = jacobian.astype(dtype), []
    for row, colour in zip(leaf.rows, colours, strict=True):
        total = _immediate(colour[None], passes, rank).astype(dtype)
        total = total[(slice(None),) * rank + (0,)] if total.ndim else total
        for column, of_column in zip(leaf.rows, old, strict=True):
            places = plan.carry.lookup[row, column]
            if (places >= 0).any():
                total += _look_up(jacobian, places) * of_column
        new.append(jnp.broadcast_to(total, old[0].shape))
    return new


def _times(
    jacobian: jax.Array, places: np.ndarray, old: jax.Array, rank: int
) -> jax.Array:
    if len(places) == 1:  # XLA can compute this simple product in place
        return _look_up(jacobian, places[0]) * old
    used = np.flatnonzero((places >= 0).reshape(*places.shape[:2], -1).any((0, 2)))
    if len(used) > UNROLLED:
        factors = _look_up(jacobian, places)
        return jnp.sum(factors * jnp.expand_dims(old, rank), axis=rank + 1)
    of_row = lambda k: jax.lax.slice_in_dim(old, k, k + 1, axis=rank)
    terms = [_look_up(jacobian, places[:, k]) * of_row(k) for k in used]
    return sum(terms, jnp.zeros((), old.dtype))


def _immediate(
    colours: np.ndarray, passes: jax.Array | list[jax.Array], rank: int
) -> jax.Array:
    """Collect the stored rows of ∂h_t/∂θ from backward passes, [*batch, K, *shape]."""
    none = jnp.zeros((), jax.tree.leaves(passes)[0].dtype)
    if isinstance(passes, list):
        total = none
        for colour in sorted({*colours.flat} - {-1}):
            one = jnp.expand_dims(passes[colour], rank)
            total += jnp.where(colours == colour, one, none)
        return total
    if not passes.shape[rank]:
        return none
    if colours.size == len(colours):  # each row comes from one backward pass
        chosen = jnp.take(passes, np.maximum(colours.reshape(-1), 0), axis=rank)
        return jnp.where(colours >= 0, chosen, none)
    shape = (*[1] * rank, *colours.shape)
    chosen = jnp.take_along_axis(
        passes, np.maximum(colours, 0).reshape(shape), axis=rank
    )
    return jnp.where(colours >= 0, chosen, none)


def _look_up(values: jax.Array, places: np.ndarray) -> jax.Array:
    """Return the entries of `values` at the positions `places` of the last axis.

    The gather is from the flattened array. In a gather from an array with a batch axis,
    XLA would put the batch axis last in memory. Later products would access such memory
    in strides of the batch size, which is slow.
    """
    count, size = math.prod(values.shape[:-1]), values.shape[-1]
    flat = np.arange(count).reshape(-1, *[1] * places.ndim) * size + places % size
    taken = values.reshape(-1)[flat]
    return taken.reshape(*values.shape[:-1], *places.shape)


def _sum_of_products(a: jax.Array, b: jax.Array, axes: int) -> jax.Array:
    """Return the sum of a · b over the first `axes` axes.

    The sum is computed block by block. For a plain sum on CPUs, XLA's inner loops run
    along the summed axes, which is slow.
    """
    size = math.prod(b.shape[:axes])
    if not size:
        return jnp.zeros(b.shape[axes:], b.dtype)
    a, b = (x.reshape(size, *x.shape[axes:]) for x in (a, b))
    total = _sum_of_blocks(size, lambda block: a[block] * b[block])
    while len(total) > 1:
        total = _sum_of_blocks(len(total), total.__getitem__)
    return total[0]


def _sum_of_blocks(length: int, block_of: Callable[[slice], jax.Array]) -> jax.Array:
    """Add at most `SUMMED` blocks of an array; append the slices that fill no block.

    A block is a slice of the first axis, and all blocks have the same length. `length`
    is the length of the first axis. `block_of` returns the array's values in a slice.
    """
    count = min(length, SUMMED)
    size = length // count
    first, *others = (block_of(slice(i * size, (i + 1) * size)) for i in range(count))
    total = sum(others, first)
    rest = slice(count * size, length)
    return total if rest.start == length else jnp.concatenate([total, block_of(rest)])


def _with_zero(values: jax.Array) -> jax.Array:
    """Append a zero along the last axis, so that index −1 and index n read a zero.

    n is the length of this axis before the zero is appended. Index n stands for a row
    that does not exist.
    """
    zero = jnp.zeros((*values.shape[:-1], 1), values.dtype)
    return jnp.concatenate([values, zero], axis=-1)
