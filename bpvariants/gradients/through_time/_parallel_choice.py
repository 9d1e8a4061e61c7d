"""Choice between Newton's method and a sequential run, from a short run of the network.

Notation: a perturbation of the carry grows like exp(λt) over t time steps; λ is the
largest Lyapunov exponent. For λ < 0 the network forgets, and Newton's method takes few
iterations, however long the sequence. For λ > 0 products of Jacobians grow, and the
number of iterations grows with the number of steps. So λ must be negative, with a
margin for the error of its estimate, and the sequence must be long enough to pay for
the iterations.

A short run of the network along the first steps of the sequence measures λ: a random
direction v is multiplied by one Jacobian J_t after another, and normalised:

    λ ≈ mean over t of log ‖J_t v‖,    v ← J_t v / ‖J_t v‖
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bpvariants._carries import as_vectors
from bpvariants._checks import first_step
from bpvariants._dtypes import cast_like, widen
from bpvariants._examples import largest, norm
from bpvariants._jaxpr.affine import check_affine
from bpvariants.gradients.through_time._parallel_info import ParallelInfo
from bpvariants.gradients.through_time._parallel_jacobians import find_blocks
from bpvariants.gradients.through_time._parallel_newton import newton
from bpvariants.gradients.through_time._unroll import step_body
from bpvariants.types import PyTree, Step

PROBE = 64  # steps of the short run; the first quarter turns v and is not counted
# Shortest sequence for which a short run is worthwhile: the run takes the time of about
# 3 · PROBE steps, so at most a twentieth of a sequential run.
SHORTEST = 60 * PROBE
# Newton's method is taken only for exponents up to LIMIT. Of 40 random networks with
# λ ≤ LIMIT of docs/parallel_iterations.py, 36 took at most LEAST + PER_TIME / |λ|
# iterations, one took 27, and three with large weights diverged in the first iteration,
# where Jacobians at the initial guess 0 are larger than along the trajectory. Diverged
# examples are run in order. Of 10 networks with larger λ, most took many iterations.
LIMIT, LEAST, PER_TIME = -0.3, 8.0, 1.0
# Time of an iteration in time steps of a sequential run, per level of the parallel
# recurrence, on a device that runs all T steps at once. Not measured.
LEVEL = 8
# Largest number of entries of the Jacobians of all steps that Newton's method may take.
MOST_ENTRIES = 2**28


def predicted_iterations(exponent: jax.Array | float) -> jax.Array:
    """Return how many iterations Newton's method takes; infinity if λ > LIMIT."""
    exponent = jnp.asarray(exponent)
    forgets = exponent <= LIMIT
    rate = jnp.where(forgets, -exponent, 1)
    return jnp.where(forgets, LEAST + PER_TIME / rate, jnp.inf)


def can_gain(length: int, entries: int) -> bool:
    """Return whether Newton's method may be chosen for T steps, whatever λ is."""
    cheapest = LEAST * _steps_per_iteration(length)
    return length >= max(SHORTEST, cheapest) and entries <= MOST_ENTRIES


def is_faster(length: int, exponent: jax.Array) -> jax.Array:
    """Return whether Newton's method is predicted to beat T steps in order."""
    return predicted_iterations(exponent) * _steps_per_iteration(length) < length


def _steps_per_iteration(length: int) -> float:
    return LEVEL * math.log2(max(length, 2))


