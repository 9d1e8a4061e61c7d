"""Error signals ∂ℓ_s/∂h_{s−k}: derivatives of the loss of step s at earlier carries.

Notation: ℓ_s is the loss of step s, w_s is its weight, and h_{s−k} is the carry k steps
before step s. A perturbation e_t, whose value is 0, is added to the carry at each step
t. The derivative ∂(Σ_s w_s ℓ_s)/∂e_t is the error signal of the weighted losses at the
carry of step t. The network is linearised once, so each choice of the loss weights w_s
needs only one backward pass.

The look-back curve φ_k is the mean norm of the error signals of single losses at the
lags k = 0, 1, …. The curve cannot be computed from the gradient for the parameters,
because that gradient is a sum over time steps. The lag k counts only steps that are not
padding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import as_vectors, floating_leaves, replace_floating
from bpvariants._examples import norm
from bpvariants._jaxpr.cuts import reading_new_carry
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._masking import guarded
from bpvariants.gradients.through_time._unroll import scan_steps
from bpvariants.types import PyTree, Step


class Course(NamedTuple):
    """A network, its loss, and the sequence along which the network runs."""

    step_with_loss: Step
    params: PyTree
    carry: PyTree
    inputs: PyTree  # (xs, targets), leaves [T, *batch, ...]
    mask: jax.Array | None  # [T, *batch]
    reset: jax.Array | None  # [T, *batch]
    initial: PyTree


class LookBack(NamedTuple):
    """Error signals of the last loss of each example, at lags k = 1 … R."""

    norms: jax.Array  # [R]: mean error norm at lag k, over examples of at least k steps
    examples: jax.Array  # [R]: number of examples of at least k steps, for each lag k
    # [R, n]: error signal ∂ℓ_s/∂h_{s−k} at each lag k, averaged over all examples. All
    # leaves of the carry together are one real vector. The error signal of an example
    # of fewer than k steps counts as 0.
    errors: jax.Array


def from_last_losses(course: Course, batch: tuple[int, ...], steps: int) -> LookBack:
    """Measure the error signals of each example's last loss at lags 1 to `steps`.

    Memory: as much as `steps` carries, because the backward pass computes each time
    step again. Time: backward passes of the last `steps` steps, which compute
    derivatives with respect to the carry but not to the params.
    """
    end = _last_steps(course, steps)
    here = jnp.ones((steps, *batch), bool) if end.mask is None else end.mask

    def enter(added, h, x, mask, reset):
        step = guarded(end.step_with_loss, end.initial, mask, reset)
        return step(end.params, _add(h, added), x)

    errors_of = _linearised(jax.checkpoint(enter, prevent_cse=False), end, steps)
    positions = jnp.cumsum(here, axis=0)
    total = positions[-1:]
    last = here & (positions == total)
    errors, _ = as_vectors(errors_of(last), here.shape)
    errors = jnp.where(here[..., None], errors, jnp.zeros_like(errors))
    norms = norm(errors, here.ndim)
    lags = jnp.where(here, total - positions, 0)
    examples = _add_by_lag(here.astype(jnp.int32), lags)
    sums = _add_by_lag(errors, lags)
    share = lambda total, count: total / jnp.maximum(count, 1).astype(total.dtype)
    counted = jnp.sum(total > 0)
    norms = share(_add_by_lag(norms, lags), examples)
    return LookBack(norms, examples, share(sums, counted))


def from_each_loss(
    course: Course, weights: jax.Array, samples: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Measure error signals of the weighted sum of all losses, and of single losses.

    The first result [T] contains the norms of the error signals of the weighted sum at
    each of T time steps. The second result [S] contains the time steps of up to S =
    `samples` single losses. The third result [S, T] contains, for each single loss and
    each lag, the weighted sum over examples of the norms of the error signals. The
    fourth result [S, T] contains the sums of the weights in the third result. The error
    signal at lag 0 is ∂ℓ_s/∂h_s, the derivative of the loss of step s with respect to
    the carry of step s. This derivative is found from the step's jaxpr, which shows how
    the output y_s is computed from h_s.
    """
    length = len(weights)
    step_with_loss, params, *_, initial = course

    def leave(added, h, x, mask, reset):
        """Run a step; add `added` to its new carry before the output is computed."""

        def advance(params, h, added_and_x):
            added, x = added_and_x
            moved = reading_new_carry(step_with_loss, lambda new: _add(new, added))
            return moved(params, h, x)

        return guarded(advance, initial, mask, reset)(params, h, (added, x))

    errors_of = _linearised(leave, course, length)
    norms_of = lambda w: _norms(errors_of(w), weights.shape, weights.dtype)
    here = jnp.ones(weights.shape, bool) if course.mask is None else course.mask
    examples = tuple(range(1, weights.ndim))
    deltas = jnp.sum(jnp.where(here, norms_of(weights), 0), axis=examples)
    deltas = ratio(deltas, jnp.sum(here, axis=examples).astype(weights.dtype))
    positions = jnp.cumsum(here, axis=0)
    steps = jnp.arange(length).reshape(-1, *[1] * len(examples))

    def look_back(source):
        errors = norms_of(((steps == source) & here).astype(weights.dtype))
        weight = weights[source][None]
        reach = here & (weight > 0) & (steps <= source)  # `source` is −1 if unused
        share = jnp.where(reach, weight, 0)
        lags = jnp.where(reach, positions[source][None] - positions, 0)
        sums = _add_by_lag(jnp.where(reach, share * errors, 0), lags)
        return sums, _add_by_lag(share, lags)

    sources = _sources(weights > 0, samples)
    sums, shares = jax.lax.map(look_back, sources)
    return deltas, sources, sums, shares


