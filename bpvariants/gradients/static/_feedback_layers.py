"""Layers that use different weights in the forward pass and in the backward pass.

Notation: a layer with input y, weights W and biases b computes s = y W + b, and
δ = ∂E/∂s is the derivative of the mean loss E. Backpropagation sends δ Wᵀ to the layer
below. Instead of δ Wᵀ, the kinds of feedback alignment send

    δ Bᵀ    with    B random and fixed                       fa
                    α sgn(W)                                  usf, uniform sign
                    |R| ⊙ sgn(W), R redrawn for each batch    brsf, batchwise random
                    |R| ⊙ sgn(W), R drawn once                frsf, fixed random

The feedback weights B and R have the shape of W. The number α is the standard deviation
of a random initialiser of W. The gradient in W is exact, given δ: it is yᵀ δ. The
gradients in B and R are 0, and W gets no gradient through sgn(W).
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, get_args, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import is_count
from bpvariants.types import PyTree

FeedbackKind: TypeAlias = Literal["fa", "usf", "brsf", "frsf"]
# Factor α: "xavier" is √(2 / (fan_in + fan_out)), "kaiming" is 1 / √(3 fan_in).
Scale: TypeAlias = Literal["xavier", "kaiming"] | jax.typing.ArrayLike


def feedback_dense(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None = None,
    feedback: jax.Array | None = None,
    *,
    kind: FeedbackKind = "fa",
    scale: Scale = "xavier",
) -> jax.Array:
    """Compute x w + b, with the derivative in x replaced by feedback alignment.

        forward s = x w + b;    backward ∂E/∂x ≈ δ Bᵀ,  ∂E/∂w = xᵀ δ,  ∂E/∂b = Σ δ

    Here E is the loss, δ = ∂E/∂s, and B are the feedback weights. Use `feedback_dense`
    as a layer of your own network, with `jax.grad`; other layers need no change. Time
    and memory are the same as for a dense layer. Forward-mode differentiation does not
    work.

    Args:
      x: inputs, [*batch, n].
      w: weights, [n, m].
      b: biases, [m], or None.
      feedback: weights for the backward pass, [n, m]: B for "fa", or R for "brsf" and
        "frsf", drawn for instance by `jax.nn.initializers.glorot_normal()`. For "brsf",
        draw a new R for each batch. Feedback weights may be among the params, because
        their gradient is 0, but do not apply weight decay or momentum to them. For
        "usf", give None.
      kind: "fa", "usf", "brsf" or "frsf".
      scale: the factor α for "usf": a number; or "xavier" for √(2 / (n + m)); or
        "kaiming" for 1 / √(3 n).

    Returns:
      The result s = x w + b, [*batch, m].

    Raises:
      ValueError: if shapes do not fit, if kind or scale is unknown, or if feedback is
        missing, or given for "usf".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> w, B = jnp.array([[1.0], [2.0]]), jnp.array([[-3.0], [0.5]])
      >>> energy = lambda x, w, B: gradients.feedback_dense(x, w, feedback=B).sum() ** 2
      >>> for grad in jax.grad(energy, (0, 1, 2))(jnp.array([1.0, 1.0]), w, B):
      ...     print(grad.ravel().tolist())  # δ = 6
      [-18.0, 3.0]
      [6.0, 6.0]
      [0.0, 0.0]

    References:
      Lillicrap et al. (FA), doi:10.1038/ncomms13276. Liao, Leibo & Poggio (uSF, brSF,
      frSF), arXiv:1510.05067. Xiao et al. (scaled sign feedback), arXiv:1811.03567.
    """
    if jnp.ndim(w) != 2 or jnp.shape(x)[-1:] != jnp.shape(w)[:1]:
        raise ValueError(
            "w must have shape [n, m] for x of [*batch, n]; got "
            f"{jnp.shape(w)} and {jnp.shape(x)}."
        )
    matrix = backward_matrix(kind, w, feedback, scale)
    return _plus(with_feedback(lambda w, x: x @ w)(w, matrix, x), b)


def feedback_conv(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None = None,
    feedback: jax.Array | None = None,
    *,
    kind: FeedbackKind = "fa",
    scale: Scale = "xavier",
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> jax.Array:
    """Convolve x with w, with the derivative in x replaced by feedback alignment.

        forward s = x ∗ w + b;    backward ∂E/∂x ≈ δ ∗ᵀ B,  gradients in w and b exact

    Here E is the loss, δ = ∂E/∂s, B are the feedback weights, and ∗ᵀ is the transposed
    convolution. Use `feedback_conv` as a layer of your own network, like
    :func:`feedback_dense`.

    Args:
      x: inputs, [*batch, *sizes, n], as in Flax, with one or more spatial axes.
      w: weights, [*window, n, m], with the same number of spatial axes as x.
      b: biases, [m], or None.
      feedback: an array of the shape of w: B for "fa", or R for "brsf" and "frsf".
      kind: "fa", "usf", "brsf" or "frsf".
      scale: the factor α for "usf": a number; or "xavier" for √(2 / (fan_in +
        fan_out)); or "kaiming" for 1 / √(3 fan_in).
      strides: one integer, or one for each spatial axis.
      padding: "SAME", "VALID", or (before, after) for each spatial axis.

    Returns:
      The result s = x ∗ w + b, [*batch, *new_sizes, m].

    Raises:
      ValueError: in the same cases as :func:`feedback_dense`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> x, w = jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1))
      >>> energy = lambda x: gradients.feedback_conv(x, w, feedback=2 * w).sum()
      >>> jax.grad(energy)(x).ravel().tolist()  # twice as much as through w
      [4.0, 6.0, 4.0]

    References:
      Lillicrap et al. (FA), doi:10.1038/ncomms13276. Liao, Leibo & Poggio (uSF, brSF,
      frSF), arXiv:1510.05067. Sanfiz & Akrout (benchmark), arXiv:2108.13446.
    """
    spatial = jnp.ndim(w) - 2
    rank = spatial + 1  # number of axes of one example
    if spatial < 1 or jnp.ndim(x) < rank or jnp.shape(x)[-1] != jnp.shape(w)[-2]:
        raise ValueError(
            "w must have shape [*window, n, m] for x of [*batch, *sizes, n], where "
            "window and sizes have the same number of axes; got "
            f"{jnp.shape(w)} and {jnp.shape(x)}."
        )
    matrix = backward_matrix(kind, w, feedback, scale)
    batch = jnp.shape(x)[: jnp.ndim(x) - rank]
    strides = _checked_strides(strides, spatial)
    images = (0, rank, *range(1, rank))
    kernel = (spatial + 1, spatial, *range(spatial))
    numbers = jax.lax.ConvDimensionNumbers(images, kernel, images)

    def convolve(w, x):
        flat = x.reshape(-1, *x.shape[x.ndim - rank :])
        s = jax.lax.conv_general_dilated(
            flat, w, strides, padding, dimension_numbers=numbers
        )
        return s.reshape(*batch, *s.shape[1:])

    return _plus(with_feedback(convolve)(w, matrix, x), b)


def backward_matrix(kind: str, w: jax.Array, feedback: Any, scale: Scale) -> jax.Array:
    """Return the feedback weights that replace the weights w in the backward pass."""
    if kind not in get_args(FeedbackKind):
        raise ValueError(
            f"kind must be one of {', '.join(get_args(FeedbackKind))}; got {kind!r}."
        )
    if kind == "usf":
        if feedback is not None:
            raise ValueError(
                "feedback must be None for 'usf', which sends errors through α sgn w."
            )
        alpha = jnp.asarray(_alpha(scale, jnp.shape(w)), jnp.result_type(w))
        return alpha * jnp.sign(w)
    if feedback is None or jnp.shape(feedback) != jnp.shape(w):
        got = "None" if feedback is None else f"shape {jnp.shape(feedback)}"
        raise ValueError(
            f"feedback must have the shape of the weights, {jnp.shape(w)}, for "
            f"{kind!r}; got {got}."
        )
    feedback = jnp.asarray(feedback, jnp.result_type(w))
    return feedback if kind == "fa" else jnp.abs(feedback) * jnp.sign(w)


def with_feedback(
    function: Callable[[PyTree, PyTree], PyTree],
) -> Callable[[PyTree, PyTree, PyTree], PyTree]:
    """Return a function (params, others, y) -> s; its derivative in y uses `others`.

    The returned function computes s = `function(params, y)`, which must be affine in y.
    The derivative of s in y is replaced by the derivative of `function(others, y)`. The
    gradient in `others` is 0.
    """

    @jax.custom_vjp
    def call(params, others, y):
        return function(params, y)

    def forward(params, others, y):
        s, pull = jax.vjp(lambda params: function(params, y), params)
        return s, (pull, others, y)

    def backward(kept, delta):
        pull, others, y = kept
        _, pull_y = jax.vjp(lambda y: function(others, y), y)
        nothing = jax.tree.map(jnp.zeros_like, others)
        return *pull(delta), nothing, *pull_y(delta)

    call.defvjp(forward, backward)
    return call


def _checked_strides(strides: Any, spatial: int) -> tuple[int, ...]:
    """Return one stride for each spatial axis; check that they are integers >= 1."""
    each = (strides,) * spatial if isinstance(strides, int) else strides
    fits = isinstance(each, Sequence) and len(each) == spatial
    if not fits or not all(is_count(stride) for stride in each):
        raise ValueError(
            "strides must be an integer of at least 1, or one for each of the "
            f"{spatial} spatial axes; got {strides!r}."
        )
    return tuple(each)


def check_scale(scale: Scale) -> None:
    _alpha(scale, (1, 1))


def _alpha(scale: Scale, shape: Sequence[int]) -> jax.typing.ArrayLike:
    """Return the number α that `scale` selects for weights [*window, n, m]."""
    window = math.prod(shape[:-2])
    fan_in, fan_out = window * shape[-2], window * shape[-1]
    if isinstance(scale, str):
        known = {
            "xavier": math.sqrt(2 / (fan_in + fan_out)),
            "kaiming": 1 / math.sqrt(3 * fan_in),
        }
        if scale in known:
            return known[scale]
    elif isinstance(scale, Real | jax.Array | np.ndarray) and jnp.ndim(scale) == 0:
        return scale
    raise ValueError(f"scale must be 'xavier', 'kaiming' or a number; got {scale!r}.")


def _plus(s: jax.Array, b: jax.Array | None) -> jax.Array:
    if b is None:
        return s
    if jnp.shape(b) != s.shape[-1:]:
        raise ValueError(
            f"b must have one number for each unit, shape {s.shape[-1:]}; got "
            f"{jnp.shape(b)}."
        )
    return s + jnp.expand_dims(b, tuple(range(s.ndim - 1)))