def largest_exponent(
    run: Callable[..., tuple[PyTree, Any]],
    carry: PyTree,
    inputs: PyTree,
    batch_ndim: int,
) -> jax.Array:
    """Estimate the largest Lyapunov exponent of each example, [*batch].

    `run(h, *inputs_t)` is one time step; `inputs` are those of the whole sequence. The
    estimate is NaN if the carry becomes NaN.
    """
    batch = jax.tree.leaves(carry)[0].shape[:batch_ndim]
    vectors, as_tree = as_vectors(carry, batch)
    step = lambda inputs: (
        lambda v: as_vectors(run(cast_like(as_tree(v), carry), *inputs)[0], batch)[0]
    )

    def body(state, inputs):
        h, v = state
        h, v = jax.jvp(step(inputs), (h,), (v,))
        size = norm(v, batch_ndim)
        tiny = jnp.finfo(v.dtype).tiny  # a reset gives v = 0
        unit = jnp.where(size > tiny, size, 1)[..., None]
        return (h, jnp.where(size[..., None] > tiny, v / unit, start)), jnp.log(
            jnp.maximum(size, tiny)
        )

    start = jax.random.normal(jax.random.key(0), vectors.shape, vectors.dtype)
    start = start / norm(start, batch_ndim)[..., None]
    first = jax.tree.map(lambda leaf: leaf[:PROBE], inputs)
    growth = jax.lax.scan(body, (vectors, start), first)[1]
    return jnp.mean(growth[growth.shape[0] // 4 :], axis=0)


def run_the_faster(
    run: Callable[..., tuple[PyTree, Any]],
    in_parallel: Callable[[newton | Literal["linear"]], PyTree],
    step: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    initial: PyTree,
    batch_ndim: int,
) -> PyTree:
    """Run the network in parallel or in order, whichever is predicted to be faster.

    `run(h, *inputs_t)` is one time step, with padding and resets; `in_parallel(method)`
    runs all steps. CPUs always run in order: with few cores, parallel evaluation of all
    steps gains less than the iterations cost.
    """
    in_order = partial(run_in_order, step, params, carry, inputs, initial, batch_ndim)
    method, entries = fastest(step, params, carry, first_step(inputs[0]), batch_ndim)
    length = jax.tree.leaves(inputs)[0].shape[0]
    if not can_gain(length, length * entries):
        return in_order()

    def choose():
        if method == "linear":
            return in_parallel(method)
        exponents = largest_exponent(run, carry, inputs, batch_ndim)
        greatest = jnp.max(jax.lax.stop_gradient(exponents), initial=-jnp.inf)
        faster = partial(in_parallel, method)
        return jax.lax.cond(is_faster(length, greatest), faster, in_order)

    return jax.lax.platform_dependent(cpu=in_order, default=choose)


def fastest(
    step: Step, params: PyTree, carry: PyTree, x: PyTree, batch_ndim: int
) -> tuple[newton | Literal["linear"], int]:
    """Return the fastest parallel method, and its number of Jacobian entries per step.

    The methods are "linear", Newton's method with exact blocks, and with matrices.
    """
    leaves = jax.tree.leaves(carry)
    elements = sum(leaf.size * (1 + jnp.iscomplexobj(leaf)) for leaf in leaves)
    try:
        check_affine(step, params, carry, x)
    except ValueError:
        pass
    else:
        return "linear", elements
    examples = math.prod(leaves[0].shape[:batch_ndim])
    full = elements**2 // max(examples, 1)
    try:
        blocks = find_blocks(step, params, carry, x, batch_ndim)
    except ValueError:  # the step has a custom_vjp, which has no forward derivative
        return newton(), full
    number = examples * blocks.members.size * blocks.members.shape[1]
    if blocks.is_exact and number < full:
        return newton("blocks"), number
    return newton(), full


def run_in_order(
    step: Step,
    params: PyTree,
    carry: PyTree,
    inputs: PyTree,
    initial: PyTree,
    rank: int,
) -> tuple[tuple[PyTree, PyTree], ParallelInfo]:
    """Run the network step by step, as `unroll` does; the info counts 0 iterations."""
    one_step, given = step_body(step, params, carry, inputs[0], initial)

    def body(h, inputs):
        h, y = one_step(given, h, inputs)
        return h, (h, y)

    last, (carries, ys) = jax.lax.scan(body, carry, inputs)
    like = largest(jax.lax.stop_gradient(widen(last)), rank)
    none = jnp.zeros_like(like)
    flags = jnp.zeros(like.shape, bool)
    steps = jnp.zeros(like.shape, jnp.int32)
    return (last, ys), ParallelInfo(steps, none, ~flags, flags, carries)
