"""Methods that a step may have: `unroll`, for a whole sequence, and `inverse`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._examples import select
from bpvariants._settings import called, described, UsageError
from bpvariants.types import PyTree, Step

UNROLL = "step.unroll(params, carry, xs, mask, reset, initial)"


def whole_sequence(step: Step) -> Callable | None:
    """Return the method of a step that runs a whole sequence, or None.

    A method of that name that takes other arguments, or does not return a pair, raises
    an error when it is called.
    """
    method = getattr(step, "unroll", None)
    if not callable(method):
        return None
    remedy = (
        "a method unroll of a step must run the whole sequence and return (carry, ys). "
        f"If the unroll of {described(step)} does something else, rename it, or give "
        "lambda params, carry, x: step(params, carry, x)"
    )

    def unroll(*arguments):
        result = called(UNROLL, method, *arguments, remedy=remedy)
        if isinstance(result, tuple | list) and len(result) == 2:
            return result[0], result[1]
        raise UsageError(f"{UNROLL} returned {described(result)}; {remedy}.")

    return unroll


def inverse_of(step: Step) -> Callable | None:
    """Return the method inverse(params, carry, x) -> old carry of a step, or None."""
    method = getattr(step, "inverse", None)
    return method if callable(method) else None


def copy_inverse(step: Step, step_with_loss: Step) -> None:
    """Give the inverse of a step to a step whose inputs are (x, target)."""
    inverse = inverse_of(step)
    if inverse is not None:
        of_x = lambda params, carry, inputs: inverse(params, carry, inputs[0])
        setattr(step_with_loss, "inverse", of_x)  # noqa: B010


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
