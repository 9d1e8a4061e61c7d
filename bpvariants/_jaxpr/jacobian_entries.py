"""Compute only chosen entries of a step's Jacobian ∂h_t/∂h_{t−1}.

The whole Jacobian of a carry h_t with n elements takes n backward passes, even if only
its n diagonal entries are needed. This file takes two passes instead. The first pass
goes backwards through the jaxpr of the linearised step. Each intermediate array of the
step has a Jacobian in h_{t−1}, too. The first pass finds the entries of these Jacobians
on which the chosen entries depend. The second pass goes forwards through the jaxpr and
computes only the entries that the first pass has found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from bpvariants._jaxpr.linear_operations import Link
from bpvariants._jaxpr.linearisation import primal_values, TangentProgram
from bpvariants._jaxpr.program import is_variable
from bpvariants._jaxpr.sparsity import Dependence, Sparse, spread


class Entries(NamedTuple):
    """Entries to compute of J = ∂h_t/∂h_{t−1} and of intermediate Jacobians.

    h_t is the carry, with n elements.

    Attributes:
      pattern: sparse bool [n, n]: True for the entries of J to compute.
      wanted: variable -> sparse bool [size, n]: True for the entries to compute of the
        variable's Jacobian in h_{t−1}.
      direct_only: whether to ignore paths through primitives that add up different
        elements of an operand, such as matrix products.
    """

    pattern: Sparse
    wanted: dict[Any, Sparse]
    direct_only: bool


def plan_entries(
    program: TangentProgram,
    found: Dependence,
    needed: np.ndarray,
    direct_only: bool = False,
) -> Entries | None:
    """Plan how to compute the entries of J = ∂h_t/∂h_{t−1} marked in `needed` [n, n].

    h_t is the carry, with n elements. `found` is the result of `sparsity.dependence`
    for the same `direct_only`. Return None if the jaxpr uses refs. Also return None if
    a path to a needed entry goes through a primitive that `linear_operations` does not
    know.
    """
    if program.is_opaque and needed.any():
        return None
    pattern = sparse.csr_array(needed)
    pattern.sort_indices()
    wanted: dict[Any, Sparse] = {}
    start = 0
    for atom in program.outputs:
        size = atom.aval.size
        if is_variable(atom) and atom in found.through:
            _add(wanted, atom, pattern[start : start + size], found)
        start += size
    for equation, its_links in reversed(program.linear):
        outputs = [wanted.get(variable) for variable in equation.outvars]
        if all(output is None or output.nnz == 0 for output in outputs):
            continue
        if its_links is None:
            if direct_only:  # element-wise paths avoid unknown primitives
                continue
            return None
        for output, of_output in zip(outputs, its_links, strict=True):
            for link, atom in zip(of_output, equation.invars, strict=True):
                if link is None or output is None or (direct_only and link.mixes):
                    continue
                if not is_variable(atom) or atom not in found.through:
                    continue
                back = spread(link, output.shape[0], atom.aval.size).T.tocsr()
                _add(wanted, atom, back @ output, found)
    return Entries(pattern, wanted, direct_only)


def compute_entries(
    program: TangentProgram, entries: Entries, leaves: list[jax.Array]
) -> jax.Array:
    """Return the planned entries of the Jacobian ∂h_t/∂h_{t−1}, in row-major order.

    h_t is one example's carry. `leaves` are the leaves of this example's (params,
    carry, inputs).
    """
    pattern, wanted, _ = entries
    read = primal_values(program, leaves)
    values = {  # the Jacobian of h_{t−1} in itself is the identity
        variable: jnp.ones(wanted[variable].nnz, variable.aval.dtype)
        for variable in program.h
        if variable in wanted
    }
    for equation, its_links in program.linear:
        for k, variable in enumerate(equation.outvars):
            if its_links is not None and variable in wanted:
                parts = _parts(entries, equation, its_links[k], variable, values, read)
                none = jnp.zeros(wanted[variable].nnz, variable.aval.dtype)
                values[variable] = sum((a.astype(none.dtype) for a in parts), none)
    results, start = [jnp.zeros(0)], 0
    for atom in program.outputs:
        rows = pattern[start : start + atom.aval.size]
        start += atom.aval.size
        none = jnp.zeros(rows.nnz, atom.aval.dtype)
        given = is_variable(atom) and atom in values
        found = _looked_up(rows, wanted[atom], values[atom]) if given else none
        results.append(found)
    dtype = jnp.result_type(*results[1:])
    return jnp.concatenate([result.astype(dtype) for result in results])


def _parts(
    entries: Entries,
    equation: Any,
    its_links: list[Link | None],
    variable: Any,
    values: dict[Any, jax.Array],
    read: Callable,
) -> list[jax.Array]:
    parts = []
    for link, atom in zip(its_links, equation.invars, strict=True):
        if link is None or (entries.direct_only and link.mixes):
            continue
        if is_variable(atom) and atom in values:
            wanted = entries.wanted[variable], entries.wanted[atom]
            parts.append(_through(link, *wanted, values[atom], read))
    return parts


def _add(
    wanted: dict[Any, Sparse], variable: Any, entries: Any, found: Dependence
) -> None:
    """Mark as wanted those `entries` of a variable's Jacobian that may be nonzero."""
    entries = entries.multiply(found.through[variable]).astype(bool)
    old = wanted.get(variable)
    entries = entries if old is None else (old + entries).astype(bool)
    entries = sparse.csr_array(entries)
    entries.eliminate_zeros()
    entries.sort_indices()
    wanted[variable] = entries


