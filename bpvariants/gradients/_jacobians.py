"""The linearised step h_t = f(θ, h_{t−1}, x_t) of each example: J_t and I_t."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import cast_like, is_floating, widen
from bpvariants.types import PyTree, Step


def floating_leaves(carry: PyTree) -> list[jax.Array]:
    """Return the leaves that have derivatives, which counters and keys have not."""
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(carry) if is_floating(leaf)]


def replace_floating(carry: PyTree, leaves: Sequence[jax.Array]) -> PyTree:
    """Put other floating leaves in the place of a carry's, cast to their dtypes."""
    new = iter(leaves)
    replace = lambda leaf: cast_like(next(new), leaf) if is_floating(leaf) else leaf
    return jax.tree.map(replace, carry)


def one_example(step: Step, batch_rank: int) -> Step:
    """Return the step of one example, whose leaves have no batch axes.

    The network, which may be written for just so many axes, sees a batch of one.
    """
    axes = tuple(range(batch_rank))

    def step_of_example(params, carry, x):
        as_batch = lambda leaf: jnp.expand_dims(leaf, axes)
        as_example = lambda leaf: jnp.squeeze(leaf, axes)
        try:
            results = step(params, *jax.tree.map(as_batch, (carry, x)))
            return jax.tree.map(as_example, results)
        except Exception as error:  # though it took the whole batch
            raise ValueError(
                "this rule shows step and loss one example at a time, as a batch of "
                "one: arrays with batch axes must come in with x or target, not be "
                f"closed over. The network or the loss says: {error}"
            ) from error

    return step_of_example


def over_batch(step_of_example: Step, batch_rank: int) -> Step:
    """Return the step of a batch that takes each of its examples by itself."""
    for _ in range(batch_rank):
        step_of_example = jax.vmap(step_of_example, in_axes=(None, 0, 0))
    return step_of_example


def linearise(
    step_of_example: Step, params: PyTree, carry: PyTree, x: PyTree, batch_rank: int
) -> tuple[jax.Array, list[jax.Array | None]]:
    """Return J [*batch, n, n], and for each array of params I [*batch, n, *its shape].

    n counts all numbers in the floating leaves of one example's carry, which stand
    below each other. I is None for arrays that the new carry does not depend on. Both
    are float32 or wider. Costs n backward passes through the step.
    """
    thetas, structure = jax.tree.flatten(params)
    whole_batch = over_batch(step_of_example, batch_rank)
    reaches = reaches_carry(whole_batch, params, carry, x)
    chosen = [theta for theta, yes in zip(thetas, reaches, strict=True) if yes]

    def jacobians(chosen, carry, x):
        leaves = widen(floating_leaves(carry))
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

        def vector_step(chosen, h):
            new = iter(chosen)
            full = [
                next(new) if yes else theta
                for theta, yes in zip(thetas, reaches, strict=True)
            ]
            parts = zip(jnp.split(h, ends), leaves, strict=True)
            start = replace_floating(carry, [a.reshape(b.shape) for a, b in parts])
            full = cast_like(structure.unflatten(full), params)
            new_carry, _ = step_of_example(full, start, x)
            return _as_vector(widen(floating_leaves(new_carry)))

        h = _as_vector(leaves)
        pull = jax.vjp(vector_step, widen(chosen), h)[1]
        return jax.vmap(pull)(jnp.eye(h.size, dtype=h.dtype))

    immediate, jacobian = over_batch(jacobians, batch_rank)(chosen, carry, x)
    new = iter(immediate)
    return jacobian, [next(new) if yes else None for yes in reaches]


def reaches_carry(step: Step, params: PyTree, carry: PyTree, x: PyTree) -> list[bool]:
    """Tell for each array of params whether the step's new carry depends on it.

    Read off the step's program, so that it holds for every value: an array is said to
    reach the carry unless no path leads there.
    """
    traced = jax.make_jaxpr(lambda *args: floating_leaves(step(*args)[0]))
    jaxpr = traced(params, carry, x).jaxpr
    needed = _needed_inputs(jaxpr, [True] * len(jaxpr.outvars))
    return needed[: len(jax.tree.leaves(params))]


def _needed_inputs(jaxpr: Any, needed_outputs: Sequence[bool]) -> list[bool]:
    """Walk a program backwards from its needed outputs to the inputs they need."""
    if jaxpr.effects:  # such as writing to a ref, which leads on unseen
        return [True] * len(jaxpr.invars)
    is_variable = lambda atom: not hasattr(atom, "val")  # literals have a value
    outputs = zip(jaxpr.outvars, needed_outputs, strict=True)
    needed = {atom for atom, yes in outputs if yes and is_variable(atom)}
    for equation in reversed(jaxpr.eqns):
        flags = [variable in needed for variable in equation.outvars]
        if not any(flags):
            continue
        if equation.primitive.name in ("jit", "pjit"):
            inputs = _needed_inputs(equation.params["jaxpr"].jaxpr, flags)
        else:
            inputs = [True] * len(equation.invars)
        pairs = zip(equation.invars, inputs, strict=True)
        needed |= {atom for atom, yes in pairs if yes and is_variable(atom)}
    return [variable in needed for variable in jaxpr.invars]


def _as_vector(leaves: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
