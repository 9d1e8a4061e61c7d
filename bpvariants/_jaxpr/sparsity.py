"""Sparsity patterns of a step's Jacobians in its parameters and its old carry.

They are read off the linearised step's program, so that they hold for every value. An
entry of ∂h_t/∂h_{t−1} or ∂h_t/∂θ is nonzero unless no path leads to it, or each path
passes an element that is known to be zero.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

from bpvariants._jaxpr.linear_operations import Link
from bpvariants._jaxpr.linearisation import TangentProgram
from bpvariants._jaxpr.program import is_variable

Sparse: TypeAlias = Any  # a scipy.sparse.csr_array of bool


class Dependence(NamedTuple):
    """Which entries of the Jacobians of one example's step can be nonzero.

    Attributes:
      carry: of J_t = ∂h_t/∂h_{t−1}, sparse bool [n, n].
      params: of I_t, for each leaf of params sparse bool [n, size].
      through: variable -> sparse bool [size, n], of each tangent in h_{t−1}.
    """

    carry: Sparse
    params: list[Sparse]
    through: dict[Any, Sparse]


def dependence(program: TangentProgram, direct_only: bool = False) -> Dependence:
    """Find both patterns.

    With `direct_only`, paths from the old carry that mix several numbers, as products
    and sums do, count as none. Time is that of the links, while tracing.
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
    """Return that all depends on all, though by no direct path."""
    num_carry = sum(variable.aval.size for variable in program.h)
    full = lambda size, yes=True: sparse.csr_array(np.full((num_carry, size), yes))
    sizes = [theta.aval.size for theta in program.thetas]
    return Dependence(full(num_carry, not direct_only), list(map(full, sizes)), {})


def spread(link: Link, size: int, operand_size: int) -> Sparse:
    """Return a link as a sparse bool matrix [size of result, size of operand]."""
    ones = np.ones(len(link.rows), bool)
    shape = size, operand_size
    return sparse.csr_array((ones, (link.rows, link.columns)), shape=shape)


def _pattern(found: dict, atom: Any, num_columns: int) -> Sparse:
    """Return the pattern of an operand, none where nothing leads there."""
    if is_variable(atom) and atom in found:
        return found[atom]
    return sparse.csr_array((atom.aval.size, num_columns), dtype=bool)


def _follow(program: TangentProgram, sources: list[Any], direct_only: bool) -> dict:
    """Return, for each tangent reached, its pattern in the numbers of the sources."""
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
    """Return the pattern of numbers that each depend on all of the operands."""
    rows = [operand.sum(axis=0) > 0 for operand in operands if operand is not None]
    row = np.logical_or.reduce(rows).reshape(1, -1)
    return sparse.csr_array(np.ones((size, 1), bool)) @ sparse.csr_array(row)
