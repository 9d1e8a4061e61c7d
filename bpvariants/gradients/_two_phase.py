"""The scan over time whose backward loop holds no products for the weights.

Notation: h_t is the carry, θ the parameters, δ_t = dL/dh_t. Plain reverse mode of a
scan goes back through each step by itself, and adds up a gradient of θ at each. Here
each block of K steps is gone back through twice,

    δ_{t−1} = δ_t ∂h_t/∂h_{t−1} + ȳ_t ∂y_t/∂h_{t−1}       step by step, and δ alone
    dL/dθ  += Σ_t δ_t ∂h_t/∂θ + ȳ_t ∂y_t/∂θ               all t of the block at once

so that the weights of a layer get one product over K·B rows where they had K products
over B rows each. Both are transposes of one linearisation of the step, which the
forward pass makes, and of which it stacks up only what varies in time.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, NARROW, widen
from bpvariants.gradients._masking import guarded
from bpvariants.gradients._residuals import (
    cotangent,
    floating,
    linearised,
    plan_residuals,
)
from bpvariants.types import PyTree, Step

ROWS = 1024  # about as many in a product: more take memory, and no less time
NARROW_STEPS = 16  # whose sum may be narrower than float32


def two_phase_steps(
    step: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree,
) -> tuple[PyTree, PyTree]:
    """Run a network along time as `scan_steps` does, for reverse mode in two phases.

    Derivatives in params, carry, xs, initial and what step closes over are those of
    `scan_steps`. There is no forward mode, for which JAX raises a TypeError.
    """
    inputs = xs, mask, reset
    wide_params = widen(params)  # whose gradients are added up wide

    def whole(wide_params, initial, h, inputs):
        x, mask, reset = inputs
        narrow_params = cast_like(wide_params, params)
        return guarded(step, initial, mask, reset)(narrow_params, h, x)

    fixed = wide_params, initial
    whole, others = jax.closure_convert(whole, *fixed, carry, _at(inputs, 0))

    def advance(fixed, h, inputs):
        (wide_params, initial), others = fixed
        return whole(wide_params, initial, h, inputs, *others)

    length = jax.tree.leaves(xs)[0].shape[0]
    block = _block_length(length, params, carry)
    return _two_phase_scan(advance, block)((fixed, others), carry, inputs)


def _block_length(length: int, params: PyTree, carry: PyTree) -> int:
    """Return K, a divisor of T where there is a large one."""
    rows = [math.prod(jnp.shape(leaf)[:-1]) for leaf in jax.tree.leaves(carry)]
    most = max(1, ROWS // max(1, min(rows, default=1)))
    if any(jnp.result_type(leaf) in NARROW for leaf in jax.tree.leaves(params)):
        most = min(most, NARROW_STEPS)
    most = min(most, length)
    divisors = (k for k in range(most, most // 2, -1) if length % k == 0)
    return next(divisors, most)


def _two_phase_scan(advance: Callable, block: int) -> Callable:
    """Return the scan of `advance(fixed, h, x) -> (h, y)`, transposed by blocks.

    Its arguments are the `fixed` arrays, the carry, and the inputs of all steps.
    """
    linearise = partial(linearised, advance)

    @jax.custom_vjp
    def run(fixed, carry, inputs):
        return jax.lax.scan(partial(advance, fixed), carry, inputs)

    def forward(fixed, carry, inputs):
        first = _at(inputs, 0)
        plan = plan_residuals(linearise, fixed, carry, first)

        def body(h, x):
            (h, y), linear = linearise(fixed, h, x)
            return h, (y, plan.to_stack(linear))

        last, (ys, stacked) = jax.lax.scan(body, carry, inputs)
        # Under jit as the scan is, so that the same arrays are residuals.
        constants = jax.jit(lambda *args: plan.constants(linearise(*args)[1]))
        constants = constants(fixed, carry, first)
        return (last, ys), (plan, stacked, constants, fixed, carry, inputs)

    def backward(saved, cotangents):
        plan, stacked, constants, *arguments = saved
        fixed, carry, inputs = arguments
        like = [_tangents(tree) for tree in (fixed, carry, _at(inputs, 0))]
        linear = lambda at_time: plan.linear(*at_time, constants)
        last_bar, ys_bar = map(_without_float0, cotangents)
        bars = _transposed(linear, (stacked, inputs), last_bar, ys_bar, like, block)
        return tuple(map(cotangent, arguments, bars))

    run.defvjp(forward, backward)
    return run


def _transposed(
    linear: Callable,
    along_time: PyTree,
    last_bar: list[jax.Array],
    ys_bar: list[jax.Array],
    like: list[list[jax.ShapeDtypeStruct]],
    block: int,
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
    """Return the cotangents of the fixed arrays, of the carry and of the inputs.

    `linear(at_time)` is the derivative of the step at a time. Goes back through time
    by blocks, first through the steps that are left over by whole ones.
    """
    blocks, rest = divmod(jax.tree.leaves(along_time)[0].shape[0], block)

    def back(delta, start, length):
        cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, length)
        part, part_bar = jax.tree.map(cut, (along_time, ys_bar))
        delta, deltas = _phase_one(linear, part, part_bar, delta, like)
        return delta, _phase_two(linear, part, part_bar, deltas, like)

    def body(state, start):
        delta, total = state
        delta, (fixed_bar, xs_bar) = back(delta, start, block)
        return (delta, jax.tree.map(jnp.add, total, fixed_bar)), xs_bar

    delta, total, rest_bar = (
        last_bar,
        [jnp.zeros(a.shape, a.dtype) for a in like[0]],
        None,
    )
    if rest:
        delta, (total, rest_bar) = back(delta, blocks * block, rest)
    starts = block * jnp.arange(blocks)
    (delta, total), xs_bar = jax.lax.scan(body, (delta, total), starts, reverse=True)
    xs_bar = [leaf.reshape(blocks * block, *leaf.shape[2:]) for leaf in xs_bar]
    if rest:
        xs_bar = [jnp.concatenate(pair) for pair in zip(xs_bar, rest_bar, strict=True)]
    return total, delta, xs_bar


def _phase_one(linear, along_time, ys_bar, delta, like):
    """Carry δ back through steps; return it, and all δ_t on its way."""

    def step_back(delta, at_time_and_bar):
        at_time, y_bar = at_time_and_bar
        pull = jax.linear_transpose(linear(at_time), *like)
        return pull((delta, y_bar))[1], delta

    return jax.lax.scan(step_back, delta, (along_time, ys_bar), reverse=True)


def _phase_two(linear, along_time, ys_bar, deltas, like):
    """Return the cotangents of the fixed arrays, of all steps, and of the inputs."""
    fixed, h, x = like
    length = jax.tree.leaves(along_time)[0].shape[0]
    over_time = lambda a: jax.ShapeDtypeStruct((length, *a.shape), a.dtype)

    def all_steps(fixed, hs, xs):
        at_one = lambda at_time, h, x: linear(at_time)(fixed, h, x)
        return jax.vmap(at_one)(along_time, hs, xs)

    pull = jax.linear_transpose(all_steps, fixed, *jax.tree.map(over_time, (h, x)))
    fixed_bar, _, xs_bar = pull((deltas, ys_bar))
    return fixed_bar, xs_bar


def _at(sequences: PyTree, time: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[time], sequences)


def _tangents(tree: PyTree) -> list[jax.ShapeDtypeStruct]:
    return [
        jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in floating(tree)
    ]


def _without_float0(cotangents: PyTree) -> list[jax.Array]:
    """Return the cotangents of floating leaves."""
    leaves = jax.tree.leaves(cotangents)
    return [leaf for leaf in leaves if leaf.dtype != jax.dtypes.float0]
