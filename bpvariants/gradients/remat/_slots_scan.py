"""Scan that stores at most m carries, and a backward pass by the binomial schedule.

Notation: a slot is memory for one carry. The backward pass of t steps with m slots
takes at least E(t, m) evaluations of the step, if one slot has the carry before the
first step. C(a, b) is a binomial coefficient. The schedule advances by y steps and
stores the carry after these steps. The best number y attains the minimum in

    E(t, m) = min_y [ y + E(t−y, m−1) + E(y, m) ],    E(t, 1) = t (t+1)/2,  E(1, m) = 1.

The minimum is E(t, m) = t + ρt − C(m+ρ, m+1), where ρ is the smallest integer such that
C(m+ρ, m) ≥ t. A number y is optimal if and only if  C(m+ρ−2, m) ≤ y ≤ C(m+ρ−1, m)  and
C(m+ρ−2, m−1) ≤ t−y ≤ C(m+ρ−1, m−1).  The forward pass makes the first advances of the
schedule, and also evaluates the last step. A gradient therefore takes E(t, m) + 1
evaluations.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._dtypes import cast_like, widen
from bpvariants._jaxpr.forward_only import forward_only
from bpvariants.types import PyTree

TWICE = (
    "the gradient of a scan with remat=slots(…), also if budget(…) chose it, has no "
    "derivative in reverse mode. Take it in forward mode, by jax.jvp or jax.jacfwd of "
    "the gradient; or use remat='step' or remat.every(k)."
)


class Schedule(NamedTuple):
    """Binomial schedule for the backward pass of T steps, as integer arrays.

    A slot is memory for one carry; the slots 0, …, m − 1 store m carries. An advance is
    an evaluation of one step in the backward pass, to compute the next carry.
    """

    # [T]: slot in which the forward pass stores the carry before each step. An extra
    # slot m is for carries that need not be stored: each of them overwrites slot m. At
    # the end of the forward pass, slot m has the carry before the last step.
    kept: np.ndarray
    # [T] each. The backward pass of step t starts from the carry in slot[t]. From this
    # carry, the advances number begin[t] to end[t] − 1 lead to the carry before step t.
    slot: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    # [number of advances] each: the step that an advance evaluates, and the slot in
    # which it stores the carry before that step.
    step: np.ndarray
    keep: np.ndarray


def count_evaluations(length: int, num_slots: int) -> int:
    """Return how often a gradient of `scan_with_slots` evaluates the scan's body."""
    if length <= 1:
        return length
    rounds = _rounds(length, num_slots)
    binomial = math.comb(num_slots + rounds, num_slots + 1)
    return length + rounds * length - binomial + 1


def scan_with_slots(
    body: Callable, given: PyTree, carry: PyTree, xs: PyTree, num_slots: int
) -> tuple[PyTree, PyTree]:
    """Scan `body(given, carry, x)`; store at most `num_slots` carries for gradients."""
    length = jax.tree.leaves(xs)[0].shape[0]
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    body, closed_over = jax.closure_convert(body, given, carry, x)
    arguments = (given, closed_over), carry, xs
    rebuild = partial(replace_floating, arguments)
    plan = schedule(length, num_slots)

    def advance(given, h, x):
        given, closed_over = given
        return body(given, h, x, *closed_over)

    @jax.custom_vjp
    def run(leaves):
        given, carry, xs = rebuild(leaves)
        return jax.lax.scan(lambda h, x: advance(given, h, x), carry, xs)

    def forward(leaves):
        given, carry, xs = rebuild(leaves)

        def keep_and_advance(state, inputs):
            h, kept = state
            slot, x = inputs
            kept = _put(kept, h, slot)
            h, y = advance(given, h, x)
            return (h, kept), y

        empty = lambda leaf: jnp.broadcast_to(leaf, (num_slots + 1, *jnp.shape(leaf)))
        start = carry, jax.tree.map(empty, carry)
        inputs = jnp.asarray(plan.kept), xs
        (last, kept), ys = jax.lax.scan(keep_and_advance, start, inputs)
        return (last, ys), (leaves, kept)

    def backward(residuals, cotangents):
        leaves, kept = residuals
        given, _, xs = rebuild(leaves)
        return (_go_back(plan, advance, given, xs, kept, cotangents),)

    run.defvjp(forward, backward)
    return run(floating_leaves(arguments))


