"""A step that consists of several layers, and knows them."""

import dataclasses
from typing import Any

from bpvariants._checks import check_like
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


def _check_entries(name: str, tree: PyTree, size: int, kinds: Any) -> None:
    if not isinstance(tree, kinds) or len(tree) != size:
        raise ValueError(
            f"{name} must be a tuple with one entry for each of the {size} stacked "
            f"layers, got {described(tree)}."
        )
