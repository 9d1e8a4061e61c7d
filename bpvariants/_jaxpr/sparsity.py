"""Sparsity patterns of a step's Jacobians in its parameters and its old carry.

Each pattern comes from the jaxpr of the linearised step, so it holds for all values.
Let h_t be the carry and θ the parameters. An entry of ∂h_t/∂h_{t−1} or ∂h_t/∂θ belongs
to an element of h_{t−1} or θ and an element of h_t. The entry counts as zero if the
jaxpr has no path between these two elements. The entry also counts as zero if each path
goes through a factor that is known to be zero.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

from bpvariants._jaxpr.linear_operations import Link
from bpvariants._jaxpr.linearisation import TangentProgram
from bpvariants._jaxpr.program import is_variable

Sparse: TypeAlias = Any  # a scipy.sparse.csr_array of bool


class Dependence(NamedTuple):
    """Sparsity patterns of the Jacobians of one example's step.

    An entry of a pattern is True if this entry of the Jacobian may be nonzero. h_t is
    the carry, with n elements, and θ are the parameters.

    Attributes:
      carry: pattern of J_t = ∂h_t/∂h_{t−1}, sparse bool [n, n].
      params: pattern of I_t = ∂h_t/∂θ, sparse bool [n, size] for each leaf of params.
      through: variable -> sparse bool [size, n], pattern of the variable's Jacobian in
        h_{t−1}.
    """

    carry: Sparse
    params: list[Sparse]
    through: dict[Any, Sparse]


def dependence(program: TangentProgram, direct_only: bool = False) -> Dependence:
    """Find the sparsity patterns of the derivatives of a step's new carry.

    With `direct_only`, paths from the old carry are left out if they add up several
    elements, as matrix products and sums do. The patterns are found while tracing. The
    time for this grows with the number of pairs of elements that depend on each other.
    """
    if program.is_opaque:
        return _opaque(program, direct_only)
    through = _follow(program, program.h, direct_only)
    by_theta = [_follow(program, [theta], False) for theta in program.thetas]
    sizes = [theta.aval.size for theta in program.thetas]
    of = lambda found, size: sparse.vstack(
        [_pattern(found, atom, size) for atom in program.outputs], format="csr"
    )
    num_carry = sum(variable.aval.size for variable in program.h)
    return Dependence(
        of(through, num_carry),
        [of(found, size) for found, size in zip(by_theta, sizes, strict=True)],
        through,
    )


def _opaque(program: TangentProgram, direct_only: bool) -> Dependence:
    """Return the patterns for a step with refs, whose dependences cannot be seen."""
    num_carry = sum(variable.aval.size for variable in program.h)
    full = lambda size, yes=True: sparse.csr_array(np.full((num_carry, size), yes))
    sizes = [theta.aval.size for theta in program.thetas]
    return Dependence(full(num_carry, not direct_only), list(map(full, sizes)), {})


def spread(link: Link, size: int, operand_size: int) -> Sparse:
    """Return the sparse bool matrix of the pairs of elements that a link connects."""
    ones = np.ones(len(link.rows), bool)
    shape = size, operand_size
    return sparse.csr_array((ones, (link.rows, link.columns)), shape=shape)


def _pattern(found: dict, atom: Any, num_columns: int) -> Sparse:
    if is_variable(atom) and atom in found:
        return found[atom]
    return sparse.csr_array((atom.aval.size, num_columns), dtype=bool)


def _follow(program: TangentProgram, sources: list[Any], direct_only: bool) -> dict:
    """Find the pattern of each variable's Jacobian in the variables `sources`."""
    sizes = [variable.aval.size for variable in sources]
    total, start, found = sum(sizes), 0, {}
    for variable, size in zip(sources, sizes, strict=True):
        eye = sparse.eye_array(size, total, k=start, dtype=bool, format="csr")
        found[variable], start = eye, start + size
    for equation, its_links in program.linear:
        operands = [found.get(a) if is_variable(a) else None for a in equation.invars]
        if all(operand is None for operand in operands):
            continue
        for k, variable in enumerate(equation.outvars):
            size = variable.aval.size
            if its_links is None:
                if not direct_only:
                    found[variable] = _all_on_all(operands, size)
                continue
            parts = [
                spread(link, size, operand.shape[0]) @ operand
                for link, operand in zip(its_links[k], operands, strict=True)
                if not (link is None or operand is None)
                and not (direct_only and link.mixes)
            ]
            if parts:
                found[variable] = sum(parts[1:], parts[0]).astype(bool).tocsr()
    return found


def _all_on_all(operands: list, size: int) -> Sparse:
    """Return the pattern of a result that depends on all operand elements."""
    rows = [operand.sum(axis=0) > 0 for operand in operands if operand is not None]
    row = np.logical_or.reduce(rows).reshape(1, -1)
    return sparse.csr_array(np.ones((size, 1), bool)) @ sparse.csr_array(row)
