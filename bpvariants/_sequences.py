"""Steps that have a method `unroll`, which runs a whole sequence at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._examples import select
from bpvariants.types import PyTree, Step


def whole_sequence(step: Step) -> Callable | None:
    """Return the method of a step that runs a whole sequence, or None."""
    method = getattr(step, "unroll", None)
    return method if callable(method) else None


def with_outputs(whole: Callable, function: Callable[[PyTree, PyTree], PyTree]):
    """Return a method that takes (xs, targets), and outputs function(y, target).

    Inputs and targets in padding are replaced by zeros, because they may be NaN.
    """

    def unroll(params, carry, inputs, mask, reset, initial):
        if mask is not None:
            inputs = select(mask, inputs, jax.tree.map(jnp.zeros_like, inputs))
        xs, targets = inputs
        carry, ys = whole(params, carry, xs, mask, reset, initial)
        return carry, jax.vmap(function)(ys, targets)

    return unroll
