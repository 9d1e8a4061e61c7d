"""Scan over time whose backward pass recovers the carries instead of storing them.

Notation: h_t is the carry, y_t the output, θ the parameters, L the loss, δ_t = dL/dh_t,
ȳ_t = dL/dy_t. The step h_t, y_t = f(θ, h_{t−1}, x_t) has an inverse g in its carry:

    h_{t−1} = g(θ, h_t, x_t).

The forward pass stores h_T only. For t = T, …, 1, the backward pass computes

    h_{t−1} = g(θ, h_t, x_t),
    δ_{t−1} = δ_t ∂h_t/∂h_{t−1} + ȳ_t ∂y_t/∂h_{t−1},
    dL/dθ  += δ_t ∂h_t/∂θ + ȳ_t ∂y_t/∂θ.

An inverse step of a network that forgets magnifies rounding errors: if h_t contains
z h_{t−1}, the inverse divides by z. The backward pass therefore compares the recovered
h_0 with the given one, and fingerprints of all recovered carries with those of the
forward pass. If they differ too much, all cotangents are NaN. Without the fingerprints,
errors that the inverse steps first magnify and then reduce would not be noticed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._examples import largest, relative
from bpvariants._jaxpr.residuals import cotangent
from bpvariants.gradients.through_time._fingerprints import (
    add_fingerprint,
    agree,
    no_fingerprints,
    Steps,
    steps_of,
)
from bpvariants.types import PyTree

LOST = 2  # a carry is lost if it is this many times as large as all forward carries


def reversible_scan(
    body: Callable,
    undo: Callable,
    given: PyTree,
    carry: PyTree,
    inputs: PyTree,
    recovered: Callable[[PyTree], PyTree] = lambda carry: carry,
) -> tuple[PyTree, PyTree]:
    """Scan `body(given, h, inputs) -> (h, y)`; the backward pass recovers the carries.

    `undo(given, h, inputs)` returns the carry before a step from the carry h after it.
    `recovered` selects the part of the carry that must be recovered. Each of its arrays
    is checked by itself, because the arrays may have different units. If the largest
    error in h_0, relative to the largest absolute value of the array in the forward
    pass, is not below √ε of its dtype, all cotangents are NaN; so they are if
    fingerprints of the carries differ by more than errors of this size explain.
    """
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    steps = steps_of(len(jax.tree.leaves(inputs)[0]))
    body, of_body = jax.closure_convert(body, given, carry, first)
    undo, of_undo = jax.closure_convert(undo, given, carry, first)
    part = lambda h: floating_leaves(recovered(h))
    size = lambda h: _size(part(h))

    def advance(fixed, h, x):
        given, of_body, _ = fixed
        return body(given, h, x, *of_body)

    @jax.custom_vjp
    def run(fixed, carry, inputs):
        return jax.lax.scan(lambda h, x: advance(fixed, h, x), carry, inputs)

    def forward(fixed, carry, inputs):
        def with_peak(state, x_and_step):
            (h, peak, prints), (x, step) = state, x_and_step
            prints = add_fingerprint(prints, part(h), *step)
            h, y = advance(fixed, h, x)
            return (h, jnp.maximum(peak, size(h)), prints), y

        begin = carry, size(carry), no_fingerprints(part(carry))
        (last, *sizes), ys = jax.lax.scan(with_peak, begin, (inputs, steps))
        return (last, ys), (fixed, carry, inputs, last, *sizes)

    def backward(saved, cotangents):
        fixed, carry, inputs, last, peak, prints = saved
        last_bar, ys_bar = map(floating_leaves, cotangents)

        def back(state, given_at_step):
            h, delta, total, most, found = state
            x, y_bar, step = given_at_step
            old = undo(fixed[0], h, x, *fixed[2])
            found = add_fingerprint(found, part(old), *step)
            sums, delta, x_bar = _pull(advance, fixed, old, x, delta, y_bar)
            total = jax.tree.map(jnp.add, total, sums)
            return (old, delta, total, jnp.maximum(most, size(old)), found), x_bar

        zeros = [jnp.zeros_like(leaf) for leaf in floating_leaves(fixed)]
        begin = last, last_bar, zeros, jnp.zeros_like(peak), jnp.zeros_like(prints)
        (start, delta, total, most, found), xs_bar = jax.lax.scan(
            back, begin, (inputs, ys_bar, steps), reverse=True
        )
        sizes = (peak, prints), (most, found)
        good = _recovered(part(start), part(carry), *sizes, steps)
        poisoned = lambda leaf: jnp.where(good, leaf, jnp.full_like(leaf, jnp.nan))
        bars = jax.tree.map(poisoned, (total, delta, xs_bar))
        return tuple(map(cotangent, (fixed, carry, inputs), bars))

    run.defvjp(forward, backward)
    return run((given, of_body, of_undo), carry, inputs)


def _size(leaves: list[jax.Array]) -> jax.Array:
    """Return the largest absolute value of each leaf, in float32 or wider."""
    sizes = jnp.zeros(len(leaves), no_fingerprints(leaves).real.dtype)
    for i, leaf in enumerate(leaves):
        sizes = sizes.at[i].set(largest(leaf, 0).astype(sizes.dtype))
    return sizes


def _pull(advance, fixed, h, x, delta, y_bar):
    """Return the cotangents of the floating leaves of fixed, h and x of one step."""

    def of_floating(fixed_leaves, h_leaves, x_leaves):
        new, y = advance(
            replace_floating(fixed, fixed_leaves),
            replace_floating(h, h_leaves),
            replace_floating(x, x_leaves),
        )
        return floating_leaves(new), floating_leaves(y)

    leaves = floating_leaves(fixed), floating_leaves(h), floating_leaves(x)
    return jax.vjp(of_floating, *leaves)[1]((delta, y_bar))


def _recovered(
    start: list[jax.Array],
    given: list[jax.Array],
    forward: tuple[jax.Array, jax.Array],
    backward: tuple[jax.Array, jax.Array],
    steps: Steps,
) -> jax.Array:
    """Return whether the recovered h_0 (`start`) and all recovered carries are right.

    `forward` and `backward` are the largest absolute values and the fingerprints of the
    carries of each pass, for each leaf.
    """
    (peak, prints), (most, found) = forward, backward
    eps = np.array([float(jnp.finfo(leaf.dtype).eps) for leaf in given])
    allowed = jnp.asarray(eps**0.5, peak.dtype)
    error = _size(jax.tree.map(jnp.subtract, start, given))
    good = (relative(error, peak) < allowed) & (most <= LOST * peak)
    return jnp.all(good) & agree(prints, found, given, steps, allowed * peak)
