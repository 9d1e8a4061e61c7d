"""Shared implementation of SnAp, RFLO and e-prop: traces times learning signals.

Notation: h_t are the floating leaves of the carry, θ the parameters, P_t the traces and
g_t the gradient. J̃_t is the part of J_t = ∂h_t/∂h_{t−1} that a rule uses. `read_out`
computes c_t, b_t and r_t, the derivatives of the loss with respect to h_t, h_{t−1} and
θ:

    P_t = J̃_t P_{t−1} + ∂h_t/∂θ
    g_t = r_t + c_t P_t + b_t P_{t−1}
        = r_t + c_t ∂h_t/∂θ + (c_t J̃_t + b_t) P_{t−1}.

The second form of g_t takes one backward pass of the batch for c_t ∂h_t/∂θ. Row i of P
is not needed for the second form if element i of b and column i of J̃ are always 0. For
example, an LSTM needs no rows of P for the elements of its h. In the visible part of
the carry, feedback or a given signal replaces c_t, and b_t is set to 0. With J̃ = J,
the rule is real-time recurrent learning.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import (
    as_vectors,
    example_shapes,
    floating_leaves,
    internal,
    one_example,
    over_batch,
    visible_places,
)
from bpvariants._dtypes import cast_like, widen
from bpvariants._examples import select, times
from bpvariants._losses import Counted, Padded, seen, with_loss
from bpvariants.gradients._feedback import (
    adapted,
    AdaptiveFeedback,
    fed_back,
    Feedback,
    starting_weights,
)
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.plan import make_plan, Plan
from bpvariants.gradients.online._influence.readout import read_out, Readout, skips
from bpvariants.gradients.online._influence.rule import begin, entering_rows, follow
from bpvariants.gradients.online._influence.step import (
    add_through,
    linearise,
    next_influence,
    Rows,
    through_carry,
)
from bpvariants.gradients.online._online_step import (
    check_fits,
    check_state,
    enter_step,
    OnlineStep,
)
from bpvariants.types import Loss, OnlineRule, PyTree, Step


class TraceState(NamedTuple):
    """State of :func:`snap`, :func:`rflo` and :func:`eprop` after step t.

    :class:`InfluenceState` explains how to save a state.
    """

    carry: PyTree
    # The traces P_t, stored like the influence in InfluenceState. rflo and eprop may
    # store only the rows that later gradients need.
    influence: Rows
    initial: PyTree  # carry after a reset
    layout: Layout  # static: which rows of the traces are stored
    feedback: PyTree  # adaptive feedback weights, or None


# Function (y, target) -> learning signal for the visible part of the carry.
Signal = Callable[[PyTree, PyTree], PyTree]


class Paths(NamedTuple):
    """Options that select the paths in J̃, the part of the Jacobian that a rule uses.

    With `visible`, J̃ has no paths through the visible part of the old carry, and
    signals go only to the visible part. Without `visible`, signals go to the whole
    carry. With `direct_only`, J̃ has only element-wise paths. The traces contain
    influences within `order` steps, or all influences if order is None.
    """

    visible: Callable[[PyTree], PyTree] | None = None
    direct_only: bool = False
    order: int | None = None

    def part(self, carry: PyTree) -> PyTree:
        return carry if self.visible is None else self.visible(carry)

    def places(self, carry: PyTree) -> list[int | None]:
        """Return the index, among floating leaves, of each leaf to which signals go."""
        return visible_places(carry, self.part)

    def plan(self, now: OnlineStep, params: PyTree, skipped: bool) -> Plan:
        """Plan the traces; `skipped` tells if the loss uses the old carry directly."""
        through = None
        if self.visible is not None:
            example = example_shapes(now.start, len(now.batch))
            through = internal(example, self.places(now.start))
        return make_plan(
            now,
            params,
            order=self.order,
            through=through,
            direct_only=self.direct_only,
            late_only=self.order is None and not skipped,
        )


def trace_rule(
    name: str,
    step: Step,
    loss: Loss,
    paths: Paths,
    feedback: Feedback = "symmetric",
    signal: Signal | None = None,
) -> OnlineRule:
    advance, fixed = with_loss(step, loss), starting_weights(feedback)
    learns = isinstance(feedback, AdaptiveFeedback)
    _check_one_signal(feedback, signal)

    def first_plan(now, params):
        floating = _floating(paths.places(now.start))
        plan = paths.plan(now, params, skips(step, loss, params, now, floating))
        if paths.visible is not None and signal is None:
            _warn_without_memory(name, plan)
        return plan

    def init(params, carry, inputs, *, initial=None):
        state = begin(advance, params, carry, inputs, initial, first_plan)
        return TraceState(*state, fixed if learns else None)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, key=None
    ):
        del key  # this rule uses no random numbers
        check_state(name, state, TraceState)
        now = enter_step(
            advance, params, state.carry, state.initial, x, target, weight, mask, reset
        )
        places = paths.places(state.carry)
        read = read_out(step, loss, params, now, _floating(places))
        skipped = read.skip is not None
        check_fits(name, "feedback", state.feedback, fixed if learns else None)
        weights = state.feedback if learns else fixed
        part = example_shapes(paths.part(state.carry), len(now.batch))
        if signal is not None:
            given = _given_signals(step, signal, params, now, part)
            read = _with_signals(read, places, given)
        elif weights is not None:
            given = fed_back(weights, read.errors, read.y, part)
            read = _with_signals(read, places, given)
        grads, rows = read.direct, state.influence
        if read.signals:  # a carry without floating-point leaves has no traces
            plan = paths.plan(now, params, skipped)
            entering = entering_rows(name, state, now, params, plan.layout)
            go_on = _follow_late if plan.late_only else follow
            grads, rows = go_on(plan, now, params, read, entering)
        carry, rows = now.kept((read.carry, rows), (state.carry, state.influence))
        if isinstance(feedback, AdaptiveFeedback):
            weights = _adapt(feedback, weights, read, paths.part(read.carry), now)
        learnt = weights if learns else None
        state = TraceState(carry, rows, state.initial, state.layout, learnt)
        return read.value, cast_like(grads, params), state

    return OnlineRule(init, update)


def _warn_without_memory(name: str, plan: Plan) -> None:
    if not np.any(plan.carry.lookup >= 0):  # no trace continues to the next step
        warnings.warn(
            f"{name} keeps no trace of the past in this network, because the new carry "
            "depends on no part of the old one that visible leaves out. Error signals "
            "go back one step only; gradients.truncated_bptt(step, loss, every=1, "
            "lookback=1) costs less. Let visible return only what units see of each "
            "other, such as `lambda carry: carry[1]` for an LSTM, or use another rule.",
            stacklevel=5,
        )


def _check_one_signal(feedback: Feedback, signal: Signal | None) -> None:
    if signal is None:
        return
    if not callable(signal):
        raise ValueError(
            "signal must be a function (y, target) -> learning signal; to give the "
            f"signal itself, put it into the target; got {type(signal).__name__}."
        )
    if not isinstance(feedback, str):
        raise ValueError(
            "signal and feedback weights must not be given together, because a signal "
            "replaces what the weights send; leave one of them out."
        )


def _floating(places: list[int | None]) -> list[int]:
    return [place for place in places if place is not None]


def _follow_late(
    plan: Plan, now: OnlineStep, params: PyTree, read: Readout, entering: Rows
) -> tuple[PyTree, Rows]:
    """Return the gradient by the second form of g_t with b_t = 0, and the traces."""
    found = linearise(plan, now, params)
    rows = next_influence(plan, found, entering)
    signals = as_vectors(read.signals, now.batch)[0]
    error = through_carry(plan, found, signals)
    grads = _add_pulled(read, now, params)
    return add_through(grads, plan.layout, error, entering), rows


def _given_signals(
    step: Step, signal: Signal, params: PyTree, now: OnlineStep, part: PyTree
) -> list[jax.Array]:
    """Return the learning signal for each visible leaf, from the user's function.

    Each example's signal is multiplied by the normalised weight of its loss. `part` has
    the shapes of the visible part of one example's carry.
    """

    def with_signal(params, carry, inputs):
        x, target = inputs
        carry, y = step(params, carry, x)
        return carry, signal(y, seen(target))

    args, rank = (params, now.start, now.inputs), len(now.batch)
    found = jax.eval_shape(with_signal, *args)[1]
    shapes = [leaf.shape for leaf in jax.tree.leaves(found)]
    want = [(*now.batch, *leaf.shape) for leaf in jax.tree.leaves(part)]
    if jax.tree.structure(found) != jax.tree.structure(part) or shapes != want:
        raise ValueError(
            "signal must return the structure and shapes of the visible part of the "
            f"carry, {want} in {jax.tree.structure(part)}; got {shapes} in "
            f"{jax.tree.structure(found)}."
        )
    signals = over_batch(one_example(with_signal, rank), rank)(*args)[1]
    signals = widen(jax.tree.leaves(signals))
    if isinstance(target := now.inputs[1], Counted | Padded):
        clean = lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, jnp.zeros_like(leaf))
        signals = select(target.counts, signals, jax.tree.map(clean, signals))
    return times(now.shares, signals)


def _with_signals(read: Readout, places: list, given: list) -> Readout:
    signals, skip = list(read.signals), read.skip and list(read.skip)
    for place, signal in zip(places, given, strict=True):
        if place is None:
            continue
        zeros = jnp.zeros_like(signals[place])
        signals[place] = zeros if signal is None else signal.astype(zeros.dtype)
        if skip is not None:
            skip[place] = zeros
    if len({*places} - {None}) == len(signals):
        skip = None
    return read._replace(signals=signals, skip=skip)


def _add_pulled(read, now, params):
    """Return the gradient g_t without the terms that contain the old traces P_{t−1}."""

    def new_leaves(wide):
        new, _ = now.examples(cast_like(wide, params), now.start, now.inputs)
        return widen(floating_leaves(new))

    new, pull = jax.vjp(new_leaves, widen(params))
    signals = [a.astype(b.dtype) for a, b in zip(read.signals, new, strict=True)]
    return jax.tree.map(jnp.add, read.direct, pull(signals)[0])


def _adapt(
    feedback: AdaptiveFeedback,
    weights: PyTree,
    read: Readout,
    part: PyTree,
    now: OnlineStep,
) -> PyTree:
    """Return updated feedback weights, or `weights` if all examples are padding."""
    example, leaves = example_shapes(part, len(now.batch)), jax.tree.leaves(part)
    new = adapted(feedback, weights, read.errors, read.y, example, leaves)
    if now.mask is None:
        return new
    counts = jnp.any(now.mask)
    return jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, weights)
