"""Random feedback weights for feedback alignment."""

from collections.abc import Callable, Sequence
from typing import Any, get_args, Literal, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_arrays,
    check_batch_ndim,
    check_count,
    check_function,
    check_single_key,
)
from bpvariants.gradients._feedback import random_feedback
from bpvariants.gradients.static._backprop import (
    check_layers,
    check_params,
    forward_pass,
    Layer,
)
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
    """Draw the constant feedback weights of :func:`feedback_alignment`.

    Call this function once, before training. Feedback weights are not parameters: do
    not apply updates, weight decay or momentum to them.

    Args:
      key: a `jax.random.key`.
      layers: the same layers as for :func:`feedback_alignment`.
      params: parameters of the network, one entry for each layer.
      x: inputs, as arrays or `jax.ShapeDtypeStruct`s, leaves [*batch, ...].
      kind: the kind of feedback alignment: "fa", "frsf" or "dfa". For "usf" and "brsf",
        nothing is drawn.
      batch_ndim: the number of batch axes of x.
      initializer: one of `jax.nn.initializers`, for "fa" and "frsf". Default: Xavier
        initialisation, `glorot_normal()`. "dfa" ignores the initializer, and draws from
        a normal distribution with variance 1 / (width of the hidden layer).

    Returns:
      A tuple with one entry for each layer. For "fa" and "frsf", an entry has the
      structure of the layer's params, with None for arrays that are not replaced:
      biases, and all arrays of the first layer, which sends no error to a layer below.
      For "dfa", an entry is an array [*outputs, *width], or a pytree of arrays as
      :func:`random_feedback` returns it; the last layer's entry is None. For "usf" and
      "brsf", the result is None instead of a tuple.

    Raises:
      ValueError: if kind is unknown, or if params do not fit the layers.

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
    check_single_key(key)
    layers = check_layers(layers)
    check_kind(kind)
    check_count("batch_ndim", batch_ndim, 0)
    initializer = initializer_or_default(initializer)
    if kind in ("usf", "brsf"):
        return None
    if kind != "dfa":
        check_params(params, len(layers))
        return draw_like(key, params, initializer)
    shapes = lambda params, x: [
        (each.s, each.y) for each in forward_pass(layers, params, x)
    ]
    check_arrays("x", x)
    passes = jax.eval_shape(shapes, params, x)
    check_batch_ndim("the layers' outputs", batch_ndim, passes)
    example = lambda leaf: jax.ShapeDtypeStruct(leaf.shape[batch_ndim:], leaf.dtype)
    (output, _), passes = jax.tree.map(example, passes[-1]), passes[:-1]
    keys = jax.random.split(key, len(layers))
    drawn = [
        random_feedback(each, output, jax.tree.map(example, y))
        for each, (_, y) in zip(keys, passes, strict=False)
    ]
    return *drawn, None


def initializer_or_default(initializer: Callable | None) -> Callable:
    """Return a checked initializer; None stands for Xavier initialisation."""
    if initializer is None:
        return jax.nn.initializers.glorot_normal()
    check_function(
        "initializer",
        initializer,
        "(key, shape, dtype) -> array, such as jax.nn.initializers.he_normal()",
    )
    return initializer


def check_kind(kind: str) -> None:
    if kind not in get_args(AlignmentKind):
        raise ValueError(
            f"kind must be one of {', '.join(get_args(AlignmentKind))}; got {kind!r}."
        )


def draw_like(key: jax.Array, params: Sequence[PyTree], initializer: Callable) -> Any:
    """Draw an array for each matrix or kernel in params, with the same shape.

    Biases and the arrays of the first layer get None instead of an array.
    """
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
