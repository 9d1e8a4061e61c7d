"""How the derivative of one loss decays along the way back.

Notation: ℓ_s is the last loss of an example, h_{s−k} the carry k steps before it. The
look-back curve φ_k = ‖∂ℓ_s/∂h_{s−k}‖, k = 1 … R, shows how far credit reaches; the
gradient in the parameters, a sum over steps, does not.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._dtypes import widen
from bpvariants._masking import guarded
from bpvariants.gradients.through_time._unroll import scan_steps
from bpvariants.types import PyTree, Step


class LookBack(NamedTuple):
    """What reaches the carries k = 1 … R steps before the last loss."""

    norms: jax.Array  # [R], φ_k, the mean over the examples that reach so far
    examples: jax.Array  # [R], how many of them there are
    # [R, n], the mean of ∂ℓ_s/∂h_{s−k} over all examples, all leaves of the carry as
    # one vector; examples that do not reach so far count as zeros
    errors: jax.Array


def look_back(
    step_with_loss: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree,
    batch: tuple[int, ...],
    steps: int,
) -> LookBack:
    """Go back up to R = `steps` steps of the time axis from each example's last loss.

    k counts steps that are not padding. Keeps R carries, and each step is computed
    again where its derivative is taken: R backward passes, through the carry only.
    """
    length = jax.tree.leaves(inputs)[0].shape[0]
    sequences = inputs, mask, reset
    before = jax.tree.map(lambda leaf: leaf[: length - steps], sequences)
    x, mask_there, reset_there = before
    to_start = lambda params, h, x: (step_with_loss(params, h, x)[0], None)
    carry, _ = scan_steps(to_start, params, carry, x, mask_there, reset_there, initial)
    x, mask, reset = jax.tree.map(lambda leaf: leaf[length - steps :], sequences)
    keep_start = lambda params, h, x: (step_with_loss(params, h, x)[0], h)
    _, starts = scan_steps(keep_start, params, carry, x, mask, reset, initial)
    if mask is None:
        mask = jnp.ones((steps, *batch), bool)
    body = partial(_one_step_back, step_with_loss, params, initial)
    leaves = floating_leaves(carry)
    width = sum(leaf.size for leaf in leaves) // max(math.prod(batch), 1)
    dtypes = [widen(leaf).dtype for leaf in leaves] or [jnp.result_type(float)]
    dtype = np.result_type(*dtypes)
    start = (
        jax.tree.map(jnp.zeros_like, leaves),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(steps, jnp.finfo(dtype).dtype),
        jnp.zeros(steps, jnp.int32),
        jnp.zeros((steps, width), dtype),
    )
    (_, taken, norms, examples, errors), _ = jax.lax.scan(
        body, start, (starts, x, mask, reset), reverse=True
    )
    counted = jnp.sum(taken > 0)
    share = lambda total, count: total / jnp.maximum(count, 1).astype(total.dtype)
    return LookBack(share(norms, examples), examples, share(errors, counted))


def _one_step_back(step_with_loss, params, initial, state, inputs):
    """Take the errors that reach h_t back to h_{t−1}, and sort them by their k."""
    errors, taken, norms, examples, vectors = state
    start, x, mask, reset = inputs

    def run(leaves):
        step = guarded(step_with_loss, initial, mask, reset)
        new, losses = step(params, replace_floating(start, leaves), x)
        return floating_leaves(new), losses

    (_, losses), pull_back = jax.vjp(run, floating_leaves(start))
    last = mask & (taken == 0)
    (errors,) = pull_back((errors, last.astype(losses.dtype)))
    taken = taken + mask.astype(taken.dtype)
    flat, here = _as_rows(errors, mask.size, vectors.dtype), mask.reshape(-1)
    flat = jnp.where(here[:, None], flat, jnp.zeros_like(flat))
    k = taken.reshape(-1) - 1
    norms = norms.at[k].add(_norms(flat))
    examples = examples.at[k].add(here.astype(examples.dtype))
    vectors = vectors.at[k].add(flat)
    return (errors, taken, norms, examples, vectors), None


def _as_rows(leaves: list[jax.Array], rows: int, dtype: jnp.dtype) -> jax.Array:
    """Return leaves [*batch, ...] as one matrix [examples, n]."""
    size = lambda leaf: leaf.size // max(rows, 1)
    parts = [leaf.reshape(rows, size(leaf)).astype(dtype) for leaf in leaves]
    return jnp.concatenate([jnp.zeros((rows, 0), dtype), *parts], axis=1)


def _norms(rows: jax.Array) -> jax.Array:
    """Return the norm of each row, also where its square would be too small."""
    largest = jnp.max(jnp.abs(rows), axis=1, initial=0)
    unit = jnp.where(largest == 0, 1, largest)
    return largest * jnp.linalg.norm(rows / unit[:, None].astype(rows.dtype), axis=1)
