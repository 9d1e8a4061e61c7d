"""Values and derivatives of each layer of a network, with a table and a picture."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._examples import norm
from bpvariants._tables import aligned, short
from bpvariants.gradients.static._backprop_picture import plot_chain
from bpvariants.types import PyTree


class LayerInfo(NamedTuple):
    """Values and derivatives of one layer, with leaves of shape [*batch, ...].

    All derivatives are derivatives of the weighted mean loss E. The derivatives of one
    example are derivatives of the example's own loss, multiplied by the share w / Σ w
    of the example's weight w. Without weights, the share is 1 / (number of examples).
    `grad` has the shapes of the layer's params, without batch axes.
    """

    x: PyTree  # y_{l−1}, input of the layer
    s: PyTree  # s_l, net input of the layer
    y: PyTree  # y_l, output of the layer
    error: PyTree  # ∂E/∂y_l, derivative in the layer's output
    delta: PyTree  # ∂E/∂s_l, derivative in the layer's net input
    grad: PyTree  # ∂E/∂w_l, derivative in the layer's params


@jax.tree_util.register_pytree_node_class
class BackpropInfo(tuple[LayerInfo, ...]):
    """A tuple with a :class:`LayerInfo` for each layer, first to last; it is a pytree.

    Attributes:
      batch_ndim: number of batch axes of the leaves in each `LayerInfo`.
    """

    batch_ndim: int

    def __new__(cls, layers: Iterable[LayerInfo], batch_ndim: int) -> "BackpropInfo":
        """Create the tuple from a :class:`LayerInfo` for each layer."""
        info = super().__new__(cls, layers)
        info.batch_ndim = batch_ndim
        return info

    def tree_flatten(self) -> tuple[tuple[LayerInfo, ...], int]:
        """Return the layers as children, and batch_ndim as static data."""
        return tuple(self), self.batch_ndim

    @classmethod
    def tree_unflatten(
        cls, batch_ndim: int, layers: Iterable[LayerInfo]
    ) -> "BackpropInfo":
        """Rebuild the tuple from the parts that :meth:`tree_flatten` returned."""
        return cls(layers, batch_ndim)

    def table(self) -> str:
        """Return a text table with one row for each layer; does not work under `jit`.

        The column "shapes" has the shapes of the layer's input x and output y, batch
        axes first. All norms are Euclidean, over all array elements of all examples.
        The column "dead" is the fraction of units whose δ = ∂E/∂s is 0 in every
        example, with mean loss E and net input s. The weights of these units get no
        gradient. Dead units are, for example, relu units that are never active, and all
        units of a layer that receives no error.
        """
        header = ["layer", "shapes", "‖y‖", "‖s‖", "‖δ‖", "‖∂E/∂w‖", "dead"]
        rows = [header]
        for number, layer in enumerate(self, start=1):
            shapes = f"{_shapes(layer.x)}→{_shapes(layer.y)}"
            trees = layer.y, layer.s, layer.delta, layer.grad
            norms = [short(float(norm(tree))) for tree in trees]
            dead = _share_of_zeros(layer.delta, self.batch_ndim)
            rows.append([str(number), shapes, *norms, f"{dead:.1%}"])
        return aligned(rows)

    def plot(self, axes: Any = None) -> Any:
        """Draw the chain rule of a network: factors ∂E/∂y, ∂y/∂s, ∂s/∂w of each layer.

        E is the mean loss; y, s and w are a layer's output, net input and weights; and
        δ is ∂E/∂s. Each layer is a column of three nodes; the last layer is at the
        right. The top node shows ‖∂E/∂y‖. The other two nodes show by how much ∂y/∂s
        and ∂s/∂w scale this norm: ‖δ‖ / ‖∂E/∂y‖ and ‖∂E/∂w‖ / ‖δ‖. The text at the
        bottom is ‖∂E/∂w‖, the product of the values of all three nodes. The text next
        to the lower arrow is ‖δ‖, the product of the values of the upper two nodes. An
        arrow to the left shows that δ is sent to the layer below. Darker nodes have
        larger values; a grey node has a value of zero, infinity or NaN.

        `plot` needs Matplotlib and concrete values, so it does not work under `jit`.

        Args:
          axes: Matplotlib axes to draw into. Default: the axes of a new pyplot figure.

        Returns:
          The Matplotlib axes of the picture.

        Raises:
          ImportError: if Matplotlib is not installed.

        Example:
          >>> import jax.numpy as jnp
          >>> from matplotlib.figure import Figure
          >>> from bpvariants import gradients
          >>> scale = lambda w, y: w * y
          >>> square = lambda y, target: (y - target) ** 2 / 2
          >>> rule = gradients.backprop([(scale, jnp.square), (scale, jnp.abs)], square)
          >>> (_, info), _ = rule((3.0, -0.5), jnp.array(2.0), jnp.array(17.0))
          >>> axes = info.plot(Figure().subplots())
          >>> [text.get_text().split() for text in axes.texts[:3]]  # of layer 1
          [['∂E/∂y', '.5000'], ['∂y/∂s', '12.00'], ['∂s/∂w', '2.000']]
        """
        return plot_chain(self, axes)


def _shapes(tree: PyTree) -> str:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return ", ".join("×".join(map(str, shape)) or "1" for shape in shapes)


def _share_of_zeros(tree: PyTree, batch_ndim: int) -> float:
    axes = tuple(range(batch_ndim))
    zeros = [np.all(np.asarray(leaf) == 0, axes) for leaf in jax.tree.leaves(tree)]
    units = sum(flags.size for flags in zeros)
    return sum(int(flags.sum()) for flags in zeros) / units if units else math.nan
