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
h_0 with the given one. If they differ too much, all cotangents are NaN.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._examples import largest, relative
from bpvariants._jaxpr.residuals import cotangent
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
    `recovered` selects the part of the carry that must be recovered. If the largest
    error of this part, relative to the largest absolute value in the forward pass, is
    not below √ε of its least precise dtype, all cotangents are NaN.
    """
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    body, of_body = jax.closure_convert(body, given, carry, first)
    undo, of_undo = jax.closure_convert(undo, given, carry, first)
    size = lambda h: _size(floating_leaves(recovered(h)))

    def advance(fixed, h, x):
        given, of_body, _ = fixed
        return body(given, h, x, *of_body)

    @jax.custom_vjp
    def run(fixed, carry, inputs):
        return jax.lax.scan(lambda h, x: advance(fixed, h, x), carry, inputs)

    def forward(fixed, carry, inputs):
        def with_peak(h_and_peak, x):
            h, peak = h_and_peak
            h, y = advance(fixed, h, x)
            return (h, jnp.maximum(peak, size(h))), y

        (last, peak), ys = jax.lax.scan(with_peak, (carry, size(carry)), inputs)
        return (last, ys), (fixed, carry, inputs, last, peak)

    def backward(saved, cotangents):
        fixed, carry, inputs, last, peak = saved
        last_bar, ys_bar = map(floating_leaves, cotangents)

        def back(state, x_and_bar):
            h, delta, total, most = state
            x, y_bar = x_and_bar
            given, _, of_undo = fixed
            old = undo(given, h, x, *of_undo)
            sums, delta, x_bar = _pull(advance, fixed, old, x, delta, y_bar)
            total = jax.tree.map(jnp.add, total, sums)
            return (old, delta, total, jnp.maximum(most, size(old))), x_bar

        zeros = [jnp.zeros_like(leaf) for leaf in floating_leaves(fixed)]
        begin = last, last_bar, zeros, jnp.zeros_like(peak)
        (start, delta, total, most), xs_bar = jax.lax.scan(
            back, begin, (inputs, ys_bar), reverse=True
        )
        starts = (floating_leaves(recovered(h)) for h in (start, carry))
        error = _size(jax.tree.map(jnp.subtract, *starts))
        found = (relative(error, peak) < _tolerance(recovered(carry))) & (
            most <= LOST * peak
        )
        poisoned = lambda leaf: jnp.where(found, leaf, jnp.full_like(leaf, jnp.nan))
        bars = jax.tree.map(poisoned, (total, delta, xs_bar))
        return tuple(map(cotangent, (fixed, carry, inputs), bars))

    run.defvjp(forward, backward)
    return run((given, of_body, of_undo), carry, inputs)


def _size(leaves: list[jax.Array]) -> jax.Array:
    """Return the largest absolute value in float32 or wider, or 0 without leaves."""
    return largest(leaves, 0) if leaves else jnp.zeros([], jnp.float32)


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


def _tolerance(carry: PyTree) -> float:
    dtypes = [leaf.dtype for leaf in floating_leaves(carry)]
    return max([float(jnp.finfo(dtype).eps) for dtype in dtypes], default=1.0) ** 0.5
