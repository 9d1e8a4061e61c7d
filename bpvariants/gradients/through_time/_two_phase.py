"""Scan over time whose backward loop computes no weight gradients.

Notation: h_t is the carry, y_t the output, θ the parameters, L the loss, δ_t = dL/dh_t,
ȳ_t = dL/dy_t. Plain reverse mode of a scan goes back one step at a time, and adds to
the gradient dL/dθ at each step. In this file, the backward pass goes through each block
of K steps twice:

    δ_{t−1} = δ_t ∂h_t/∂h_{t−1} + ȳ_t ∂y_t/∂h_{t−1}       step by step, only for δ
    dL/dθ  += Σ_t δ_t ∂h_t/∂θ + ȳ_t ∂y_t/∂θ               all t of the block together

For a batch of B examples, step by step, the gradient of a layer's weights takes K
products of matrices with B rows. For the whole block, the gradient takes one product of
matrices with K·B rows. The forward pass linearises each step, and the backward pass
transposes this linearisation. The forward pass stores only those residuals that vary in
time and are not inputs of the scan.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves
from bpvariants._jaxpr.residuals import cotangent, linearised, plan_residuals
from bpvariants.types import PyTree

ROWS = 1024  # largest number of rows in a matrix product; more would save no time


def two_phase_scan(
    body: Callable, given: PyTree, carry: PyTree, inputs: PyTree, *, narrow: bool
) -> tuple[PyTree, PyTree]:
    """Scan `body(given, h, inputs) -> (h, y)`, with reverse mode in two phases.

    Derivatives in all arguments and closed-over arrays are the same as for
    `jax.lax.scan`. There is no forward mode: JAX raises a TypeError. `narrow` tells
    that the body casts `given` to less than 32 bits. The gradient's sum over a block of
    steps would then be computed with less than 32 bits, too. Therefore, each block is a
    single step if `narrow` is True. Two phases then save no time.
    """
    body, others = jax.closure_convert(body, given, carry, at(inputs, 0))

    def advance(fixed, h, x):
        given, others = fixed
        return body(given, h, x, *others)

    _check_transposes(advance, (given, others), carry, at(inputs, 0))
    length = jax.tree.leaves(inputs)[0].shape[0]
    scan = _two_phase_scan(advance, block_length(length, carry, narrow))
    return scan((given, others), carry, inputs)


def _check_transposes(advance: Callable, *arguments: PyTree) -> None:
    """Check that JAX can linearise the step and transpose this linearisation."""

    def there_and_back(*arguments):
        results, linear = linearised(advance, *arguments)
        once = partial(jax.tree.map, lambda leaf: leaf[None])
        _, *h_and_x = like = [floating_leaves(tree) for tree in arguments]
        all_steps = lambda fixed, *h_and_x: jax.vmap(
            lambda linear, *h_and_x: linear(fixed, *h_and_x)
        )(once(linear), *h_and_x)
        pull = jax.linear_transpose(all_steps, like[0], *once(h_and_x))
        return pull(tuple(once(floating_leaves(each)) for each in results))

    try:
        jax.eval_shape(there_and_back, *arguments)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            "backward='two_phase' cannot go back through this step, for instance if it "
            "uses lax.cond or jax.custom_vjp; use backward='scan'. "
            f"JAX says: {error}"
        ) from error


def block_length(length: int, carry: PyTree, narrow: bool) -> int:
    """Return the number of steps in a block.

    The number divides `length`, if `length` has a large enough divisor.
    """
    rows = [math.prod(jnp.shape(leaf)[:-1]) for leaf in jax.tree.leaves(carry)]
    most = max(1, ROWS // max(1, max(rows, default=1)))
    most = min(most, 1 if narrow else length)
    divisors = (k for k in range(most, most // 2, -1) if length % k == 0)
    return next(divisors, most)


def _two_phase_scan(advance: Callable, block: int) -> Callable:
    linearise = partial(linearised, advance)

    @jax.custom_vjp
    def run(fixed, carry, inputs):
        return jax.lax.scan(partial(advance, fixed), carry, inputs)

    def forward(fixed, carry, inputs):
        first = at(inputs, 0)
        plan = plan_residuals(linearise, fixed, carry, first)

        def body(h, x):
            (h, y), linear = linearise(fixed, h, x)
            return h, (y, plan.to_stack(linear))

        last, (ys, stacked) = jax.lax.scan(body, carry, inputs)
        # Compile this call like the scan's body, so that both compute equal residuals.
        constants = jax.jit(lambda *args: plan.constants(linearise(*args)[1]))
        constants = constants(fixed, carry, first)
        return (last, ys), (plan, stacked, constants, fixed, carry, inputs)

    def backward(saved, cotangents):
        plan, stacked, constants, *arguments = saved
        fixed, carry, inputs = arguments
        like = [floating_leaves(tree) for tree in (fixed, carry, at(inputs, 0))]
        linear = lambda at_time: plan.linear(*at_time, constants)
        last_bar, ys_bar = map(floating_leaves, cotangents)
        bars = _transposed(linear, (stacked, inputs), last_bar, ys_bar, like, block)
        return tuple(map(cotangent, arguments, bars))

    run.defvjp(forward, backward)
    return run


def _transposed(linear, along_time, last_bar, ys_bar, like, block):
    """Return the cotangents of fixed arrays (such as params), of the carry and inputs.

    `linear(at_time)` is the derivative of one step, as a linear function; `at_time` has
    the step's residuals and inputs.
    """

    def back(delta, part):
        along_time, ys_bar = part
        delta, deltas = _phase_one(linear, along_time, ys_bar, delta, like)
        return delta, _phase_two(linear, along_time, ys_bar, deltas, like)

    zeros = jax.tree.map(jnp.zeros_like, like[0])
    return by_blocks(back, (along_time, ys_bar), last_bar, zeros, block)


def by_blocks(
    back: Callable, along_time: PyTree, delta: PyTree, total: PyTree, block: int
) -> tuple[PyTree, PyTree, PyTree]:
    """Go back through time block by block; a shorter last block is processed first.

    `back(delta, part) -> (delta, (sums, bars))` goes back through one block: `sums` are
    cotangents summed over the block, `bars` are cotangents at each time step. Return
    the total of all sums, the last delta, and the bars of all time steps.
    """
    blocks, rest = divmod(jax.tree.leaves(along_time)[0].shape[0], block)

    def body(state, start):
        delta, total = state
        cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, block)
        delta, (sums, bars) = back(delta, jax.tree.map(cut, along_time))
        return (delta, jax.tree.map(jnp.add, total, sums)), bars

    last = None
    if rest:
        left = jax.tree.map(lambda leaf: leaf[blocks * block :], along_time)
        delta, (total, last) = back(delta, left)
    starts = block * jnp.arange(blocks)
    (delta, total), bars = jax.lax.scan(body, (delta, total), starts, reverse=True)
    unfold = lambda leaf: leaf.reshape(blocks * block, *leaf.shape[2:])
    bars = jax.tree.map(unfold, bars)
    if rest:
        bars = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), bars, last)
    return total, delta, bars


def _phase_one(linear, along_time, ys_bar, delta, like):
    """Compute the error signals of a block, backwards in time.

    Return the error signal at the carry before the block, and the sequence of error
    signals at the carries after each step.
    """

    def step_back(delta, at_time_and_bar):
        at_time, y_bar = at_time_and_bar
        pull = jax.linear_transpose(linear(at_time), *like)
        return pull((delta, y_bar))[1], delta

    return jax.lax.scan(step_back, delta, (along_time, ys_bar), reverse=True)


def _phase_two(linear, along_time, ys_bar, deltas, like):
    """Return a block's cotangents of fixed arrays, such as params, and of inputs."""
    xs = floating_leaves(along_time[1])

    def all_steps(fixed, hs, xs):
        at_one = lambda at_time, h, x: linear(at_time)(fixed, h, x)
        return jax.vmap(at_one)(along_time, hs, xs)

    pull = jax.linear_transpose(all_steps, like[0], deltas, xs)
    fixed_bar, _, xs_bar = pull((deltas, ys_bar))
    return fixed_bar, xs_bar


def at(sequences: PyTree, time: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[time], sequences)
