"""Inputs of a learner: checked, cast to the exported dtypes, and flattened."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._settings import described
from bpvariants.training.learners._trees import LEAF, leaves_of, structure_of
from bpvariants.types import PyTree

FLOATS = (float, np.floating)
RANKS = "biufc"  # kinds of NumPy dtypes; a kind may be cast to the kinds after it


def describe(name: str, tree: PyTree) -> dict[str, Any]:
    """Return the structure, shapes and dtypes of a pytree as JSON values."""
    shapes = jax.eval_shape(lambda tree: tree, tree)
    structure = structure_of(name, shapes)
    leaves = leaves_of(name, shapes, structure)
    described = [[[*leaf.shape], str(leaf.dtype)] for leaf in leaves]
    return {"structure": structure, "leaves": described}


def specs_of(about: dict[str, Any]) -> list[jax.ShapeDtypeStruct]:
    """Return shape and dtype of each leaf that `describe` described."""
    return [
        jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
        for shape, dtype in about["leaves"]
    ]


class Port:
    """One input of a learner, such as x: a function that returns checked arrays."""

    def __init__(self, name: str, about: dict[str, Any]):
        """Take the description that `describe` returned."""
        self.name, self._structure = name, about["structure"]
        self.specs = specs_of(about)
        self._one = one = self.specs[0] if self._structure == LEAF else None
        self._number = None  # dtype, if the input is a single number
        if one is not None and one.shape == () and _kind(one.dtype) == "f":
            self._number = one.dtype

    def __call__(self, tree: PyTree) -> list[Any]:
        """Return the arrays of a pytree, as the exported programs take them."""
        one = self._one
        # This case is checked first, because it is the usual one.
        if (
            one is not None
            and type(tree) is np.ndarray
            and tree.shape == one.shape
            and tree.dtype == one.dtype
        ):
            return [tree]
        if self._number is not None and isinstance(tree, FLOATS):
            return [np.asarray(tree, self._number)]
        leaves = leaves_of(self.name, tree, self._structure)
        return [
            as_array(self.name, leaf, spec)
            for leaf, spec in zip(leaves, self.specs, strict=True)
        ]

    def __repr__(self):
        return f"{self.name} {', '.join(map(_words, self.specs))}"


def as_array(name: str, leaf: Any, spec: jax.ShapeDtypeStruct) -> Any:
    """Return a value as an array of a shape and dtype; refuse what would change it."""
    if isinstance(leaf, jax.Array) and leaf.dtype == spec.dtype:
        array: Any = leaf
    else:
        array = np.asarray(leaf)
        if array.dtype == spec.dtype and array.shape == spec.shape:
            return array
        kind, goal = _kind(array.dtype), _kind(spec.dtype)
        if kind not in RANKS or RANKS.index(kind) > RANKS.index(goal):
            raise ValueError(
                f"{name} must be an array {_words(spec)}, as the learner was "
                f"exported with; got {described(array if array.shape else leaf)}."
            )
        given, array = array, array.astype(spec.dtype)
        if goal in "iu" and not np.array_equal(array, given):
            raise ValueError(
                f"{name} must have numbers of type {spec.dtype}, as the learner was "
                f"exported with; got {described(given if given.shape else leaf)}, which"
                " this type cannot hold."
            )
    if array.shape != spec.shape:
        raise ValueError(
            f"{name} must be an array {_words(spec)}, as the learner was "
            f"exported with; got shape {array.shape}. To use other shapes, "
            "export the learner again."
        )
    return array


def _kind(dtype: Any) -> str:
    """Return the kind of a dtype; "f" also for dtypes that NumPy lacks, as bfloat16."""
    if dtype.kind != "V":
        return dtype.kind
    return "f" if jnp.issubdtype(dtype, np.floating) else dtype.kind


def _words(spec: Any) -> str:
    return f"{spec.dtype}{[*spec.shape]}"
