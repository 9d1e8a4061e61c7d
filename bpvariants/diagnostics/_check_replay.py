"""Comparison of a stored rollout with its replay: outputs, carries and resets.

Notation: while an agent acts, it runs the network step by step and stores the outputs
y_t, such as the log-probabilities of its actions, or the carries h_t. To learn from the
rollout, the network is run again from the same inputs, by `gradients.unroll` or a
gradient rule. With the same params, the replay gives ŷ_t = y_t and ĥ_t = h_t, up to
rounding. If not, the replay differs from the rollout: often in its resets.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import (
    are_numbers,
    as_pair,
    called,
    check_lengths,
    check_step_function,
    STEP,
    UsageError,
)
from bpvariants._dtypes import is_floating, is_key, widen
from bpvariants._losses import as_arrays
from bpvariants._settings import check_scalar
from bpvariants.diagnostics._replay_check import ReplayCheck
from bpvariants.gradients.through_time._unroll import unroll
from bpvariants.types import PyTree, Step


def check_replay(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    outputs: PyTree | None = None,
    carries: PyTree | None = None,
    reset: jax.typing.ArrayLike | None = None,
    mask: jax.typing.ArrayLike | None = None,
    initial: PyTree | None = None,
    tol: float | jax.Array = 1e-3,
) -> ReplayCheck:
    """Compare what a rollout stored while acting with its replay through time.

        ĥ_t, ŷ_t = step(θ, ĥ_{t−1}, x_t),  with resets;    is ŷ_t = y_t, and ĥ_t = h_t?

    Call it once, with the params that acted and the arrays that you will give to a
    gradient rule. It finds resets that are one step early or late, a wrong first carry,
    mixed-up batch axes, and inputs that were stored at another step. For the gradient
    itself, see :func:`check_gradients`. It is a pure function that can be jitted; the
    result's `first`, `differences` and `table()` work only outside of `jit`. Time:
    three forward passes with resets, else one; memory: the outputs and carries of T
    steps.

    Args:
      step: the network that acted, (params, carry, x) -> (carry, y). To compare the
        log-probabilities of the actions, let x be the pair (observation, action), and y
        the log-probability of the action.
      params: the network's parameters during the rollout.
      carry: the carry before the first step, leaves [*batch, ...].
      xs: inputs, leaves [T, *batch, ...].
      outputs: the outputs y of all steps that the rollout stored, with the structure of
        the step's y; leaves [T, *batch, ...].
      carries: the carries after all steps that the rollout stored, with the structure
        of carry; leaves [T, *batch, ...]. Give outputs, carries, or both.
      reset: [T, *batch] bool, as you give it to a gradient rule.
      mask: [T, *batch] bool, False in padding, which is not compared.
      initial: the carry after a reset. Default: `carry`.
      tol: an element differs if |stored − replayed| > tol · max(1, |stored|). Rounding
        errors of float32 on a CPU are about 1e-6; those of TF32 or bfloat16 matrix
        products are about 1e-3 to 1e-2.

    Returns:
      A :class:`ReplayCheck`: `largest_ratio`, `first`, `table()`, and the differences
      of each step and example as arrays.

    Raises:
      ValueError: if neither outputs nor carries are given, if lengths, shapes or dtypes
        disagree, or if tol is not positive.

    Example:
      The memory is cleared after a done step; the replay clears it before this step.

      >>> import jax.numpy as jnp
      >>> from bpvariants import diagnostics, gradients
      >>> add = lambda w, h, x: (h + w * x, h + w * x)
      >>> xs, dones = jnp.ones(5), jnp.array([False, False, True, False, False])
      >>> acted = jnp.array([1.0, 2.0, 3.0, 1.0, 2.0])  # y of each step
      >>> args = add, 1.0, jnp.array(0.0), xs
      >>> found = diagnostics.check_replay(*args, outputs=acted, reset=dones)
      >>> found.first.place, found.first.time, found.first.difference
      ('outputs', 2, 2.0)
      >>> print(found.table())
              first step example largest difference ratio
      outputs          2       –              2.000 7.389
      The replay agrees if every reset comes one step later;
      gradients.resets_from_dones(dones) makes such resets.
      >>> right = gradients.resets_from_dones(dones)
      >>> diagnostics.check_replay(*args, outputs=acted, reset=right).first is None
      True
    """
    if outputs is None and carries is None:
        raise ValueError(
            "outputs or carries must be given: arrays [T, *batch, ...] that the "
            "rollout stored, such as the log-probabilities of the actions."
        )
    check_scalar("tol", tol)
    if are_numbers(tol) and not tol > 0:
        raise ValueError(f"tol must be positive, such as 1e-3, got {tol}.")
    mask, reset = as_arrays(mask=mask, reset=reset)
    check_lengths(xs, outputs=outputs, carries=carries, mask=mask, reset=reset)
    check_step_function(step)

    def act(params, carry, x):
        carry, y = as_pair(called(STEP, step, params, carry, x))
        return carry, (y, carry)

    def compare(reset):
        _, (ys, hs) = unroll(
            act, params, carry, xs, mask=mask, reset=reset, initial=initial
        )
        flags = [flag.ndim for flag in (reset, mask) if flag is not None]
        kept = max(flags) if flags else _shared_axes((xs, ys, hs))
        one = partial(_compare, tol=tol, mask=mask, kept=kept)
        return one("outputs", outputs, ys), one("carries", carries, hs)

    differs = lambda results: _any([flags for _, flags in results])
    found = compare(reset)
    (output_sizes, outputs_differ), (carry_sizes, carries_differ) = found
    later = earlier = jnp.zeros((), bool)
    if reset is not None:
        none = jnp.zeros_like(reset[:1])
        moved = differs(found) & jnp.any(reset)
        later = moved & ~differs(compare(jnp.concatenate([none, reset[:-1]])))
        earlier = moved & ~differs(compare(jnp.concatenate([reset[1:], none])))
    return ReplayCheck(
        output_sizes, carry_sizes, tol, outputs_differ, carries_differ, later, earlier
    )


def _compare(name, stored, replayed, *, tol, mask, kept):
    """Return two pytrees like `stored`: differences, and whether they exceed tol."""
    if stored is None:
        return None, None
    _check_stored(name, stored, replayed)
    leaves, structure = jax.tree.flatten(stored)
    pairs = [
        _difference(a, b, tol, mask, kept)
        for a, b in zip(leaves, jax.tree.leaves(replayed), strict=True)
    ]
    sizes, flags = zip(*pairs, strict=True) if pairs else ((), ())
    return structure.unflatten(sizes), structure.unflatten(flags)


def _difference(stored, replayed, tol, mask, kept):
    """Return (largest |stored − replayed|, whether an element differs), [T, *batch]."""
    axes = tuple(range(kept, jnp.ndim(replayed)))
    if is_key(replayed):
        stored, replayed = jax.random.key_data(stored), jax.random.key_data(replayed)
        axes = tuple(range(kept, replayed.ndim))
    a, b = widen((stored, replayed))
    if is_floating(a) or is_floating(b):
        dtype = np.result_type(*(leaf.dtype for leaf in (a, b) if is_floating(leaf)))
        a, b = a.astype(dtype), b.astype(dtype)
        size = jnp.where(a == b, 0, jnp.abs(a - b))
        size = jnp.where(jnp.isnan(size), jnp.inf, size)
        scale = jnp.where(jnp.isfinite(a), jnp.maximum(jnp.abs(a), 1), 1)
        differ = size > jnp.asarray(tol, size.dtype) * scale
    else:
        differ = a.astype(b.dtype) != b
        size = differ.astype(jnp.float32)
    size, differ = jnp.max(size, axis=axes, initial=0), jnp.any(differ, axis=axes)
    if mask is not None:
        mask = mask.reshape(mask.shape + (1,) * (size.ndim - mask.ndim))
        size, differ = jnp.where(mask, size, 0), differ & mask
    return size, differ


def _shared_axes(sequences: PyTree) -> int:
    """Return the number of leading axes whose lengths all sequences share."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(sequences)]
    shared = 0
    for lengths in zip(*shapes, strict=False):
        if len(set(lengths)) > 1:
            break
        shared += 1
    return shared


def _check_stored(name: str, stored: PyTree, replayed: PyTree) -> None:
    """Check that stored arrays have the structure and the shapes of the replay."""
    shapes = lambda tree: jax.tree.map(lambda leaf: list(jnp.shape(leaf)), tree)
    got, want = shapes(stored), shapes(replayed)
    if jax.tree.structure(stored) != jax.tree.structure(replayed) or got != want:
        source = "step's y" if name == "outputs" else "carry"
        raise UsageError(
            f"{name} must be those of all steps, with the structure of the {source} "
            f"and shapes {want}; got {got}. To compare only a part, let step return "
            "this part as its y."
        )


def _any(tree: PyTree) -> jax.Array:
    """Return whether any flag of a pytree is True."""
    found = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(tree):
        found |= jnp.any(leaf)
    return found
