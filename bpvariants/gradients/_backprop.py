"""Static backpropagation, written out as the chain rule of each layer.

Notation: layer l takes y_{l−1}, forms the net input s_l, and puts out y_l,

    s_l = S_l(w_l, y_{l−1}),    y_l = φ_l(s_l),    y_0 = x,    l = 1 … Λ.

The derivative of the mean loss E has the three factors of the tutorial,

    ∂E/∂w_l = ∂E/∂y_l · ∂y_l/∂s_l · ∂s_l/∂w_l,

where the product of the first two is the delta, δ_l = ∂E/∂s_l, and the first comes from
the layer above: ∂E/∂y_{l−1} = δ_l · ∂s_l/∂y_{l−1}.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._checks import check_batch, check_floating
from bpvariants._dtypes import widen
from bpvariants._losses import (
    as_arrays,
    check_entries,
    check_losses,
    normalised,
)
from bpvariants.types import Loss, PyTree

# The function (params of the layer, y) -> s, and the activation s -> y.
Layer: TypeAlias = tuple[Callable[[PyTree, PyTree], PyTree], Callable[[PyTree], PyTree]]


class LayerInfo(NamedTuple):
    """What one layer saw, forward and backward, leaves [*batch, ...].

    Derivatives are those of the mean loss, of which one example's is its own, divided
    by the number of examples.
    """

    x: PyTree  # y_{l−1}, its input
    s: PyTree  # s_l, its net input
    y: PyTree  # y_l, its output
    error: PyTree  # ∂E/∂y_l
    delta: PyTree  # ∂E/∂s_l


def backprop(
    layers: Sequence[Layer], loss: Loss
) -> Callable[..., tuple[tuple[jax.Array, tuple[LayerInfo, ...]], tuple[PyTree, ...]]]:
    """Static backpropagation, the exact gradient of a network in layers, to look into.

    It is what `jax.value_and_grad` computes, and costs the same: about three forward
    passes and the memory of all activations. Use that for a network that is any plain
    function, and this where the factors of the chain rule are wanted too.

    Args:
      layers: for each layer the function (params of the layer, y) -> s and its
        activation s -> y, both of them any differentiable functions.
      loss: one loss for each example, of the last layer's y and the target.

    Returns:
      A function (params, x, target, weights=None) -> ((value, info), grads): params and
      grads with one entry a layer, x and target of leaves [*batch, ...], weights
      [*batch], value the weighted mean loss, info a :class:`LayerInfo` for each layer.

    Raises:
      ValueError: if there is no layer; when the function is called, if params has not
        one entry a layer, or if shapes or dtypes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> scale = lambda w, y: w * y
      >>> square = lambda y, target: (y - target) ** 2 / 2
      >>> rule = gradients.backprop([(scale, jnp.square), (scale, jnp.abs)], square)
      >>> (value, info), grads = rule((3.0, -0.5), jnp.array(2.0), jnp.array(17.0))
      >>> value.item(), [layer.y.item() for layer in info]  # y: 6² = 36, |−18| = 18
      (0.5, [36.0, 18.0])
      >>> info[1].error.item(), info[1].delta.item()  # y − target, times sign(s)
      (1.0, -1.0)
      >>> [grad.item() for grad in grads]
      [12.0, -36.0]

    References:
      Rumelhart, Hinton & Williams, "Learning representations by back-propagating
      errors", Nature 323, 1986, doi:10.1038/323533a0.
    """
    layers = tuple(layers)
    if not layers:
        raise ValueError("layers must have at least one (function, activation) pair.")

    def rule(params, x, target, weights=None):
        (weights,) = as_arrays(weights)
        check_floating("params", params)
        if len(params) != len(layers):
            raise ValueError(
                "params must have one entry for each layer; got "
                f"{len(params)} for {len(layers)} layers."
            )
        y, forward = x, []
        for (function, activation), theta in zip(layers, params, strict=True):
            s, pull_s = jax.vjp(function, theta, y)
            above, pull_y = jax.vjp(activation, s)
            forward.append((y, s, above, pull_s, pull_y))
            y = above

        def mean_loss(y):
            losses = loss(y, target)
            check_losses(losses, target)
            check_batch("x", x, losses.shape, "[*batch]")
            check_entries(losses.shape, "[*batch]", weights=weights)
            losses = widen(losses)
            return jnp.sum(normalised(weights, losses.shape, losses.dtype) * losses)

        value, error = jax.value_and_grad(mean_loss)(y)
        info, grads = [], []
        for y_below, s, y, pull_s, pull_y in reversed(forward):
            (delta,) = pull_y(error)  # ∂E/∂y · ∂y/∂s
            grad, error_below = pull_s(delta)  # … · ∂s/∂w, and … · ∂s/∂y
            info.append(LayerInfo(y_below, s, y, error, delta))
            grads.append(grad)
            error = error_below
        return (value, tuple(reversed(info))), tuple(reversed(grads))

    return rule
