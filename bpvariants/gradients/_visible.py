"""Which part of a carry is visible: what units see of each other."""

from collections.abc import Callable

import jax
import numpy as np

from bpvariants._dtypes import is_floating
from bpvariants.types import PyTree


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
