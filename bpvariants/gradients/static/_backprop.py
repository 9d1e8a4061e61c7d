"""Static backpropagation, written as the chain rule of each layer.

Notation: layer l of Λ layers takes the output y_{l−1} of the layer below. The layer
computes the net input s_l with its weights w_l, and returns the output y_l,

    s_l = S_l(w_l, y_{l−1}),    y_l = φ_l(s_l),    y_0 = x,    l = 1 … Λ.

The derivative of the mean loss E in w_l has three factors, as in the tutorial "4 Types
of Backpropagation":

    ∂E/∂w_l = ∂E/∂y_l · ∂y_l/∂s_l · ∂s_l/∂w_l.

The delta δ_l = ∂E/∂s_l is the product ∂E/∂y_l · ∂y_l/∂s_l of the first two factors.
Layer l also computes the first factor for the layer below:
∂E/∂y_{l−1} = δ_l · ∂s_l/∂y_{l−1}.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bpvariants._checks import check_arrays, check_batch, check_floating
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants._losses import (
    as_arrays,
    check_entries,
    check_loss_function,
    counted,
    losses_of,
    normalised,
)
from bpvariants.gradients.static._layer_info import BackpropInfo, LayerInfo
from bpvariants.types import Loss, PyTree

# A layer is a pair of functions: (params of the layer, output y of the layer below) ->
# net input s of the layer, and activation s -> output y of the layer.
Layer: TypeAlias = tuple[Callable[[PyTree, PyTree], PyTree], Callable[[PyTree], PyTree]]


def backprop(
    layers: Sequence[Layer], loss: Loss
) -> Callable[..., tuple[tuple[jax.Array, BackpropInfo], tuple[PyTree, ...]]]:
    """Static backpropagation: the exact gradient, and every factor of the chain rule.

    `backprop` computes the same gradient as `jax.value_and_grad` at the same cost: the
    time of about three forward passes, and memory for all activations. Use
    `jax.value_and_grad` if you need only the gradient, and `backprop` if you also need
    the factors of the chain rule. A layer may be dense, a convolution or a residual
    block. A layer may also have several branches, because its output y can be any
    pytree. For a network that is not split into layers, see :func:`layer_deltas`.

    Args:
      layers: for each layer a pair of differentiable functions: (params of the layer, y
        of the layer below) -> net input s, and the activation s -> y.
      loss: function (last layer's y, target) -> one loss for each example.

    Returns:
      A function (params, x, target, weights=None) -> ((value, info), grads). params and
      grads have one entry for each layer; leaves of x and target are [*batch, ...];
      weights are [*batch]. value is the weighted mean loss, and info has a
      :class:`LayerInfo` for each layer. `info.table()` returns a table as text, and
      `info.plot()` draws the chain rule.

    Raises:
      ValueError: if layers is empty, or has an entry that is not a pair of functions.
        The returned function raises a ValueError if params does not have one entry for
        each layer, or if a layer cannot take the output of the layer below. The
        function also raises one if params or outputs of layers are not floating, or if
        loss does not return one value for each example.

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
      >>> print(info.table())
      layer shapes   ‖y‖   ‖s‖   ‖δ‖ ‖∂E/∂w‖ dead
      1        1→1 36.00 6.000 6.000   12.00 0.0%
      2        1→1 18.00 18.00 1.000   36.00 0.0%

    References:
      Rumelhart, Hinton & Williams, "Learning representations by back-propagating
      errors", Nature 323, 1986, doi:10.1038/323533a0.
    """
    layers = check_layers(layers)
    check_loss_function(loss)

    def rule(params, x, target, weights=None):
        passes = forward_pass(layers, params, x)
        y = passes[-1].y
        value, error, batch_ndim = loss_and_error(loss, y, x, target, weights)
        info, grads = backward_pass(passes, error, batch_ndim)
        return (value, info), grads

    return rule


class Pass(NamedTuple):
    """Values of layer l and its vector-Jacobian products, saved in the forward pass.

    E is the mean loss, and w are the layer's weights.
    """

    x: PyTree  # y_{l−1}, input of the layer
    s: PyTree  # s_l, net input of the layer
    y: PyTree  # y_l, output of the layer
    pull_s: Callable[[PyTree], tuple[PyTree, PyTree]]  # maps ∂E/∂s to (∂E/∂w, ∂E/∂x)
    pull_y: Callable[[PyTree], tuple[PyTree]]  # maps ∂E/∂y to (∂E/∂s,)


def forward_pass(layers: Sequence[Layer], params: PyTree, x: PyTree) -> list[Pass]:
    check_params(params, len(layers))
    check_arrays("x", x)
    passes, y = [], x
    for i, ((function, activation), theta) in enumerate(
        zip(layers, params, strict=True)
    ):
        try:
            function = with_stored_operands(function, theta, y)
            s, pull_s = jax.vjp(function, theta, y)
        except Exception as error:
            source = f"the output of layers[{i - 1}]" if i else "x"
            raise ValueError(
                f"the function of layers[{i}] must take params[{i}], of shapes "
                f"{_shapes(theta)}, and {source}, of shapes {_shapes(y)}, but cannot: "
                f"{error}"
            ) from error
        try:
            activation = with_stored_operands(activation, s)
            above, pull_y = jax.vjp(activation, s)
        except Exception as error:
            raise ValueError(
                f"the activation of layers[{i}] must take the net input s that its "
                f"function returns, of shapes {_shapes(s)}, but cannot: {error}"
            ) from error
        for name, tree in {"function": s, "activation": above}.items():
            check_floating(f"layers[{i}]: the {name} output", tree)
        passes.append(Pass(y, s, above, pull_s, pull_y))
        y = above
    return passes


def check_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    other = (
        "For a cell, or any step of a recurrent network, use gradients.bptt(step, "
        "loss); for a network that is one function, jax.grad or gradients.layer_deltas."
    )
    if not isinstance(layers, Iterable) or isinstance(layers, str | dict):
        raise ValueError(
            "layers must be a sequence of (function, activation) pairs, one for each "
            f"layer; got {layers!r}. {other}"
        )
    layers = tuple(layers)
    if not layers:
        raise ValueError("layers must have at least one (function, activation) pair.")
    for i, layer in enumerate(layers):
        pair = isinstance(layer, tuple | list) and len(layer) == 2
        if not pair or not all(map(callable, layer)):
            raise ValueError(
                f"layers[{i}] must be a pair of functions, (function, activation); got "
                f"{layer!r}. The activation may be lambda s: s. {other}"
            )
    return layers


def check_params(params: PyTree, num_layers: int) -> None:
    check_floating("params", params)
    if isinstance(params, dict) or not hasattr(params, "__len__"):
        raise ValueError(
            "params must be a tuple or a list, with one entry for each layer; got "
            f"{type(params).__name__}."
        )
    if len(params) != num_layers:
        raise ValueError(
            "params must have one entry for each layer; got "
            f"{len(params)} for {num_layers} layers."
        )


def loss_and_error(
    loss: Loss, y: PyTree, x: PyTree, target: PyTree, weights: jax.Array | None
) -> tuple[jax.Array, PyTree, int]:
    """Return the mean loss, its derivative in y, and the number of batch axes."""
    check_arrays("target", target)
    (weights,) = as_arrays(weights=weights)
    losses = jax.eval_shape(lambda y: losses_of(loss, y, target), y)
    check_batch("x", x, losses.shape, "[*batch]")
    check_entries(losses.shape, "[*batch]", weights=weights)
    shares = normalised(weights, losses.shape, losses.dtype)

    def mean_loss(y):
        return jnp.sum(shares * losses_of(loss, y, counted(target, weights)))

    mean_loss = with_stored_operands(mean_loss, y)
    value, error = jax.value_and_grad(mean_loss)(y)
    return value, error, losses.ndim


def backward_pass(
    passes: Sequence[Pass],
    error: PyTree,
    batch_ndim: int,
    direct: Callable[[int, PyTree], PyTree] | None = None,
) -> tuple[BackpropInfo, tuple[PyTree, ...]]:
    """Send the error of the last layer's output back through all layers.

    Args:
      passes: the :class:`Pass` of each layer, first to last.
      error: ∂E/∂y_Λ, the derivative of the mean loss in the last layer's output.
      batch_ndim: the number of batch axes.
      direct: function (index of a hidden layer, counted from 0; last layer's δ_Λ) ->
        array or pytree that the hidden layer uses as ∂E/∂y, with its output y.
        Default: the ∂E/∂y that the layer above computes.
    """
    info, grads, last_delta = [], [], None
    for i, (x, s, y, pull_s, pull_y) in reversed(list(enumerate(passes))):
        if direct is not None and last_delta is not None:
            error = direct(i, last_delta)
        (delta,) = pull_y(error)
        grad, error_below = pull_s(delta)
        last_delta = delta if last_delta is None else last_delta
        info.append(LayerInfo(x, s, y, error, delta, grad))
        grads.append(grad)
        error = error_below
    return BackpropInfo(reversed(info), batch_ndim), tuple(reversed(grads))


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
