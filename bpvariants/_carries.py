"""Conversion of steps between one example and a batch; floating leaves of pytrees."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from bpvariants._dtypes import cast_like, is_floating, widen
from bpvariants.types import PyTree, Step


def floating_leaves(tree: PyTree) -> list[jax.Array]:
    """Return the leaves with a floating or complex dtype, which have derivatives."""
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def replace_floating(tree: PyTree, leaves: Sequence[jax.Array]) -> PyTree:
    """Replace the floating leaves of `tree` by `leaves`, cast to the old dtypes."""
    new = iter(leaves)
    replace = lambda leaf: cast_like(next(new), leaf) if is_floating(leaf) else leaf
    return jax.tree.map(replace, tree)


def one_example(step: Step, batch_rank: int) -> Step:
    """Return a step that takes one example, whose arrays have no batch axes.

    The returned step passes its example to `step` as a batch of one, because `step` may
    need all batch axes.
    """
    axes = tuple(range(batch_rank))

    def step_of_example(params, carry, x):
        as_batch = lambda leaf: jnp.expand_dims(leaf, axes)
        as_example = lambda leaf: jnp.squeeze(leaf, axes)
        try:
            results = step(params, *jax.tree.map(as_batch, (carry, x)))
            return jax.tree.map(as_example, results)
        except Exception as error:
            # The single example causes the error, because callers have already run
            # `step` on the whole batch without an error.
            raise ValueError(
                "this rule gives step and loss one example at a time, as a batch of "
                "one: pass arrays with batch axes in x or target, do not close over "
                f"them. The network or the loss says: {error}"
            ) from error

    return step_of_example


def example_shapes(tree: PyTree, batch_rank: int) -> PyTree:
    """Return shape and dtype of each leaf of a pytree, without the batch axes."""

    def cut(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            leaf = jax.typeof(leaf)
        shape = leaf.shape[batch_rank:]
        return jax.ShapeDtypeStruct(shape, leaf.dtype, weak_type=leaf.weak_type)

    return jax.tree.map(cut, tree)


def over_batch(step_of_example: Step, batch_rank: int) -> Step:
    """Return a step that takes a batch and runs `step_of_example` on each example."""
    for _ in range(batch_rank):
        step_of_example = jax.vmap(step_of_example, in_axes=(None, 0, 0))
    return step_of_example


def carry_dtype(carry: PyTree) -> Any:
    """Return the common dtype of a carry's floating leaves, float32 or wider."""
    dtypes = [leaf.dtype for leaf in widen(floating_leaves(carry))]
    return np.result_type(jnp.float32, *dtypes)


def as_vectors(
    tree: PyTree, batch: tuple[int, ...], dtype: Any = None
) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Return one real vector for each example of a pytree, and the inverse function.

    The leaves of `tree` are [*batch, ...]; the vectors are one array [*batch, n], where
    n is the number of real values in one example. By default, `dtype` is the common
    dtype of the leaves, float32 or wider. A complex leaf becomes its real parts,
    followed by its imaginary parts. Leaves that are not floating are left out of the
    vectors; the inverse function puts these leaves back unchanged.
    """
    leaves = widen(floating_leaves(tree))
    parts = [(a.real, a.imag) if jnp.iscomplexobj(a) else a for a in leaves]
    if dtype is None:
        dtype = np.result_type(np.float32, *(a.dtype for a in jax.tree.leaves(parts)))
    parts = jax.tree.map(lambda part: part.astype(dtype), parts)
    inverses = []  # one inverse function for each trace of `ravel`; all are equal

    def ravel(parts):
        vector, inverse = ravel_pytree(parts)
        inverses.append(inverse)
        return vector.astype(dtype)  # sets the dtype even if there are no leaves

    def over_examples(function):
        for size in reversed(batch):
            function = jax.vmap(function, axis_size=size)
        return function

    def as_tree(vectors):
        parts = over_examples(inverses[0])(vectors)
        is_pair = lambda part: isinstance(part, tuple)
        join = lambda part: jax.lax.complex(*part) if is_pair(part) else part
        return replace_floating(tree, jax.tree.map(join, parts, is_leaf=is_pair))

    return over_examples(ravel)(parts), as_tree


class _Leaf:
    """Stand-in for a leaf of the carry, passed to the user's function `visible`.

    `visible` may return stand-ins, but cannot compute with them.
    """

    def __init__(self, path: Any, index: int):
        self.name = f"carry{jax.tree_util.keystr(path)}"
        self.index = index

    def __repr__(self):
        return self.name


def visible_places(
    carry: PyTree, visible: Callable[[PyTree], PyTree]
) -> list[int | None]:
    """Return the index of each visible leaf among the carry's floating leaves.

    A visible leaf is a leaf that the user's function `visible` returns. The index of a
    leaf that is not floating is None.
    """
    pairs, structure = jax.tree.flatten_with_path(carry)
    stand_ins = [_Leaf(path, index) for index, (path, _) in enumerate(pairs)]
    wanted = (
        "visible must pick leaves of the carry as they are, each once, such as "
        "`lambda carry: carry[1]`"
    )
    try:
        chosen = jax.tree.leaves(visible(structure.unflatten(stand_ins)))
    except Exception as error:
        raise ValueError(
            f"{wanted}, and not compute with them; it says: {error}"
        ) from (error)
    picked = [leaf.index for leaf in chosen if isinstance(leaf, _Leaf)]
    if len(picked) < len(chosen) or len(set(picked)) < len(picked):
        raise ValueError(f"{wanted}; of the leaves {stand_ins} it returned {chosen}.")
    if not chosen and stand_ins:
        raise ValueError(
            f"{wanted}; it picked none of {stand_ins}. If units see nothing of each "
            "other, use gradients.rtrl, which is exact."
        )
    floating = [i for i, (_, leaf) in enumerate(pairs) if is_floating(leaf)]
    return [floating.index(i) if i in floating else None for i in picked]


def internal(carry: PyTree, visible: list[int | None]) -> np.ndarray:
    """Return, for each element of one example's carry, whether it is not visible.

    The result is bool [n], for the n elements of the carry's floating leaves. `visible`
    holds the indices of the visible leaves, as :func:`visible_places` returns them.
    """
    leaves = [leaf for leaf in jax.tree.leaves(carry) if is_floating(leaf)]
    flags = [np.full(leaf.size, i not in visible) for i, leaf in enumerate(leaves)]
    return np.concatenate([np.zeros(0, bool), *flags])
