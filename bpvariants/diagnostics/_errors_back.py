"""The errors that reach the carries along a sequence, from all losses and from each.

Notation: with e_t added to the carry h_t, before y_t reads it, ∂(Σ_s w_s ℓ_s)/∂e_t is
δ_t, and ∂ℓ_s/∂e_t is ∂ℓ_s/∂h_t: one linearised run, and a backward pass for each.
"""

import math

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, floating_parts
from bpvariants._examples import scaled_norm
from bpvariants._jaxpr.cuts import reading_new_carry
from bpvariants._masking import guarded
from bpvariants.types import PyTree, Step


def errors_back(
    step_with_loss: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree,
    weights: jax.Array,
    samples: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return ‖δ_t‖ [T], sources s [S], and sums and weights of norms by lag [S, T]."""
    length = len(weights)
    run = _perturbed_run(step_with_loss, params, carry, inputs, mask, reset, initial)
    like = floating_parts(carry)[0]
    zeros = [jnp.zeros((length, *jnp.shape(a)), jnp.result_type(a)) for a in like]
    _, pull_back = jax.vjp(run, zeros)

    def norms_of(cotangents):
        (errors,) = pull_back(cotangents)
        return _example_norms(errors, weights.shape, weights.dtype)

    here = jnp.ones(weights.shape, bool) if mask is None else mask
    examples = tuple(range(1, weights.ndim))
    deltas = jnp.sum(jnp.where(here, norms_of(weights), 0), axis=examples)
    deltas = ratio(deltas, jnp.sum(here, axis=examples).astype(weights.dtype))
    positions = jnp.cumsum(here, axis=0)
    steps = jnp.arange(length).reshape(-1, *[1] * len(examples))

    def look_back(source):
        errors = norms_of(((steps == source) & here).astype(weights.dtype))
        weight = weights[source][None]
        reach = here & (weight > 0) & (steps <= source)  # none if s is −1
        share = jnp.where(reach, weight, 0)
        lags = jnp.where(reach, positions[source][None] - positions, 0).reshape(-1)
        add = lambda a: jnp.zeros(length, a.dtype).at[lags].add(a.reshape(-1))
        return add(jnp.where(reach, share * errors, 0)), add(share)

    sources = _sources(weights > 0, samples)
    sums, shares = jax.lax.map(look_back, sources)
    return deltas, sources, sums, shares


def ratio(sums: jax.Array, shares: jax.Array) -> jax.Array:
    """Return means of what was summed up; of nothing, NaN."""
    return jnp.where(shares > 0, sums / jnp.where(shares > 0, shares, 1), jnp.nan)


def _perturbed_run(step_with_loss, params, carry, inputs, mask, reset, initial):
    """Return the function from what is added to the carries to the losses."""

    def advance(params, h, added_and_inputs):
        added, inputs = added_and_inputs

        def add(new):
            leaves, rebuild = floating_parts(new)
            moved = [a + cast_like(e, a) for a, e in zip(leaves, added, strict=True)]
            return rebuild(moved)

        return reading_new_carry(step_with_loss, add)(params, h, inputs)

    def run(added):
        def body(h, sequences):
            x, mask, reset = sequences
            return guarded(advance, initial, mask, reset)(params, h, x)

        return jax.lax.scan(body, carry, ((added, inputs), mask, reset))[1]

    return run


def _example_norms(errors, shape, dtype):
    """Return the norm of each example's errors [T, *batch], all leaves together."""
    rows = [jnp.zeros((math.prod(shape), 1), dtype)]
    rows += [
        scaled_norm(e.reshape(math.prod(shape), -1), axis=1)[:, None] for e in errors
    ]
    joined = jnp.concatenate([row.astype(dtype) for row in rows], axis=1)
    return scaled_norm(joined, axis=1).reshape(shape)


def _sources(counts: jax.Array, samples: int) -> jax.Array:
    """Return up to so many steps, evenly spread over those where a loss counts."""
    active = jnp.any(counts, axis=tuple(range(1, counts.ndim)))
    steps = jnp.nonzero(active, size=len(active), fill_value=-1)[0]
    total, ranks = jnp.sum(active), jnp.arange(samples)
    spread = ranks * (total - 1) // max(samples - 1, 1)
    if samples == 1:
        spread = total - 1 + ranks
    ranks = jnp.where(total <= samples, ranks, spread)
    return jnp.where(ranks < total, steps[jnp.maximum(ranks, 0)], -1)
