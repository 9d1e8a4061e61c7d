"""A step example by example, its carry's floating leaves, and what reaches them."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import cast_like, is_floating, widen
from bpvariants._program import called, is_variable, PLAIN_CALLS
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


def example_shapes(tree: PyTree, batch_rank: int) -> PyTree:
    """Return the shapes of one example's arrays, which have no batch axes."""

    def cut(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            leaf = jax.typeof(leaf)
        shape = leaf.shape[batch_rank:]
        return jax.ShapeDtypeStruct(shape, leaf.dtype, weak_type=leaf.weak_type)

    return jax.tree.map(cut, tree)


def over_batch(step_of_example: Step, batch_rank: int) -> Step:
    """Return the step of a batch that takes each of its examples by itself."""
    for _ in range(batch_rank):
        step_of_example = jax.vmap(step_of_example, in_axes=(None, 0, 0))
    return step_of_example


def reaches_carry(step: Step, params: PyTree, carry: PyTree, x: PyTree) -> list[bool]:
    """Tell for each array of params whether the step's new carry depends on it.

    Read off the step's program, so that it holds for every value: an array is said to
    reach the carry unless no path leads there.
    """
    traced = jax.make_jaxpr(lambda *args: floating_leaves(step(*args)[0]))
    jaxpr = traced(params, carry, x).jaxpr
    needed = needed_inputs(jaxpr, [True] * len(jaxpr.outvars))
    return needed[: len(jax.tree.leaves(params))]


def needed_inputs(jaxpr: Any, needed_outputs: Sequence[bool]) -> list[bool]:
    """Walk a program backwards from its needed outputs to the inputs they need."""
    if jaxpr.effects:  # such as writing to a ref, which leads on unseen
        return [True] * len(jaxpr.invars)
    outputs = zip(jaxpr.outvars, needed_outputs, strict=True)
    needed = {atom for atom, yes in outputs if yes and is_variable(atom)}
    for equation in reversed(jaxpr.eqns):
        flags = [variable in needed for variable in equation.outvars]
        if not any(flags):
            continue
        if (inner := called(equation, PLAIN_CALLS)) is not None:
            inputs = needed_inputs(inner[0], flags)
        else:
            inputs = [True] * len(equation.invars)
        pairs = zip(equation.invars, inputs, strict=True)
        needed |= {atom for atom, yes in pairs if yes and is_variable(atom)}
    return [variable in needed for variable in jaxpr.invars]


def carry_dtype(carry: PyTree) -> Any:
    """Return the dtype in which a carry's floating leaves have room."""
    dtypes = [leaf.dtype for leaf in widen(floating_leaves(carry))]
    return np.result_type(jnp.float32, *dtypes)


def as_vectors(
    leaves: Sequence[jax.Array], batch: tuple[int, ...], dtype: Any = None
) -> jax.Array:
    """Return leaves [*batch, ...] below each other, [*batch, n], in a common dtype."""
    dtype = np.result_type(*[leaf.dtype for leaf in leaves]) if dtype is None else dtype
    size = lambda leaf: math.prod(leaf.shape[len(batch) :])  # not −1, as B may be 0
    rows = [leaf.reshape(*batch, size(leaf)).astype(dtype) for leaf in leaves]
    return jnp.concatenate(rows, axis=-1)