def _go_back(
    plan: Schedule,
    advance: Callable,
    given: PyTree,
    xs: PyTree,
    kept: PyTree,
    cotangents: PyTree,
) -> list[jax.Array]:
    """Run the backward pass; return cotangents of (given, carry, xs) as a flat list."""
    steps, keeps = jnp.asarray(plan.step), jnp.asarray(plan.keep)

    def body(state, inputs):
        adjoint, total, kept = state
        t, slot, (begin, end), of_y = inputs

        def advance_once(i, state):
            h, kept = state
            kept = _put(kept, h, keeps[i])
            return advance(given, h, _at(xs, steps[i]))[0], kept

        start = _at(kept, slot), kept
        h, kept = jax.lax.fori_loop(begin, end, advance_once, start)
        at = given, h, _at(xs, t)
        step = lambda leaves: floating_leaves(advance(*replace_floating(at, leaves)))
        (by_leaf,) = jax.vjp(step, floating_leaves(at))[1](adjoint + of_y)
        by_given, adjoint, by_x = _cut(by_leaf, len(total), len(adjoint))
        total = [a + widen(b) for a, b in zip(total, by_given, strict=True)]
        return (adjoint, total, kept), by_x

    adjoint, of_ys = map(floating_leaves, cotangents)
    total = [jnp.zeros_like(widen(leaf)) for leaf in floating_leaves(given)]
    inputs = jnp.arange(len(plan.slot)), jnp.asarray(plan.slot)
    inputs = *inputs, (jnp.asarray(plan.begin), jnp.asarray(plan.end)), of_ys
    state = adjoint, total, kept
    (adjoint, total, _), by_xs = jax.lax.scan(body, state, inputs, reverse=True)
    by_given = cast_like(total, floating_leaves(given))
    results = [*by_given, *adjoint, *by_xs]
    return [forward_only(leaf, TWICE) for leaf in results]


def _cut(leaves: list, *sizes: int) -> tuple[list, ...]:
    ends = np.cumsum(sizes)
    return tuple(
        leaves[a:b] for a, b in zip([0, *ends], [*ends, len(leaves)], strict=True)
    )


def _put(slots: PyTree, carry: PyTree, slot: jax.Array) -> PyTree:
    put = lambda a, b: jax.lax.dynamic_update_index_in_dim(a, b, slot, 0)
    return jax.tree.map(put, slots, carry)


def _at(tree: PyTree, index: jax.Array) -> PyTree:
    at = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False)
    return jax.tree.map(at, tree)


@lru_cache
def schedule(length: int, num_slots: int) -> Schedule:
    """Return the binomial schedule for `length` ≥ 2 steps and `num_slots` slots."""
    slot, begin, end = np.zeros((3, length), np.int32)
    step, keep = [], []
    stack = [0]  # for each slot in use, the step that starts from the slot's carry

    def go_to(last):
        """Choose steps before `last`; store the carries from which these steps start.

        Return a dictionary from each chosen step to the slot of its carry.
        """
        at, free = stack[-1], num_slots - len(stack) + 1
        pushed = {}
        while last - at > 0 and free > 1:
            at, free = at + _advance(last + 1 - at, free), free - 1
            if at < last:
                pushed[at] = len(stack)
                stack.append(at)
        return pushed

    kept = np.full(length, num_slots, np.int32)
    kept[0] = 0
    for at, index in go_to(length - 1).items():
        kept[at] = index
    # The forward pass puts the carry before the last step into the extra slot.
    slot[-1] = num_slots
    for t in range(length - 2, -1, -1):
        first, slot[t], begin[t] = stack[-1], len(stack) - 1, len(step)
        pushed = go_to(t)
        step.extend(range(first, t))
        keep.extend(pushed.get(at, num_slots) for at in range(first, t))
        end[t] = len(step)
        if stack[-1] == t:
            stack.pop()
    as_array = lambda numbers: np.array(numbers or [0], np.int32)
    return Schedule(kept, slot, begin, end, as_array(step), as_array(keep))


def _advance(length: int, num_slots: int) -> int:
    """Return the number of steps to advance before the next carry is stored.

    If several numbers of steps are optimal, return the smallest.
    """
    rounds = _rounds(length, num_slots)
    return max(
        1,
        math.comb(num_slots + rounds - 2, num_slots) if rounds > 1 else 0,
        length - math.comb(num_slots + rounds - 1, num_slots - 1),
    )


def _rounds(length: int, num_slots: int) -> int:
    """Return the smallest ρ with C(m+ρ, m) ≥ T, for m slots and T steps.

    C is a binomial coefficient.
    """
    rounds = 0
    while math.comb(num_slots + rounds, num_slots) < length:
        rounds += 1
    return rounds
