"""Padding and resets, built into a time step of a network."""

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
      lengths: [*batch] integers from 0 to T, the length of each sequence. Lengths are
        checked if their values are known while tracing.
      num_steps: T, the number of time steps.

    Raises:
      ValueError: if num_steps is not an integer of at least 1, or lengths are not
        integers, or known to be out of range.

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
    """Return a step that starts from `initial` at resets, and skips padding."""

    def guarded_step(params, carry, x):
        start = restart(carry, initial, mask, reset)
        new_carry, y = step(params, start, blank(x, carry, mask))
        return keep(new_carry, carry, mask), y

    return guarded_step


def restart(
    carry: PyTree, initial: PyTree, mask: jax.Array | None, reset: jax.Array | None
) -> PyTree:
    """Return the carry that a step starts from: `initial` at a reset, else `carry`."""
    if reset is None:
        return carry
    check_flags("reset", reset, carry)
    return select(reset if mask is None else reset & mask, initial, carry)


def blank(x: PyTree, carry: PyTree, mask: jax.Array | None) -> PyTree:
    """Return the inputs of a step, with zeros in padding.

    The results of a padded step are discarded, but a NaN in its inputs would still
    reach the derivative, as 0 · NaN.
    """
    if mask is None:
        return x
    check_flags("mask", mask, carry)
    return select(mask, x, jax.tree.map(jnp.zeros_like, x))


def keep(new: PyTree, old: PyTree, mask: jax.Array | None) -> PyTree:
    """Return the new carry of a step, or in padding the old carry."""
    return new if mask is None else select(mask, new, old)
