"""A step that consists of several layers, and knows them."""

import dataclasses
from typing import Any

import jax

from bpvariants._checks import check_like
from bpvariants._sequences import inverse_of
from bpvariants._settings import described
from bpvariants.types import PyTree, Step


@dataclasses.dataclass(frozen=True)
class StackedStep:
    """Step of a stack of `layers`, lowest first: the result of :func:`stack`."""

    layers: tuple[Step, ...]

    def __call__(
        self, params: PyTree, carry: PyTree, x: PyTree
    ) -> tuple[PyTree, PyTree]:
        _check_entries("params", params, len(self.layers), tuple | list)
        _check_entries("carry", carry, len(self.layers), tuple)
        new_carry, y = [], x
        for i, layer in enumerate(self.layers):
            new_h, y = layer(params[i], carry[i], y)
            check_like(
                f"the carry that steps[{i}] returns", new_h, f"carry[{i}]", carry[i]
            )
            new_carry.append(new_h)
        return tuple(new_carry), y

    def inverse(self, params: PyTree, carry: PyTree, x: PyTree) -> PyTree:
        """Return the carry before a step; all layers with a carry need an inverse."""
        _check_entries("params", params, len(self.layers), tuple | list)
        _check_entries("carry", carry, len(self.layers), tuple)
        old_carry, y = [], x
        for i, layer in enumerate(self.layers):
            old = carry[i]
            if jax.tree.leaves(old):
                inverse = inverse_of(layer)
                if inverse is None:
                    raise ValueError(
                        f"steps[{i}] must have a method inverse(params, carry, x) -> "
                        "old carry with backward='reversible', as "
                        f"cells.reversible_gru has; got {layer!r}."
                    )
                old = inverse(params[i], old, y)
            _, y = layer(params[i], old, y)
            old_carry.append(old)
        return tuple(old_carry)


def _check_entries(name: str, tree: PyTree, size: int, kinds: Any) -> None:
    if not isinstance(tree, kinds) or len(tree) != size:
        raise ValueError(
            f"{name} must be a tuple with one entry for each of the {size} stacked "
            f"layers, got {described(tree)}."
        )
