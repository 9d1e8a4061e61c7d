"""Shared implementation of rtrl and diagonal_rtrl."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bpvariants._carries import as_vectors, floating_leaves
from bpvariants._dtypes import cast_like
from bpvariants._losses import with_loss
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.plan import make_plan, Plan
from bpvariants.gradients.online._influence.readout import read_out, Readout
from bpvariants.gradients.online._influence.step import (
    add_through,
    linearise,
    next_influence,
    no_influence,
    Rows,
)
from bpvariants.gradients.online._online_step import (
    check_fits,
    check_state,
    enter_first_step,
    enter_step,
    OnlineStep,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class InfluenceState(NamedTuple):
    """State of :func:`rtrl` and :func:`diagonal_rtrl` after step t.

    `layout` is part of the pytree's structure. Tools that save the structure of a
    pytree, such as `flax.serialization`, therefore cannot save the state. Save the
    leaves of the state instead. After loading, put the leaves into the structure of a
    state that `init` returns:

        leaves, structure = jax.tree.flatten(state)
        state = structure.unflatten(leaves)
    """

    carry: PyTree
    # The influence M_t = dh_t/dθ, float32 or wider: for each array of params, in the
    # order of jax.tree.leaves, an array [*batch, K, *shape of the params] of the K rows
    # that `layout` lists, or a list of K arrays [*batch, *shape of the params] if K is
    # from 2 to 8 and not all parameters have the same rows, or None without any rows.
    influence: Rows
    initial: PyTree  # carry after a reset
    layout: Layout  # static: which rows of the influence are stored


def influence_rule(
    name: str,
    step: Step,
    loss: Loss,
    order: int | None,
    check_plan: Callable[[Plan], None] = lambda plan: None,
) -> OnlineRule:
    """Return an online rule that stores the influence with a given sparsity pattern.

    The pattern contains influences within `order` steps, or all influences if order is
    None. `check_plan` raises an error if the rule does not accept the plan of a step.
    """
    advance = with_loss(step, loss)

    def plan_of(now, params):
        plan = make_plan(now, params, order=order)
        check_plan(plan)
        return plan

    def init(params, carry, inputs, *, initial=None):
        return begin(advance, params, carry, inputs, initial, plan_of)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        del key  # this rule uses no random numbers
        check_state(name, state, InfluenceState)
        now = enter_step(
            advance, params, state.carry, state.initial, x, target, weight, mask, reset
        )

        read = read_out(step, loss, params, now)
        grads, rows = read.direct, state.influence
        if read.signals:  # a carry without floating-point leaves has no influence
            plan = plan_of(now, params)
            entering = entering_rows(name, state, now, params, plan.layout)
            grads, rows = follow(plan, now, params, read, entering)
        carry, rows = now.kept((read.carry, rows), (state.carry, state.influence))
        state = state._replace(carry=carry, influence=rows)
        return read.value, cast_like(grads, params), state

    return OnlineRule(init, update)


def follow(
    plan: Plan, now: OnlineStep, params: PyTree, read: Readout, entering: Rows
) -> tuple[PyTree, Rows]:
    """Return the gradient r_t + c_t M_t + b_t M_{t−1}, and the influence M_t.

    `read` contains r_t, c_t and b_t. The influence `entering` is M_{t−1}. If b_t is 0,
    the gradient does not read M_{t−1}, so that XLA can write M_t into its memory.
    """
    rows = next_influence(plan, linearise(plan, now, params), entering)
    signals = as_vectors(read.signals, now.batch)[0]
    grads = add_through(read.direct, plan.layout, signals, rows)
    if read.skip is not None:
        skip = as_vectors(read.skip, now.batch)[0]
        grads = add_through(grads, plan.layout, skip, entering)
    return grads, rows


def begin(
    advance: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    initial: PyTree | None,
    plan_of: Callable[[OnlineStep, PyTree], Plan],
) -> InfluenceState:
    now, initial = enter_first_step(advance, params, carry, inputs, initial)
    if not floating_leaves(now.start):
        return InfluenceState(now.start, [], initial, Layout(0, ()))
    layout = plan_of(now, params).layout
    rows = no_influence(layout, now, params)
    return InfluenceState(now.start, rows, initial, layout)


def entering_rows(
    name: str, state: Any, now: OnlineStep, params: PyTree, layout: Layout
) -> Rows:
    """Return the influence before a step, with zeros for examples that are reset."""
    if state.layout != layout:
        raise ValueError(
            "state has another layout of the influence than this step needs: the "
            "network depends on params in another way than with the inputs given to "
            "init, or the state belongs to another network or rule. Use this rule's "
            "init(params, carry, (x, target)), with inputs of one structure at all "
            "steps."
        )
    zeros = jax.eval_shape(lambda: no_influence(layout, now, params))
    check_fits(name, "influence", state.influence, zeros)
    return now.restarted(state.influence)
