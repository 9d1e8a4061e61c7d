"""Plan of a step's linearisation: which entries of J and I are computed, and how.

Notation: J_t = ∂h_t/∂h_{t−1} and I_t = ∂h_t/∂θ are derivatives of the carry, which has
n elements; M_t = dh_t/dθ is the influence.

Rows of I_t that depend on no common parameter may get equal colours. One backward pass
computes all rows of a colour. For the weights of a dense layer, one backward pass
computes all rows of I_t. J_t is also computed by backward passes if its rows need few
colours. If only few entries of J_t are needed, such as the diagonal of a dense J_t,
forward mode computes these entries alone. In all other cases, J_t takes up to n
backward passes.
"""

from typing import NamedTuple

import numpy as np

from bpvariants._carries import example_shapes
from bpvariants._jaxpr.jacobian_entries import Entries, plan_entries
from bpvariants._jaxpr.linearisation import tangent_program, TangentProgram
from bpvariants._jaxpr.sparsity import dependence
from bpvariants.gradients.online._influence.layout import (
    entries_of,
    influence_pattern,
    lay_out,
    Layout,
    LeafPattern,
    rows_by_kind,
    spread_over,
)
from bpvariants.gradients.online._online_step import OnlineStep
from bpvariants.types import PyTree

FEW = 4  # up to this many backward passes take less time than single entries of J


class CarryPlan(NamedTuple):
    """Plan of how to compute the needed entries of the Jacobian J = ∂h_t/∂h_{t−1}.

    The carry h_t has n elements.

    Attributes:
      passes: cotangents [n] for each of the backward passes that compute J, as one
        array; None if J is computed from `entries`.
      entries: entries to compute in forward mode; None if J is computed by `passes`.
      lookup: int [n + 1, n + 1], position of J[i, j] in the flat array of computed
        values; −1 if J[i, j] is 0 or not needed. Row n and column n contain only −1,
        because index n stands for no carry element.
    """

    passes: np.ndarray | None
    entries: Entries | None
    lookup: np.ndarray


class Plan(NamedTuple):
    """Which parts of a step's linearisation to compute, and where to store the results.

    J = ∂h_t/∂h_{t−1} and I = ∂h_t/∂θ are derivatives of the carry, which has n
    elements. M = dh_t/dθ is the influence.

    Attributes:
      program: the step's linearisation.
      layout: the entries of M that are stored.
      is_exact: True if no entry of J or M that can be nonzero is dropped.
      passes: cotangents [n] for each of the backward passes that compute I, as one
        array.
      colours: for each array of params, the index of the backward pass that computes
        each stored entry of I; −1 where the entry is 0. The indices have the shape of
        `rows` in the layout. None if no rows are stored for the array.
      carry: plan of how to compute J.
      late_only: whether only those rows of M are stored that the next step uses.
    """

    program: TangentProgram
    layout: Layout
    is_exact: bool
    passes: np.ndarray
    colours: list[np.ndarray | None]
    carry: CarryPlan
    late_only: bool


def make_plan(
    now: OnlineStep,
    params: PyTree,
    *,
    order: int | None = None,
    through: np.ndarray | None = None,
    direct_only: bool = False,
    late_only: bool = False,
) -> Plan:
    """Plan how a step computes the influence M_t; `now` may have shapes, not arrays.

    M_t contains influences within `order` steps, or all influences if order is None.
    `through`, bool [n], selects elements of the old carry; M_t includes only effects
    through the selected elements. By default, all elements are selected. `direct_only`
    leaves out paths from the old carry that add up several elements. `late_only` allows
    the plan to store only the rows of M_t that the next step reads, and to compute
    gradients from M_{t−1} instead of M_t. The field `late_only` of the plan tells
    whether the plan makes use of this permission.
    """
    example = example_shapes((now.start, now.inputs), len(now.batch))
    program = tangent_program(now.example, params, *example)
    found = dependence(program)
    all_of = found.carry.toarray()
    kept = dependence(program, direct_only=True).carry if direct_only else found.carry
    kept = kept.toarray() & (True if through is None else through)
    patterns = [influence_pattern(kept, leaf, order) for leaf in found.params]
    full = [influence_pattern(all_of, leaf, None) for leaf in found.params]
    if late_only:
        fewer = _only_read(patterns, kept)
        # Gradients from the old influence take one backward pass more than gradients
        # from the new influence, so the plan must store fewer rows in return.
        late_only = _count_rows(fewer) < _count_rows(patterns)
        patterns = fewer if late_only else patterns
    needed = _any_product(kept, [p.influence for p in patterns]) & kept
    if late_only:
        # Gradients need those columns of J whose carry elements have a stored influence
        # row.
        needed = kept & _any_row(patterns)
    share_carry = _symmetric(_any_product(kept, [needed], [all_of]))
    share_params = _any_product(kept, [p.immediate for p in patterns])
    by_carry, by_params = _colour(share_carry), _colour(share_params)
    entries = None
    if direct_only or (_count(by_carry) > FEW and 4 * needed.sum() <= needed.size):
        entries = plan_entries(program, found, needed, direct_only)
    elif not late_only and max(_count(by_params), _count(by_carry)) <= FEW:
        # The same few backward passes may compute both ∂h_t/∂h_{t−1} and ∂h_t/∂θ.
        both = _colour(share_params | share_carry)
        if _count(both) <= FEW:
            by_params = by_carry = both
    # A row that is not stored still has nonzero entries in ∂h_t/∂θ. Keep the row out of
    # the backward passes, where it would be added to stored rows.
    asked = share_params.any(axis=1) | (not late_only)
    shapes = [variable.aval.shape for variable in program.thetas]
    leaves = list(zip(patterns, shapes, strict=True))
    return Plan(
        program,
        Layout(len(kept), tuple(lay_out(*leaf) for leaf in leaves)),
        np.array_equal(kept, all_of) and _are_same(patterns, full),
        _one_hot(by_params) & asked,
        [_leaf_colours(*leaf, by_params) for leaf in leaves],
        _plan_carry(needed, by_carry, entries),
        late_only,
    )


