"""Padding and resets: how they enter a step."""

import jax
import jax.numpy as jnp

from bpvariants._checks import check_flags
from bpvariants.types import PyTree, Step


def mask_from_lengths(lengths: jax.Array, num_steps: int) -> jax.Array:
    """Return the mask [T, *batch] of sequences that are padded at their end.

    Args:
      lengths: [*batch] integers from 0 to T.
      num_steps: T.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> gradients.mask_from_lengths(jnp.array([2, 0]), 3).astype(int).tolist()
      [[1, 0], [1, 0], [0, 0]]
    """
    steps = jnp.arange(num_steps).reshape(-1, *[1] * jnp.ndim(lengths))
    return steps < jnp.asarray(lengths)[None].astype(steps.dtype)


def guarded(
    step: Step, initial: PyTree, mask: jax.Array | None, reset: jax.Array | None
) -> Step:
    """Return the step that restarts at resets and keeps its carry in padding."""

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
    """Return the inputs of a step, zeros in padding.

    Results of padded steps are discarded. But a NaN in their inputs would reach the
    derivative, as 0 · NaN. So a NaN must not enter the step at all.
    """
    if mask is None:
        return x
    check_flags("mask", mask, carry)
    return select(mask, x, jax.tree.map(jnp.zeros_like, x))


def keep(new: PyTree, old: PyTree, mask: jax.Array | None) -> PyTree:
    """Return the new carry of a step, or in padding the old one."""
    return new if mask is None else select(mask, new, old)


def select(flags: jax.Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """Choose, by flags [*batch], between the examples of two pytrees [*batch, ...]."""

    def choose(a, b):
        if a is b:
            return a
        trailing = (1,) * (jnp.ndim(a) - flags.ndim)
        return jnp.where(flags.reshape(flags.shape + trailing), a, b)

    return jax.tree.map(choose, if_true, if_false)
