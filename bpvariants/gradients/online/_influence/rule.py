"""What rtrl and its sparse relatives share: they differ in the pattern of M alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import (
    as_vectors,
    example_shapes,
    floating_leaves,
    replace_floating,
)
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import with_loss
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.plan import make_plan, Plan
from bpvariants.gradients.online._influence.step import (
    linearise,
    next_influence,
    no_influence,
    Rows,
    through_influence,
)
from bpvariants.gradients.online._online_step import (
    check_fits,
    check_start,
    check_state,
    enter_step,
    OnlineStep,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class InfluenceState(NamedTuple):
    """State of :func:`rtrl` and :func:`diagonal_rtrl` after step t.

    `layout` is part of the pytree's structure. So what writes structures too, such as
    `flax.serialization`, cannot write the state: write its leaves, and put those that
    are read in the structure of a state that `init` makes.

        leaves, structure = jax.tree.flatten(state)
        state = structure.unflatten(leaves)
    """

    carry: PyTree  # h_t
    # M_t, float32 or wider. Begun with inputs: for each array of params, in the order
    # of jax.tree.leaves, the rows that `layout` tells, [*batch, K, *shape], or None.
    # Begun without, as `jax.jacobian` gives it: for each floating leaf of the carry, a
    # tree like params of arrays [*carry leaf's shape, *parameter's shape].
    influence: list[PyTree]
    initial: PyTree  # what a reset puts back
    layout: Layout | None  # static


def influence_rule(
    name: str,
    step: Step,
    loss: Loss,
    order: int | None,
    check_plan: Callable[[Plan], None] = lambda plan: None,
) -> OnlineRule:
    """Return the online rule whose M is kept in the pattern of an order."""
    advance = with_loss(step, loss)

    def plan_of(now, params, whole):
        plan = plan_for(now, params, order=order, whole=whole)
        check_plan(plan)
        return plan

    def init(params, carry, initial=None, batch_shape=None, *, inputs=None):
        del batch_shape  # every leaf of the state begins with it
        return begin(advance, params, carry, initial, inputs, plan_of)

    def update(params, state, x, target, *, weight=None, mask=None, reset=None):
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
        grads, rows = widen(direct), None
        if leaves:  # else the network has no state to remember anything in
            plan = plan_of(now, params, state.layout is None)
            entering = entering_rows(name, state, now, params, plan)
            error = as_vectors(errors, now.batch)[0]
            like, structure = jax.tree.flatten(grads)
            late = through_influence(plan.layout, error, entering, like)
            grads = structure.unflatten(jax.tree.map(jnp.add, like, late))
            rank = len(now.batch)
            found = linearise(plan, now.example, params, now.start, now.inputs, rank)
            rows = next_influence(plan, found, entering, rank)
        state = leaving_state(state, now, new, rows)
        return value, cast_like(grads, params), state

    return OnlineRule(init, update)


def plan_for(now: OnlineStep, params: PyTree, **options) -> Plan:
    """Plan the influence of the step that is being taken."""
    example = example_shapes((now.start, now.inputs), len(now.batch))
    return make_plan(now.example, params, *example, **options)


def begin(
    advance: Step,
    params: PyTree,
    carry: PyTree,
    initial: PyTree | None,
    inputs: PyTree | None,
    plan_of: Callable[[OnlineStep, PyTree, bool], Plan],
) -> InfluenceState:
    """Return the state before the first step: without inputs, of all entries of M."""
    carry, initial = check_start(params, carry, initial)
    if inputs is None:
        return InfluenceState(carry, _all_entries(params, carry), initial, None)
    if not isinstance(inputs, tuple) or len(inputs) != 2:
        raise ValueError(
            "inputs must be the pair (x, target) of one step, arrays or their shapes "
            f"(jax.ShapeDtypeStruct); got {type(inputs).__name__}."
        )
    now = enter_step(advance, params, carry, initial, *inputs, None, None, None)
    if not floating_leaves(carry):
        return InfluenceState(carry, [], initial, Layout(0, ()))
    layout = plan_of(now, params, False).layout
    rows = no_influence(layout, params, carry, now.batch)
    return InfluenceState(carry, rows, initial, layout)


def _all_entries(params: PyTree, carry: PyTree) -> list[PyTree]:
    """Return M before the first step by floating leaves of the carry, zeros."""
    of = lambda h: lambda theta: jnp.zeros(h.shape + jnp.shape(theta), h.dtype)
    return [jax.tree.map(of(h), params) for h in widen(floating_leaves(carry))]


def entering_rows(
    name: str, state: InfluenceState, now: OnlineStep, params: PyTree, plan: Plan
) -> Rows:
    """Return M_{t−1} by arrays of params, zeros after a reset."""
    if state.layout is not None and state.layout != plan.layout:
        raise ValueError(
            "state has no place for all of the influence: the network depends on "
            "params in another way than with the inputs that init was given, or the "
            "state is another network's or rule's. Give this rule's init the "
            "inputs=(x, target) of the richest step, or none."
        )
    as_begun = lambda: (
        _all_entries(params, state.carry)
        if state.layout is None
        else no_influence(plan.layout, params, state.carry, now.batch)
    )
    check_fits(name, "influence", state.influence, jax.eval_shape(as_begun))
    influence = now.restarted(state.influence)
    if state.layout is not None:
        return influence
    rank = len(now.batch)
    by_theta = zip(*map(jax.tree.leaves, influence), strict=True)
    rows: Rows = []
    for leaf, parts, theta in zip(
        plan.layout.leaves, by_theta, jax.tree.leaves(params), strict=True
    ):
        if leaf is None:
            rows.append(None)
            continue
        shape = jnp.shape(theta)
        count = lambda part, shape=shape: math.prod(
            part.shape[rank : part.ndim - len(shape)]
        )
        flat = [part.reshape(*now.batch, count(part), *shape) for part in parts]
        rows.append(jnp.concatenate(flat, axis=rank))
    return rows


def leaving_state(
    state: InfluenceState, now: OnlineStep, carry: PyTree, rows: Rows | None
) -> InfluenceState:
    """Return the state after the step, in padding the one before it."""
    influence = state.influence
    if rows is not None:
        influence = rows if state.layout is not None else _by_carry(state, now, rows)
    carry, influence = now.kept((carry, influence), (state.carry, state.influence))
    return state._replace(carry=carry, influence=influence)


def _by_carry(state: InfluenceState, now: OnlineStep, rows: Rows) -> list[PyTree]:
    """Return M by floating leaves of the carry, as a state begun without inputs."""
    rank, old = len(now.batch), state.influence
    structure = jax.tree.structure(old[0])
    leaves = floating_leaves(state.carry)
    sizes = [math.prod(leaf.shape[rank:]) for leaf in leaves]
    by_theta = []
    for new, *parts in zip(rows, *map(jax.tree.leaves, old), strict=True):
        if new is not None:  # else it keeps its zeros
            pieces = jnp.split(new, np.cumsum(sizes)[:-1], axis=rank)
            pairs = zip(pieces, parts, strict=True)
            parts = [piece.reshape(part.shape) for piece, part in pairs]
        by_theta.append(parts)
    return [structure.unflatten(each) for each in zip(*by_theta, strict=True)]