def _are_same(patterns: list[LeafPattern], others: list[LeafPattern]) -> bool:
    pairs = zip(patterns, others, strict=True)
    return all(np.array_equal(a.influence, b.influence) for a, b in pairs)


def _only_read(patterns: list[LeafPattern], carry: np.ndarray) -> list[LeafPattern]:
    """Leave out the rows of I = ∂h_t/∂θ and M = dh_t/dθ that the next step ignores.

    The next step ignores row i if column i of the Jacobian's pattern `carry` is zero.
    """
    read = np.expand_dims(carry.any(axis=0), 1)
    return [
        each._replace(immediate=each.immediate & read, influence=each.influence & read)
        for each in patterns
    ]


def _count_rows(patterns: list[LeafPattern]) -> int:
    return sum(int(each.influence.sum()) for each in patterns)


def _any_row(patterns: list[LeafPattern]) -> np.ndarray:
    return np.logical_or.reduce([each.influence.any(axis=1) for each in patterns])


def _plan_carry(
    needed: np.ndarray, colours: np.ndarray, entries: Entries | None
) -> CarryPlan:
    num_carry = len(needed)
    if entries is None:
        positions = colours[:, None] * num_carry + np.arange(num_carry)
    else:
        positions = np.cumsum(needed).reshape(needed.shape) - 1
    lookup = np.pad(np.where(needed, positions, -1), (0, 1), constant_values=-1)
    passes = _one_hot(colours) if entries is None else None
    return CarryPlan(passes, entries, lookup)


def _any_product(
    like: np.ndarray, patterns: list[np.ndarray], others: list | None = None
) -> np.ndarray:
    """Mark the pairs of rows that are both nonzero in a column of one of the patterns.

    The result is bool [n, n]. By default, both rows of a pair are rows of the same
    pattern. With `others`, the second row is a row of the pattern at the same place in
    `others`.
    """
    found = np.zeros_like(like)
    for a, b in zip(patterns, patterns if others is None else others, strict=True):
        found |= a.astype(np.float32) @ b.astype(np.float32).T > 0
    return found


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return matrix | matrix.T


def _colour(conflicts: np.ndarray) -> np.ndarray:
    """Give each row a colour; two rows that conflict have different colours.

    `conflicts`, bool [n, n], is True for each pair of rows that conflict, which means
    that one backward pass cannot compute both.
    """
    colours = np.full(len(conflicts), -1)
    for row, conflict in enumerate(conflicts):
        taken = set(colours[:row][conflict[:row]].tolist())
        colours[row] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours


def _count(colours: np.ndarray) -> int:
    return int(colours.max(initial=-1)) + 1


def _one_hot(colours: np.ndarray) -> np.ndarray:
    return np.arange(_count(colours))[:, None] == colours


def _leaf_colours(
    pattern: LeafPattern, shape: tuple[int, ...], by_params: np.ndarray
) -> np.ndarray | None:
    """Return the index of the backward pass that computes each stored entry of I.

    I = ∂h_t/∂θ, where θ is one array of params. The index is −1 where the entry of I is
    0. Return None if no entries of I are stored.
    """
    rows = rows_by_kind(pattern)
    if not len(rows):
        return None
    columns = np.where(pattern.immediate, by_params[:, None], -1)
    return spread_over(entries_of(columns, rows, -1), pattern.kind, shape)
