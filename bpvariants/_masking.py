"""Steps that skip padding and that reset the carry."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import check_count, check_flags
from bpvariants._examples import select
from bpvariants.types import PyTree, Step


def mask_from_lengths(lengths: jax.typing.ArrayLike, num_steps: int) -> jax.Array:
    """Return the mask [T, *batch] of sequences that are padded at their end.

    Args:
      lengths: [*batch] integers from 0 to T: the number of time steps of each sequence
        before its padding. The lengths are checked if they are known while tracing.
      num_steps: T, the number of time steps including padding.

    Raises:
      ValueError: if num_steps is not an integer of at least 1, if lengths are not
        integers, or if a length that is known while tracing is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> gradients.mask_from_lengths(jnp.array([2, 0]), 3).astype(int).tolist()
      [[1, 0], [1, 0], [0, 0]]
    """
    check_count("num_steps", num_steps)
    lengths = checked_lengths(lengths, "num_steps", int(num_steps))
    steps = jnp.arange(int(num_steps)).reshape(-1, *[1] * lengths.ndim)
    return steps < lengths[None].astype(steps.dtype)


def last_step_weights(lengths: jax.typing.ArrayLike, num_steps: int) -> jax.Array:
    """Return weights [T, *batch] that count only the loss of each sequence's last step.

    The weight is 1 at the last step before the padding, and 0 at all other steps. A
    sequence of length 0 has no weight. Use these weights, together with
    :func:`mask_from_lengths`, if each sequence has one target.

    Args:
      lengths: [*batch] integers from 0 to T: the number of time steps of each sequence
        before its padding. The lengths are checked if they are known while tracing.
      num_steps: T, the number of time steps including padding.

    Returns:
      Weights [T, *batch] in JAX's default floating dtype.

    Raises:
      ValueError: if num_steps is not an integer of at least 1, if lengths are not
        integers, or if a length that is known while tracing is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> gradients.last_step_weights(jnp.array([2, 0, 3]), 3).tolist()
      [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_count("num_steps", num_steps)
    lengths = checked_lengths(lengths, "num_steps", int(num_steps))
    steps = jnp.arange(1, int(num_steps) + 1).reshape(-1, *[1] * lengths.ndim)
    return (steps == lengths[None].astype(steps.dtype)).astype(float)


def checked_lengths(lengths: Any, name: str, num_steps: int) -> jax.Array:
    """Return lengths as an array; check the values that are known while tracing."""
    wanted = f"lengths must be integers from 0 to {name} = {num_steps}, got"
    try:
        array = jnp.asarray(lengths)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted} {lengths!r}.") from error
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"{wanted} {array.dtype}: {lengths}. Cast whole numbers with .astype(int)."
        )
    try:
        known = np.asarray(lengths)
    except jax.errors.TracerArrayConversionError:
        return array
    wrong = known[(known < 0) | (known > num_steps)]
    if wrong.size:
        raise ValueError(f"{wanted} {wrong[0]}.")
    return array


def guarded(
    step: Step, initial: PyTree, mask: jax.Array | None, reset: jax.Array | None
) -> Step:
    """Return a step that sets the carry to `initial` at resets, and skips padding."""

    def guarded_step(params, carry, x):
        start = restart(carry, initial, mask, reset)
        new_carry, y = step(params, start, blank(x, carry, mask))
        return keep(new_carry, carry, mask), y

    return guarded_step


def restart(
    carry: PyTree, initial: PyTree, mask: jax.Array | None, reset: jax.Array | None
) -> PyTree:
    """Return `initial` for examples that are reset, and `carry` for all others."""
    if reset is None:
        return carry
    check_flags("reset", reset, carry)
    return select(reset if mask is None else reset & mask, initial, carry)


def blank(x: PyTree, carry: PyTree, mask: jax.Array | None) -> PyTree:
    """Return the inputs of a step, with zeros in padding.

    The results of a step in padding are discarded. However, a NaN in the inputs of a
    step in padding would make the derivative NaN, because 0 · NaN is NaN.
    """
    if mask is None:
        return x
    check_flags("mask", mask, carry)
    return select(mask, x, jax.tree.map(jnp.zeros_like, x))


def keep(new: PyTree, old: PyTree, mask: jax.Array | None) -> PyTree:
    """Return the old carry for examples in padding, and the new carry elsewhere."""
    return new if mask is None else select(mask, new, old)
