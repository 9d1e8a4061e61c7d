"""What SnAp, RFLO and e-prop share: traces, and learning signals times these.

Notation: h_t the floating leaves of the carry, θ the parameters, J̃_t the part of
∂h_t/∂h_{t−1} through which a rule remembers, and c_t, b_t, r_t as in `_readout`:

    P_t = J̃_t P_{t−1} + ∂h_t/∂θ
    g_t = r_t + c_t P_t + b_t P_{t−1}
        = r_t + c_t ∂h_t/∂θ + (c_t J̃_t + b_t) P_{t−1}.

By the latter, which takes one backward pass of the batch for ∂h_t/∂θ, rows of P that
J̃ and b never read need not be kept, such as those of an LSTM's h. Feedback, or a signal
that is given, takes the place of c_t in the visible part of the carry, in which b_t is
then 0. With J̃ = J this is real-time recurrent learning.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import (
    as_vectors,
    example_shapes,
    floating_leaves,
    internal,
    visible_places,
)
from bpvariants._dtypes import cast_like, widen
from bpvariants._losses import with_loss
from bpvariants._masking import blank
from bpvariants.gradients._feedback import (
    adapted,
    AdaptiveFeedback,
    fed_back,
    Feedback,
    starting_weights,
)
from bpvariants.gradients.online._influence.layout import Layout
from bpvariants.gradients.online._influence.readout import read_out, Readout, skips
from bpvariants.gradients.online._influence.rule import (
    begin,
    entering_rows,
    InfluenceState,
    leaving_state,
    plan_for,
)
from bpvariants.gradients.online._influence.step import (
    linearise,
    next_influence,
    through_carry,
    through_influence,
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

    To write it, see :class:`InfluenceState`.
    """

    carry: PyTree  # h_t
    # The traces P_t, kept as InfluenceState keeps M_t; of rflo and eprop only the rows
    # that later gradients take.
    influence: list[PyTree]
    initial: PyTree  # what a reset puts back
    layout: Layout | None  # static
    feedback: PyTree  # feedback weights that learn, else None


def trace_rule(
    name: str,
    step: Step,
    loss: Loss,
    feedback: Feedback = "symmetric",
    *,
    visible: Callable[[PyTree], PyTree] | None = None,
    direct_only: bool = False,
    order: int | None = None,
) -> OnlineRule:
    """Return the rule whose traces are those of an order, and of some paths.

    With `visible`, J̃ has no paths through that part of h_{t−1}; else signals go to all
    of the carry. With `direct_only` it has those paths alone that mix no numbers.
    """
    goes_through_all = visible is None
    visible = (lambda carry: carry) if visible is None else visible
    advance = with_loss(step, loss)
    fixed = starting_weights(feedback)
    learns = isinstance(feedback, AdaptiveFeedback)

    def plan_of(now, params, whole, skipped=None):
        places, through = visible_places(now.start, visible), None
        first = [i for i in places if i is not None]
        if not goes_through_all:
            through = internal(example_shapes(now.start, len(now.batch)), places)
        if skipped is None:
            skipped = skips(step, loss, params, now, first)
        return plan_for(
            now,
            params,
            order=order,
            through=through,
            direct_only=direct_only,
            whole=whole,
            late_only=order is None and not skipped,
        )

    def init(params, carry, initial=None, batch_shape=None, *, inputs=None):
        del batch_shape  # every leaf of the state begins with it
        state = begin(advance, params, carry, initial, inputs, plan_of)
        return TraceState(*state, fixed if learns else None)

    def update(
        params, state, x, target, *, weight=None, mask=None, reset=None, signal=None
    ):
        check_state(name, state, TraceState)
        *kept, learnt = state
        remembered = InfluenceState(*kept)
        now = enter_step(
            advance, params, state.carry, state.initial, x, target, weight, mask, reset
        )
        places = visible_places(state.carry, visible)
        read = read_out(step, loss, params, now, [i for i in places if i is not None])
        skipped = read.skip is not None
        check_fits(name, "feedback", learnt, fixed if learns else None)
        weights = learnt if learns else fixed
        given = _given_signals(signal, weights, read, visible(state.carry), now)
        read = _with_signals(read, places, given)
        grads, rows = read.direct, None
        if read.signals:  # else the network has no state to remember anything in
            plan = plan_of(now, params, state.layout is None, skipped)
            entering = entering_rows(name, remembered, now, params, plan)
            rank = len(now.batch)
            found = linearise(plan, now.example, params, now.start, now.inputs, rank)
            rows = next_influence(plan, found, entering, rank)
            if plan.late_only:
                signals, _ = as_vectors(read.signals, now.batch)
                error = through_carry(plan, found, signals)
                grads = _add_pulled(read, now, params)
                grads = _add(grads, plan.layout, error, entering)
            else:
                grads = _gradients(read, plan.layout, entering, rows, now.batch)
        remembered = leaving_state(remembered, now, read.carry, rows)
        if isinstance(feedback, AdaptiveFeedback):
            learnt = _adapt(feedback, weights, read, visible(read.carry), now)
        state = TraceState(*remembered, learnt)
        return read.value, cast_like(grads, params), state

    return OnlineRule(init, update)


def _given_signals(signal, weights, read, part, now):
    """Return what takes the place of the derivatives at visible leaves, None if none.

    `part` is the visible part of the carry.
    """
    if signal is None:
        if weights is None:
            return None
        part = example_shapes(part, len(now.batch))
        return fed_back(weights, read.errors, read.y, part)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    same = jax.tree.structure(signal) == jax.tree.structure(part)
    if not same or shapes(signal) != shapes(part):
        raise ValueError(
            "signal must have the structure and shapes of the visible part of the "
            f"carry, {shapes(part)}; got {shapes(signal)}."
        )
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(signal)]
    return blank(leaves, leaves, now.mask)


def _with_signals(read: Readout, places: list, given: list | None) -> Readout:
    """Put signals in the place of the derivatives at visible leaves."""
    if given is None:
        return read
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


def _gradients(read, layout, entering, leaving, batch):
    """Return r + c P_t + b P_{t−1}."""
    grads = _add(read.direct, layout, as_vectors(read.signals, batch)[0], leaving)
    if read.skip is None:
        return grads
    return _add(grads, layout, as_vectors(read.skip, batch)[0], entering)


def _add(grads, layout, error, rows):
    """Return grads + error P."""
    leaves, structure = jax.tree.flatten(grads)
    parts = through_influence(layout, error, rows, leaves)
    pairs = zip(leaves, parts, strict=True)
    return structure.unflatten([a + b.astype(a.dtype) for a, b in pairs])


def _add_pulled(read, now, params):
    """Return r + c ∂h_t/∂θ."""

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
    """Return the feedback weights after the step, the old ones if all is padding."""
    example, leaves = example_shapes(part, len(now.batch)), jax.tree.leaves(part)
    new = adapted(feedback, weights, read.errors, read.y, example, leaves)
    if now.mask is None:
        return new
    counts = jnp.any(now.mask)
    return jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, weights)
