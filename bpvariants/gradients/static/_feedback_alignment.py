"""Feedback alignment: backpropagation with separate weights in the backward pass.

Notation: layer l of Λ layers computes s_l = S_l(w_l, y_{l−1}) and y_l = φ_l(s_l), as in
`_backprop`. S_l is affine in y, and J_l(w) = ∂S_l/∂y is its Jacobian at the weights w.
E is the mean loss, and δ_l = ∂E/∂s_l. Backpropagation computes ∂E/∂y_l =
δ_{l+1} J_{l+1}(w_{l+1}). Feedback alignment replaces ∂E/∂y_l by one of these products
with random arrays B or R, or a constant α:

    fa      δ_{l+1} J_{l+1}(B_{l+1})                    B drawn once
    usf     δ_{l+1} J_{l+1}(α sgn w_{l+1})
    brsf    δ_{l+1} J_{l+1}(|R_{l+1}| ⊙ sgn w_{l+1})    R drawn for each batch
    frsf    δ_{l+1} J_{l+1}(|R_{l+1}| ⊙ sgn w_{l+1})    R drawn once
    dfa     δ_Λ B_l                                     B drawn once, for every l < Λ

The equations δ_l = ∂E/∂y_l · ∂y_l/∂s_l and ∂E/∂w_l = δ_l · ∂s_l/∂w_l do not change. The
last layer's gradient is exact, because ∂E/∂y_l is replaced only for l < Λ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bpvariants._checks import check_single_key
from bpvariants._jaxpr.reach import needed_arguments
from bpvariants._losses import check_loss_function
from bpvariants._settings import described
from bpvariants.gradients._feedback import fed_back
from bpvariants.gradients.static._alignment_weights import (
    AlignmentKind,
    check_kind,
    draw_like,
    initializer_or_default,
)
from bpvariants.gradients.static._backprop import (
    backprop,
    backward_pass,
    check_layers,
    check_params,
    forward_pass,
    Layer,
    loss_and_error,
)
from bpvariants.gradients.static._feedback_layers import (
    backward_matrix,
    check_scale,
    Scale,
    with_feedback,
)
from bpvariants.gradients.static._layer_info import BackpropInfo
from bpvariants.types import Loss, PyTree


def feedback_alignment(
    layers: Sequence[Layer],
    loss: Loss,
    *,
    kind: AlignmentKind = "fa",
    scale: Scale = "xavier",
    initializer: Callable | None = None,
) -> Callable[..., tuple[tuple[jax.Array, BackpropInfo], tuple[PyTree, ...]]]:
    """Biased backpropagation: errors are sent back through feedback weights.

        fa    ∂E/∂y_l ≈ δ_{l+1} B_{l+1},         dfa   ∂E/∂y_l ≈ δ_Λ B_l,
        usf   ∂E/∂y_l ≈ δ_{l+1} α sgn(w_{l+1}),  brsf, frsf   δ_{l+1} |R| ⊙ sgn(w_{l+1})

    Here E is the mean loss; w_l, s_l and y_l are the weights, net input and output of
    layer l, and δ_l = ∂E/∂s_l. B and R are random arrays, α is a constant, and layer Λ
    is the last layer, whose gradient is exact.

    `feedback_alignment` has the same interface as :func:`backprop`. In the backward
    pass, all kinds except "dfa" replace the matrices and kernels in params: all arrays
    with two axes or more. Biases and scales are not replaced. Errors also go unchanged
    through paths without weights, such as residual connections. "dfa" sends the last
    layer's δ_Λ to each hidden layer, instead of an error from the layer above. Time and
    memory are the same as for :func:`backprop`, plus memory for the feedback weights.
    For "fa" and "frsf", the feedback weights are about as large as the params. For
    "dfa", the number of feedback weights is the number of outputs times the sum of the
    widths of the hidden layers.

    Args:
      layers: for each layer a pair of functions: (params of the layer, y of the layer
        below) -> net input s, and the activation s -> y. If a layer's weights are
        replaced, the layer's first function must be affine in y. If a layer contains
        several nonlinear layers, use :func:`feedback_dense` and :func:`feedback_conv`
        inside the layer's function.
      loss: function (last layer's y, target) -> one loss for each example.
      kind: "fa" (feedback alignment), "dfa" (direct feedback alignment), or a kind
        whose feedback weights have the signs of the layer's weights: "usf" (uniform),
        "brsf" (random for each batch) or "frsf" (fixed random).
      scale: the factor α for "usf": a number; or "xavier" for √(2 / (fan_in +
        fan_out)); or "kaiming" for 1 / √(3 fan_in). For weights [*window, in, out],
        fan_in is the size of the window times `in`, and fan_out the size times `out`.
      initializer: one of `jax.nn.initializers`, which draws R for "brsf". Default:
        Xavier initialisation, `glorot_normal()`.

    Returns:
      A function (params, x, target, weights=None, *, feedback=None, key=None) ->
      ((value, info), grads), like the function that :func:`backprop` returns. "fa",
      "dfa" and "frsf" need `feedback`: one entry for each layer, drawn by
      :func:`alignment_weights`. "brsf" needs `key`, a new key for each batch. info has
      the approximate errors ∂E/∂y_l. To compare approximate and exact errors, use
      :func:`alignment_angles`.

    Raises:
      ValueError: if kind is unknown. The returned function raises a ValueError if
        feedback or key is missing or is not used by this kind, or if feedback does not
        fit the params. The function also raises one if a layer with replaced weights is
        not affine in y, and in the cases in which :func:`backprop` raises one.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import diagnostics, gradients
      >>> dense = lambda w, y: y @ w
      >>> layers = [(dense, jnp.tanh), (dense, lambda s: s)]
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2, -1)
      >>> params = jnp.eye(2, 3), jnp.ones((3, 1))
      >>> x, target = jnp.ones((4, 2)), jnp.zeros((4, 1))
      >>> feedback = gradients.alignment_weights(jax.random.key(0), layers, params, x)
      >>> rule = gradients.feedback_alignment(layers, loss, kind="fa")
      >>> (value, info), grads = rule(params, x, target, feedback=feedback)
      >>> (_, exact), _ = gradients.backprop(layers, loss)(params, x, target)
      >>> angles = diagnostics.alignment_angles(info, exact)
      >>> angles.grads[1].item(), bool(angles.grads[0] > 1)  # degrees
      (0.0, True)

    References:
      Lillicrap et al. 2016 (FA), doi:10.1038/ncomms13276. Nøkland 2016 (DFA),
      arXiv:1609.01596. Liao, Leibo & Poggio 2016 (uSF, brSF, frSF), arXiv:1510.05067.
      Xiao et al. 2018 (scaled sign feedback), arXiv:1811.03567.
    """
    layers = check_layers(layers)
    check_kind(kind)
    check_loss_function(loss)
    check_scale(scale)
    initializer = initializer_or_default(initializer)

    def rule(params, x, target, weights=None, *, feedback: Any = None, key: Any = None):
        _check_given(kind, feedback, key, len(layers))
        if kind == "dfa":
            return _direct(layers, loss, params, x, target, weights, feedback)
        check_params(params, len(layers))
        if kind == "brsf":
            feedback = draw_like(key, params, initializer)
        elif kind == "usf":
            feedback = [jax.tree.map(lambda w: None, theta) for theta in params]
        replaced = [
            (_replaced(i, layer[0], params[i], feedback[i], kind, scale), layer[1])
            for i, layer in enumerate(layers)
        ]
        return backprop(replaced, loss)(params, x, target, weights)

    return rule


def _check_given(kind, feedback, key, num_layers):
    wanted = {"usf": None, "brsf": "key"}.get(kind, "feedback")
    remedy = {
        "feedback": "gradients.alignment_weights(key, layers, params, x, "
        f"kind={kind!r}), drawn once before training",
        "key": "a jax.random.key, a new one for each batch",
    }
    for name, given in {"feedback": feedback, "key": key}.items():
        if name == wanted and given is None:
            raise ValueError(f"{name} is missing for {kind!r}: give {remedy[name]}.")
        if name != wanted and given is not None:
            raise ValueError(f"{name} must be left out for {kind!r}, which needs none.")
    if key is not None:
        check_single_key(key)
    if feedback is None:
        return
    if not isinstance(feedback, tuple | list) or len(feedback) != num_layers:
        raise ValueError(
            f"feedback must have one entry for each of the {num_layers} layers, as "
            f"alignment_weights returns them; got {described(feedback)}."
        )
    if kind == "dfa" and feedback[-1] is not None:
        raise ValueError(
            "feedback must be None for the last layer, whose gradient is exact; it was "
            f"drawn for another kind. Give {remedy['feedback']}."
        )


def _replaced(index, function, theta, feedback, kind, scale):
    """Return the function of a layer, with feedback weights in its backward pass."""
    if index == 0:  # the first layer sends no error to a layer below
        return function
    leaves, structure = jax.tree.flatten(theta)
    try:
        given = structure.flatten_up_to(feedback)
        usf = kind == "usf"
        others = [
            backward_matrix(kind, w, b, scale)
            if b is not None or (usf and jnp.ndim(w) >= 2)
            else w
            for w, b in zip(leaves, given, strict=True)
        ]
    except ValueError as error:
        raise ValueError(
            f"feedback[{index}] must be like params[{index}], with None for arrays "
            f"that are not replaced, as gradients.alignment_weights draws it: {error}"
        ) from error
    same = all(w is other for w, other in zip(leaves, others, strict=True))
    if same:
        return function
    others = structure.unflatten(others)
    call = with_feedback(function)

    def replaced(theta, y):
        _check_affine(index, function, theta, y)
        return call(theta, others, y)

    return replaced


def _check_affine(index, function, theta, y):
    """Check that a layer's function is affine in y.

    The derivative of an affine function does not depend on y. Therefore, the check
    traces the backward pass, and requires that the jaxpr does not use y.
    """
    shapes = jax.eval_shape(function, theta, y)

    def pulled(y, theta, delta):
        return jax.vjp(lambda y: function(theta, y), y)[1](delta)

    needs_y, *_ = needed_arguments(pulled, y, theta, shapes)
    if any(needs_y):
        raise ValueError(
            f"the function of layers[{index}] must be affine in y, like a dense layer "
            "or a convolution, because its weights are replaced in the backward pass. "
            "Move its nonlinear part into the activation. Or write the layer with "
            "gradients.feedback_dense and gradients.feedback_conv, and give None for "
            "its feedback."
        )


def _direct(layers, loss, params, x, target, weights, feedback):
    """Return ((value, info), grads) of "dfa", direct feedback alignment."""
    passes = forward_pass(layers, params, x)
    value, error, batch_ndim = loss_and_error(loss, passes[-1].y, x, target, weights)
    example = lambda tree: jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[batch_ndim:], leaf.dtype), tree
    )

    def direct(index, last_delta):
        y, output = passes[index].y, example(passes[-1].s)
        deltas = jax.tree.leaves(last_delta)
        try:
            signals = fed_back(feedback[index], deltas, output, example(y))
        except ValueError as error:
            raise ValueError(
                f"feedback[{index}] does not fit; draw it with gradients."
                f"alignment_weights(key, layers, params, x, kind='dfa'): {error}"
            ) from error
        leaves, structure = jax.tree.flatten(y)
        pairs = zip(leaves, signals, strict=True)
        return structure.unflatten(
            [
                jnp.zeros_like(leaf) if signal is None else signal.astype(leaf.dtype)
                for leaf, signal in pairs
            ]
        )

    info, grads = backward_pass(passes, error, batch_ndim, direct)
    return (value, info), grads
