"""Reference gradients, computed by plain Python loops over examples and time steps.

Notation, for one example: h_t is the carry of time step t, θ are the params, and ℓ_t is
the loss. The loops skip padded steps, and replace the carry by the initial carry at
resets.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from tests.random_programs.build import Problem


def examples_of(problem: Problem):
    """Yield, for each example, its first carry, initial carry and list of time steps.

    A time step is the tuple (t, x, target, weight, reset). Padded steps are left out.
    """
    _, carry, xs, targets = problem.args
    weights, mask, reset, initial = (
        problem.options[name] for name in ("weights", "mask", "reset", "initial")
    )
    initial = carry if initial is None else initial
    T = len(jax.tree.leaves(xs)[0])
    for b in np.ndindex(problem.program.batch):
        of_step = lambda tree, t, b=b: jax.tree.map(lambda leaf: leaf[(t, *b)], tree)
        of_example = lambda tree, b=b: jax.tree.map(lambda leaf: leaf[b], tree)
        steps = []
        for t in range(T):
            counts = mask is None or bool(mask[(t, *b)])
            if not counts:
                continue
            weight = 1.0 if weights is None else float(weights[(t, *b)])
            again = reset is not None and bool(reset[(t, *b)])
            steps.append((t, of_step(xs, t), of_step(targets, t), weight, again))
        yield of_example(carry), of_example(initial), steps


def total_weight(problem: Problem) -> float:
    """Return the sum of all loss weights, or 1 if the sum is 0."""
    steps = [step for _, _, steps in examples_of(problem) for step in steps]
    return sum(weight for *_, weight, _ in steps) or 1.0


def run(problem: Problem, params_at: Callable[[int], Any]) -> tuple[list, Any]:
    """Return the contribution of each time step to the mean loss, and the last carry.

    The mean over all time steps and examples is weighted by the loss weights.
    `params_at(t)` returns the parameters of time step t.
    """
    T = len(jax.tree.leaves(problem.args[2])[0])
    losses, ends, total = [jnp.zeros(())] * T, [], total_weight(problem)
    for carry, initial, steps in examples_of(problem):
        for t, x, target, weight, again in steps:
            old, params = initial if again else carry, params_at(t)
            carry = problem.carry_of(params, old, x)
            y = problem.output_of(params, carry, old, x)
            if weight:
                losses[t] += weight / total * problem.loss(y, target)
        ends.append(carry)
    stack = lambda *leaves: jnp.stack(leaves).reshape(
        *problem.program.batch, *leaves[0].shape
    )
    return losses, jax.tree.map(stack, *ends)


@lru_cache(8)  # all gradient rules have the same reference
def exact(problem: Problem) -> tuple[tuple[Any, Any], Any]:
    """Return ((mean loss, last carry), gradient), computed by `jax.grad`."""

    def loss(params):
        losses, carry = run(problem, lambda t: params)
        return sum(losses, jnp.zeros(())), carry

    return jax.value_and_grad(loss, has_aux=True)(problem.args[0])


def smallest_gap(problem: Problem) -> float:
    """Return the smallest nonzero difference between values that a program compares."""
    gaps, params = [np.inf], problem.args[0]
    for carry, initial, steps in examples_of(problem):
        for _, x, _, _, again in steps:
            old = initial if again else carry
            carry = problem.carry_of(params, old, x, gaps=gaps)
            problem.output_of(params, carry, old, x, gaps=gaps)
    return min(gaps)


def traced(problem: Problem, kept: np.ndarray, direct_only: bool) -> Any:
    """Return a gradient by the recursion of traces P_t = J̃_t P_{t−1} + ∂h_t/∂θ.

    The matrix J̃_t is the Jacobian ∂h_t/∂h_{t−1}, with zeros in the columns where
    `kept` is 0. If `direct_only` is true, operations that mix elements have the
    derivative 0 in J̃_t. The gradient of one time step is ∂ℓ_t/∂θ + ∂ℓ_t/∂h_t P_t +
    ∂ℓ_t/∂h_{t−1} P_{t−1}.
    """
    params, split = ravel_pytree(problem.args[0])
    cut = jax.lax.stop_gradient if direct_only else lambda v: v
    total = jnp.zeros(params.shape)
    for carry, initial, steps in examples_of(problem):
        h, put = floats(carry)
        traces = jnp.zeros((h.size, params.size))
        for _, x, target, weight, again in steps:
            if again:
                carry, traces = initial, jnp.zeros_like(traces)
            h, put = floats(carry)
            new_h = lambda params, h, cut, put=put, x=x: floats(
                problem.carry_of(split(params), put(h), x, cut)
            )[0]
            carry = problem.carry_of(split(params), carry, x)
            through = jax.jacrev(new_h, 1)(params, h, cut) * kept[None]
            new_traces = through @ traces + jax.jacrev(new_h)(params, h, lambda v: v)
            new, put_new = floats(carry)

            def loss(params, new, h, put=put, put_new=put_new, x=x, target=target):
                y = problem.output_of(split(params), put_new(new), put(h), x)
                return problem.loss(y, target)

            direct, late, early = jax.grad(loss, (0, 1, 2))(params, new, h)
            if weight:
                total += weight * (direct + late @ new_traces + early @ traces)
            traces = new_traces
    return split(total / total_weight(problem))


def floats(carry: Any) -> tuple[Any, Callable]:
    """Return the floating elements [n] of a carry, and a function to replace them."""
    leaves, structure = jax.tree.flatten(carry)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    chosen = [leaf for leaf, yes in zip(leaves, is_float, strict=True) if yes]
    vector, split = ravel_pytree(chosen)

    def put(vector):
        new = iter(split(vector))
        pairs = zip(leaves, is_float, strict=True)
        return structure.unflatten([next(new) if yes else old for old, yes in pairs])

    return vector, put
