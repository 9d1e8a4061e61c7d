"""What the layers of a network saw, forward and backward, and a table of it."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._dtypes import widen
from bpvariants._tables import aligned, short
from bpvariants.types import PyTree


class LayerInfo(NamedTuple):
    """What one layer saw, forward and backward, leaves [*batch, ...].

    Derivatives are those of the mean loss, of which one example's is its own, divided
    by the number of examples. Those of the params have no batch axes.
    """

    x: PyTree  # y_{l−1}, its input
    s: PyTree  # s_l, its net input
    y: PyTree  # y_l, its output
    error: PyTree  # ∂E/∂y_l
    delta: PyTree  # ∂E/∂s_l
    grad: PyTree  # ∂E/∂w_l


@jax.tree_util.register_pytree_node_class
class BackpropInfo(tuple[LayerInfo, ...]):
    """A :class:`LayerInfo` for each layer, first to last: a tuple, and a pytree.

    Attributes:
      batch_ndim: how many axes of the leaves are those of the batch.
    """

    batch_ndim: int

    def __new__(cls, layers: Iterable[LayerInfo], batch_ndim: int) -> "BackpropInfo":
        """Make the tuple."""
        info = super().__new__(cls, layers)
        info.batch_ndim = batch_ndim
        return info

    def tree_flatten(self) -> tuple[tuple[LayerInfo, ...], int]:
        """Return the layers, and what is static."""
        return tuple(self), self.batch_ndim

    @classmethod
    def tree_unflatten(
        cls, batch_ndim: int, layers: Iterable[LayerInfo]
    ) -> "BackpropInfo":
        """Put together what :meth:`tree_flatten` took apart."""
        return cls(layers, batch_ndim)

    def table(self) -> str:
        """Return a line of text for each layer. It needs values, so not under `jit`.

        Shapes are those of x and y, batch axes first; norms are Euclidean, over all
        numbers of all examples. `dead` is the share of net inputs whose δ is 0 in every
        example, so that nothing is learned through them: units of relu that are never
        active, and, of a layer through which no error comes, all.
        """
        header = ["layer", "shapes", "‖y‖", "‖s‖", "‖δ‖", "‖∂E/∂w‖", "dead"]
        rows = [header]
        for number, layer in enumerate(self, start=1):
            shapes = f"{_shapes(layer.x)}→{_shapes(layer.y)}"
            trees = layer.y, layer.s, layer.delta, layer.grad
            norms = [short(float(tree_norm(tree))) for tree in trees]
            dead = _share_of_zeros(layer.delta, self.batch_ndim)
            rows.append([str(number), shapes, *norms, f"{dead:.1%}"])
        return aligned(rows)


def tree_norm(tree: PyTree) -> jax.Array:
    """Return the Euclidean norm of all numbers of a pytree, 0 if it has none."""
    squares = [jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(widen(tree))]
    total = jnp.zeros((), jnp.result_type(*squares) if squares else jnp.float32)
    for square in squares:
        total = total + square
    return jnp.sqrt(total)


def _shapes(tree: PyTree) -> str:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return ", ".join("×".join(map(str, shape)) or "1" for shape in shapes)


def _share_of_zeros(tree: PyTree, batch_ndim: int) -> float:
    axes = tuple(range(batch_ndim))
    zeros = [np.all(np.asarray(leaf) == 0, axes) for leaf in jax.tree.leaves(tree)]
    units = sum(flags.size for flags in zeros)
    return sum(int(flags.sum()) for flags in zeros) / units if units else math.nan