def ratio(sums: jax.Array, shares: jax.Array) -> jax.Array:
    """Return weighted sums divided by sums of weights; NaN if the weights sum to 0."""
    return jnp.where(shares > 0, sums / jnp.where(shares > 0, shares, 1), jnp.nan)


def _linearised(advance: Callable, course: Course, length: int) -> Callable:
    """Return a function from loss weights [T, *batch] to error signals of all steps.

    `advance(e, h, x, mask, reset) -> (h, losses)` runs a step and adds e to the
    floating leaves of the carry. The error signals are the derivatives of the weighted
    losses with respect to e: one array [T, *batch, ...] for each floating leaf.
    """
    leaves = floating_leaves(course.carry)
    zeros = [jnp.zeros((length, *leaf.shape), leaf.dtype) for leaf in leaves]

    def run(added):
        body = lambda h, now: advance(now[0], h, *now[1:])
        sequences = added, course.inputs, course.mask, course.reset
        return jax.lax.scan(body, course.carry, sequences)[1]

    losses, pull_back = jax.vjp(with_stored_operands(run, zeros), zeros)
    return lambda weights: pull_back(weights.astype(losses.dtype))[0]


def _add(carry: PyTree, added: list[jax.Array]) -> PyTree:
    return replace_floating(carry, list(map(jnp.add, floating_leaves(carry), added)))


def _add_by_lag(values: jax.Array, lags: jax.Array) -> jax.Array:
    """Sum values [T, *batch, ...] with equal lags; return one sum per lag, [T, ...]."""
    rest = values.shape[lags.ndim :]
    zeros = jnp.zeros((len(lags), *rest), values.dtype)
    return zeros.at[lags.reshape(-1)].add(values.reshape(lags.size, *rest))


def _last_steps(course: Course, steps: int) -> Course:
    """Run all but the last `steps` steps; return a Course of these last steps."""
    sequences = course.inputs, course.mask, course.reset
    length = jax.tree.leaves(course.inputs)[0].shape[0]
    x, mask, reset = jax.tree.map(lambda leaf: leaf[: length - steps], sequences)
    advance = lambda params, h, x: (course.step_with_loss(params, h, x)[0], None)
    before = course.params, course.carry, x, mask, reset, course.initial
    carry, _ = scan_steps(advance, *before)
    x, mask, reset = jax.tree.map(lambda leaf: leaf[length - steps :], sequences)
    return course._replace(carry=carry, inputs=x, mask=mask, reset=reset)


def _norms(errors: list[jax.Array], shape: tuple[int, ...], dtype) -> jax.Array:
    """Return the norm [T, *batch] of each example's error signals in all leaves."""
    norms = norm(errors, len(shape)) if errors else jnp.zeros(shape)
    return norms.astype(dtype)


def _sources(counts: jax.Array, samples: int) -> jax.Array:
    """Return up to `samples` steps, evenly spaced among those with a nonzero weight."""
    active = jnp.any(counts, axis=tuple(range(1, counts.ndim)))
    steps = jnp.nonzero(active, size=len(active), fill_value=-1)[0]
    total, ranks = jnp.sum(active), jnp.arange(samples)
    spread = ranks * (total - 1) // max(samples - 1, 1)
    if samples == 1:
        spread = total - 1 + ranks
    ranks = jnp.where(total <= samples, ranks, spread)
    return jnp.where(ranks < total, steps[jnp.maximum(ranks, 0)], -1)
