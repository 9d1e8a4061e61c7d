"""A step example by example, its carry's floating leaves, and what reaches them."""

import math
from collections.abc import Callable, Sequence
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


def visible_places(
    carry: PyTree, visible: Callable[[PyTree], PyTree]
) -> list[int | None]:
    """Return for each leaf of the visible part which of the floating leaves it is.

    None for those that have no derivatives.
    """
    leaves, structure = jax.tree.flatten(carry)
    numbers = structure.unflatten(list(range(len(leaves))))
    try:
        chosen = jax.tree.leaves(visible(numbers))
    except Exception as error:
        raise ValueError(
            "visible must pick leaves of the carry as they are, such as "
            f"`lambda carry: carry[1]`; it says: {error}"
        ) from error
    floating = [i for i, leaf in enumerate(leaves) if is_floating(leaf)]
    if not all(type(i) is int and 0 <= i < len(leaves) for i in chosen):
        raise ValueError(
            "visible must pick leaves of the carry as they are, such as "
            f"`lambda carry: carry[1]`; given the numbers of the leaves, {numbers}, it "
            f"returned {chosen}."
        )
    return [floating.index(i) if i in floating else None for i in chosen]


def internal(carry: PyTree, visible: list[int | None]) -> np.ndarray:
    """Tell which numbers of one example's carry are not visible, bool [n]."""
    leaves = [leaf for leaf in jax.tree.leaves(carry) if is_floating(leaf)]
    flags = [np.full(leaf.size, i not in visible) for i, leaf in enumerate(leaves)]
    return np.concatenate([np.zeros(0, bool), *flags])
