"""Shared implementation of rtrl and diagonal_rtrl."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import as_vectors, floating_leaves, replace_floating
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import with_loss
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.plan import make_plan, Plan
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
    # that `layout` lists, or None if there are no rows.
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

        def mean_loss(params, leaves):
            start = replace_floating(now.start, leaves)
            new, losses = now.examples(params, start, now.inputs)
            return jnp.sum(now.shares * losses), new

        leaves = widen(floating_leaves(now.start))
        (value, new), (direct, errors) = jax.value_and_grad(
            mean_loss, argnums=(0, 1), has_aux=True
        )(params, leaves)
        grads, rows = widen(direct), state.influence
        if leaves:  # if the network has no floating state, the influence is empty
            plan = plan_of(now, params)
            entering = entering_rows(name, state, now, params, plan.layout)
            error = as_vectors(errors, now.batch)[0]
            grads = add_through(grads, plan.layout, error, entering)
            found = linearise(plan, now, params)
            rows = next_influence(plan, found, entering)
        carry, rows = now.kept((new, rows), (state.carry, state.influence))
        state = state._replace(carry=carry, influence=rows)
        return value, cast_like(grads, params), state

    return OnlineRule(init, update)


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
