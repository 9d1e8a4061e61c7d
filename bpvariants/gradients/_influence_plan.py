"""How the linearised step is computed, as much of it as an influence needs.

I_t takes one backward pass for each colour: rows of I that share no parameter have the
same colour, and are found at once, all in one pass for the weights of a dense layer.
So is J_t where few colours do; where few of many entries are needed, such as the
diagonal of a dense J_t, only these are computed, forwards; else it takes n passes.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from bpvariants.gradients._dependence import Dependence, dependence
from bpvariants.gradients._entries import Wanted, wanted_entries
from bpvariants.gradients._influence_layout import (
    entries_of,
    influence_pattern,
    lay_out,
    Layout,
    LeafPattern,
    rows_by_kind,
    spread_over,
)
from bpvariants.gradients._tangents import tangent_program, TangentProgram
from bpvariants.types import PyTree, Step

FEW = 4  # backward passes that cost less than to look for entries


class Plan(NamedTuple):
    """What of a step's linearisation is computed, and where it is found.

    Attributes:
      program: the step's linearisation.
      layout: the entries of M that are kept.
      exact: whether M of this layout is the whole of it.
      immediate_passes: [passes, n], the cotangents whose backward passes give I.
      colours: for each array of params, int like its rows, which of these passes gives
        an entry of I; −1 where it is 0; None if the array has no influence.
      carry_passes: [passes, n], those that give J; None if its entries are computed.
      entries: (pattern [n, n], what it is made of) of the entries of J computed.
      lookup: int [n + 1, n + 1], where J[i, j] stands in what is computed of it, flat;
        −1 if nowhere, as it is 0 or not needed; n stands for no row.
      direct_only: whether J leaves out paths that mix numbers.
    """

    program: TangentProgram
    layout: Layout
    exact: bool
    immediate_passes: np.ndarray
    colours: list[np.ndarray | None]
    carry_passes: np.ndarray | None
    entries: tuple[sparse.csr_array, Wanted] | None
    lookup: np.ndarray
    direct_only: bool


def make_plan(
    step_of_example: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    *,
    order: int | None = None,
    through: np.ndarray | None = None,
    direct_only: bool = False,
    whole: bool = False,
) -> Plan:
    """Plan the influence of one example; arguments may be arrays or shapes.

    `order` is that of the pattern of M, None for all of it; `through`, bool [n], tells
    through which numbers of the old carry M goes on, by default all; `direct_only`
    leaves out paths from the old carry that mix numbers; `whole` keeps all rows.
    """
    program = tangent_program(step_of_example, params, carry, inputs)
    found = dependence(program)
    kept = dependence(program, direct_only=True).carry if direct_only else found.carry
    if through is not None:
        kept = sparse.csr_array(kept.multiply(through[None, :])).astype(bool)
    patterns = [influence_pattern(kept, leaf, order) for leaf in found.params]
    shapes = [variable.aval.shape for variable in program.thetas]
    leaves = [
        lay_out(pattern, shape, whole)
        for pattern, shape in zip(patterns, shapes, strict=True)
    ]
    full = [influence_pattern(found.carry, leaf, None) for leaf in found.params]
    exact = not direct_only and all(
        np.array_equal(a.influence, b.influence)
        for a, b in zip(patterns, full, strict=True)
    )

    num_carry = found.carry.shape[0]
    zeros = np.zeros((num_carry, num_carry), bool)
    share_params = _any_product(zeros, [p.immediate for p in patterns])
    needed = _any_product(zeros, [p.influence for p in patterns]) & kept.toarray()
    in_carry = found.carry.toarray()
    share_carry = _any_product(zeros, [needed], [in_carry])
    share_carry |= share_carry.T
    by_params, by_carry = _colour(share_params), _colour(share_carry)
    entries = None
    if direct_only or (
        by_carry.max(initial=0) >= FEW and 4 * needed.sum() <= zeros.size
    ):
        entries = _plan_entries(program, found, needed, direct_only)
    if entries is None and max(by_params.max(initial=0), by_carry.max(initial=0)) < FEW:
        both = _colour(share_params | share_carry)
        if both.max(initial=0) < FEW:
            by_params = by_carry = both
    if entries is None:
        carry_passes = _one_hot(by_carry)
        positions = by_carry[:, None] * num_carry + np.arange(num_carry)
    else:
        carry_passes = None
        positions = np.cumsum(needed).reshape(needed.shape) - 1
    lookup = np.full((num_carry + 1, num_carry + 1), -1)
    lookup[:-1, :-1] = np.where(needed, positions, -1)
    return Plan(
        program,
        Layout(num_carry, tuple(leaves)),
        exact,
        _one_hot(by_params),
        [
            None if leaf is None else _leaf_colours(pattern, by_params, shape, whole)
            for leaf, pattern, shape in zip(leaves, patterns, shapes, strict=True)
        ],
        carry_passes,
        entries,
        lookup,
        direct_only,
    )


def _plan_entries(
    program: TangentProgram, found: Dependence, needed: np.ndarray, direct_only: bool
) -> tuple[sparse.csr_array, Wanted] | None:
    pattern = sparse.csr_array(needed)
    pattern.sort_indices()
    wanted = wanted_entries(program, found, pattern, direct_only)
    return None if wanted is None else (pattern, wanted)


def _any_product(
    zeros: np.ndarray, patterns: list[np.ndarray], others: list | None = None
) -> np.ndarray:
    """Return which rows share a column, in any of the patterns (and the others)."""
    found = zeros
    for a, b in zip(patterns, patterns if others is None else others, strict=True):
        found = found | (a.astype(np.float32) @ b.astype(np.float32).T > 0)
    return found


def _colour(conflicts: np.ndarray) -> np.ndarray:
    """Return a colour for each row, no two that conflict the same: greedily."""
    colours = np.full(len(conflicts), -1)
    for row, conflict in enumerate(conflicts):
        taken = set(colours[:row][conflict[:row]].tolist())
        colours[row] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours


def _one_hot(colours: np.ndarray) -> np.ndarray:
    """Return for each colour which rows have it, bool [colours, n]."""
    return np.arange(colours.max(initial=-1) + 1)[:, None] == colours


def _leaf_colours(
    pattern: LeafPattern, by_params: np.ndarray, shape: tuple[int, ...], whole: bool
) -> np.ndarray:
    """Return which pass gives each entry of I that is kept of an array, −1 for none."""
    columns = np.where(pattern.immediate, by_params[:, None], -1)
    table = entries_of(columns, rows_by_kind(pattern, whole), -1)
    return spread_over(table, pattern.kind, shape)
