"""The two programs of a learner: predict, and learn from one time step.

Both take the vectors of the state, and lists of arrays for x, target and flags, so that
the exported programs need no class of the process that exported them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bpvariants._dtypes import cast_like
from bpvariants._losses import effective_weights
from bpvariants._masking import restart, select
from bpvariants.training.learners._layout import Layout, packed, unpacked, with_keys
from bpvariants.training.learners._trees import tree_of
from bpvariants.types import OnlineRule, PyTree, Step


class LearnerState(NamedTuple):
    """State of a learner between two time steps."""

    params: PyTree
    opt_state: PyTree
    rule: PyTree  # state of the online rule, with the carry of the network
    key: jax.Array | None  # None if the rule does not draw random numbers


class Parts(NamedTuple):
    """What a learner is made of."""

    rule: OnlineRule
    update: optax.GradientTransformationExtraArgs
    step: Step


def output(parts: Parts, state: LearnerState, x: PyTree, flags: dict) -> PyTree:
    """Return the output of the network for x, without a change of the state."""
    carry = state.rule.carry
    if "reset" in flags:
        carry = restart(carry, state.rule.initial, None, flags["reset"])
    return parts.step(state.params, carry, x)[1]


def advance(
    parts: Parts, state: LearnerState, x: PyTree, target: PyTree, flags: dict
) -> tuple[LearnerState, jax.Array]:
    """Learn from one time step; return (state, value)."""
    params, opt_state, of_rule, key = state
    options = dict(flags)
    if key is not None:
        key, options["key"] = jax.random.split(key)
    value, grads, of_rule = parts.rule.update(params, of_rule, x, target, **options)
    change, new_opt_state = parts.update.update(
        cast_like(grads, params), opt_state, params, value=value
    )
    new = cast_like(jax.tree.map(jnp.add, params, change), params)
    pair: tuple[PyTree, PyTree] = new, new_opt_state
    counts = effective_weights(flags.get("weight"), flags.get("mask"))
    if counts is not None:  # without a loss that counts, no update is made
        pair = select(jnp.any(counts != 0), pair, (params, opt_state))
    return LearnerState(pair[0], pair[1], of_rule, key), value


def make_predict(
    parts: Parts, layout: Layout, structure: Any, x_structure: Any, names: list[str]
) -> Callable[..., list[Any]]:
    """Return the program (vectors, xs, flags) -> ys, over lists of arrays."""

    def predict(vectors, xs, flags):
        state = structure.unflatten(with_keys(unpacked(vectors, layout), layout))
        x = tree_of(x_structure, iter(xs))
        flags = dict(zip(names, flags, strict=True))
        return jax.tree.leaves(output(parts, state, x, flags))

    return predict


def make_learn(
    parts: Parts,
    layout: Layout,
    structure: Any,
    structures: tuple[Any, Any],
    names: list[str],
) -> Callable[..., tuple[list[Any], list[Any], jax.Array]]:
    """Return the program (vectors, xs, targets, flags) -> (vectors, ys, value)."""

    def learn(vectors, xs, targets, flags):
        state = structure.unflatten(with_keys(unpacked(vectors, layout), layout))
        x, target = (
            tree_of(each, iter(leaves))
            for each, leaves in zip(structures, (xs, targets), strict=True)
        )
        flags = dict(zip(names, flags, strict=True))
        ys = jax.tree.leaves(output(parts, state, x, flags))
        state, value = advance(parts, state, x, target, flags)
        return packed(jax.tree.leaves(state), layout), ys, value

    return learn
