"""Draw the feedback weights of feedback alignment, once for a training."""

from collections.abc import Callable, Sequence
from typing import Any, get_args, Literal, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants.gradients._feedback import random_feedback
from bpvariants.gradients.static._backprop import check_params, forward_pass, Layer
from bpvariants.types import PyTree

AlignmentKind: TypeAlias = Literal["fa", "dfa", "usf", "brsf", "frsf"]


def alignment_weights(
    key: jax.Array,
    layers: Sequence[Layer],
    params: Sequence[PyTree],
    x: PyTree,
    *,
    kind: AlignmentKind = "fa",
    batch_ndim: int = 1,
    initializer: Callable | None = None,
) -> tuple[PyTree, ...] | None:
    """Draw the feedback weights of :func:`feedback_alignment`, to be kept as they are.

    They are no params: no update, weight decay or momentum may reach them.

    Args:
      key: of `jax.random`.
      layers: as of :func:`feedback_alignment`.
      params: one entry a layer.
      x: inputs, leaves [*batch, ...], arrays or `jax.ShapeDtypeStruct`s.
      kind: "fa" or "frsf"; "dfa"; or "usf" or "brsf", which have none.
      batch_ndim: how many axes of x are those of the batch.
      initializer: of `jax.nn.initializers`, for "fa" and "frsf". Default: Xavier's,
        `glorot_normal()`. "dfa" draws normally, of variance 1 / (width of the layer).

    Returns:
      One entry a layer. Of "fa" and "frsf" it is like the layer's params, None in the
      place of what keeps its true value: biases, and all of the first layer, below
      which there is nothing. Of "dfa" it is an array [*outputs, *width], or a tree of
      them as :func:`random_feedback` draws it, and None for the last layer. For "usf"
      and "brsf" the result is None.

    Raises:
      ValueError: if kind is unknown, or params do not fit the layers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> dense = lambda w, y: y @ w
      >>> layers, x = [(dense, jnp.tanh)] * 3, jnp.zeros((4, 2))
      >>> params = jnp.ones((2, 5)), jnp.ones((5, 6)), jnp.ones((6, 3))
      >>> draw = lambda kind: gradients.alignment_weights(
      ...     jax.random.key(0), layers, params, x, kind=kind
      ... )
      >>> [None if B is None else B.shape for B in draw("fa")]
      [None, (5, 6), (6, 3)]
      >>> [None if B is None else B.shape for B in draw("dfa")]
      [(3, 5), (3, 6), None]
    """
    check_kind(kind)
    if kind in ("usf", "brsf"):
        return None
    if kind != "dfa":
        if initializer is None:
            initializer = jax.nn.initializers.glorot_normal()
        check_params(params, len(layers))
        return draw_like(key, params, initializer)
    shapes = lambda params, x: [
        (each.s, each.y) for each in forward_pass(layers, params, x)
    ]
    passes = jax.eval_shape(shapes, params, x)
    example = lambda leaf: jax.ShapeDtypeStruct(leaf.shape[batch_ndim:], leaf.dtype)
    (output, _), passes = jax.tree.map(example, passes[-1]), passes[:-1]
    keys = jax.random.split(key, len(layers))
    drawn = [
        random_feedback(each, output, jax.tree.map(example, y))
        for each, (_, y) in zip(keys, passes, strict=False)
    ]
    return *drawn, None


def check_kind(kind: str) -> None:
    """Check that a kind is known."""
    if kind not in get_args(AlignmentKind):
        raise ValueError(
            f"kind must be one of {', '.join(get_args(AlignmentKind))}; got {kind!r}."
        )


def draw_like(key: jax.Array, params: Sequence[PyTree], initializer: Callable) -> Any:
    """Draw for each matrix or kernel an array; None for biases and the first layer."""
    leaves, structure = jax.tree.flatten(tuple(params))
    first = len(jax.tree.leaves(params[0]))
    keys = jax.random.split(key, len(leaves))
    drawn = [
        initializer(keys[i], jnp.shape(leaf), leaf.dtype)
        if i >= first and jnp.ndim(leaf) >= 2
        else None
        for i, leaf in enumerate(leaves)
    ]
    return structure.unflatten(drawn)