def _through(
    link: Link,
    result: Sparse,
    operand: Sparse,
    values: jax.Array,
    read: Any,
) -> jax.Array:
    # Pair each (row, column) of the link with each entry (column, j) of the operand's
    # Jacobian, where j is the index of a carry element.
    counts = np.diff(operand.indptr)[link.columns]
    pair = np.repeat(np.arange(len(link.rows)), counts)
    begins = np.repeat(operand.indptr[:-1][link.columns], counts)
    offsets = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    source = begins + offsets
    target = _find(result, link.rows[pair], operand.indices[source])
    chosen = np.flatnonzero(target >= 0)
    pair, source, target = pair[chosen], source[chosen], target[chosen]
    terms = _take(values, source)
    if link.factor is not None:
        factor = _take(link.factor(read), pair)
        dtype = jnp.promote_types(factor.dtype, terms.dtype)
        terms = factor.astype(dtype) * terms.astype(dtype)
    if link.apply is not None:
        terms = link.apply(terms)
    if np.array_equal(target, np.arange(result.nnz)):
        return terms
    zeros = jnp.zeros(result.nnz, terms.dtype)
    if len(np.unique(target)) == len(target):
        order = np.full(result.nnz, len(target))
        order[target] = np.arange(len(target))
        return jnp.append(terms, jnp.zeros(1, terms.dtype))[order]
    return zeros.at[target].add(terms)


def _looked_up(rows: Sparse, entries: Any, values: Any) -> jax.Array:
    coordinates = rows.tocoo()
    positions = _find(entries, coordinates.row, coordinates.col)
    if np.array_equal(positions, np.arange(entries.nnz)):
        return values
    return jnp.append(values, jnp.zeros(1, values.dtype))[positions]


def _find(entries: Sparse, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the index of each (row, column) among sorted entries; −1 if absent."""
    width = entries.shape[1]
    at = np.repeat(np.arange(entries.shape[0]), np.diff(entries.indptr))
    keys = at.astype(np.int64) * width + entries.indices
    asked = rows.astype(np.int64) * width + columns
    if not len(keys):
        return np.full(len(asked), -1)
    positions = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[positions] == asked, positions, -1)


def _take(values: jax.Array, positions: np.ndarray) -> jax.Array:
    if np.array_equal(positions, np.arange(values.size)):
        return values
    return values[positions]
