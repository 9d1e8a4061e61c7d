"""Methods that a step may have: `unroll`, for a whole sequence, and `inverse`.

Cells of this library may also have a private method `_unroll_two_phase(params, carry,
xs)`, which returns what `unroll` returns, or None if it cannot run these arrays. It has
reverse mode, but no forward mode.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._examples import select
from bpvariants._settings import called, described, UsageError
from bpvariants.types import PyTree, Step

UNROLL = "step.unroll(params, carry, xs, mask, reset, initial)"
TWO_PHASE = "_unroll_two_phase"


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


def two_phase_sequence(step: Step) -> Callable | None:
    """Return the method of a step that runs a sequence for "two_phase", or None."""
    return getattr(step, TWO_PHASE, None)


def inverse_of(step: Step) -> Callable | None:
    """Return the method inverse(params, carry, x) -> old carry of a step, or None."""
    method = getattr(step, "inverse", None)
    return method if callable(method) else None


def copy_methods(step: Step, step_with_loss: Step, function: Callable) -> None:
    """Give the methods of a step to a step with inputs (x, target).

    The outputs of its sequences are function(y, target).
    """
    whole = whole_sequence(step)
    if whole is not None:
        setattr(step_with_loss, "unroll", with_outputs(whole, function))  # noqa: B010
    copy_inverse(step, step_with_loss)
    copy_two_phase(step, step_with_loss, function)


def copy_inverse(step: Step, step_with_loss: Step) -> None:
    """Give the inverse of a step to a step whose inputs are (x, target)."""
    inverse = inverse_of(step)
    if inverse is not None:
        of_x = lambda params, carry, inputs: inverse(params, carry, inputs[0])
        setattr(step_with_loss, "inverse", of_x)  # noqa: B010


def copy_two_phase(step: Step, step_with_loss: Step, function: Callable) -> None:
    """Give a step with inputs (x, target) the method `_unroll_two_phase` of a step."""
    whole = two_phase_sequence(step)

    def unroll(params, carry, inputs):
        assert whole is not None
        xs, targets = inputs
        found = whole(params, carry, xs)
        return found and (found[0], jax.vmap(function)(found[1], targets))

    if whole is not None:
        setattr(step_with_loss, TWO_PHASE, unroll)


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
