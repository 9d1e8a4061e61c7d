"""Discounted least squares: all past errors of a linear model in two sums.

For the squared errors E_k(w) = ½ (y_k − x_kᵀ w)² of a linear model, the replay of past
errors with a forgetting factor λ (see :func:`~bpvariants.updates.replay`) needs no
stored batches:

    R_n = λ R_{n−1} + x_n x_nᵀ,  p_n = λ p_{n−1} + x_n y_n,  R_0 = 0, p_0 = 0,
    ∇Φ_n(w) = Σ_k λ^k ∇E_{n−k}(w) = R_n w − p_n.

The sums R_n and p_n contain all past errors, without a horizon.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_floating, check_real
from bpvariants._dtypes import cast_like
from bpvariants.updates._params import as_grads, check_number, check_state, wide


class LeastSquaresState(NamedTuple):
    """The sums of :func:`discounted_least_squares`, float32 or wider."""

    moments: jax.Array  # R [d, d]
    correlations: jax.Array  # p, like w


class DiscountedLeastSquares(NamedTuple):
    """Result of :func:`discounted_least_squares`: three pure functions."""

    init: Callable[[jax.Array], LeastSquaresState]
    push: Callable[[LeastSquaresState, jax.Array, jax.Array], LeastSquaresState]
    gradient: Callable[[jax.Array, LeastSquaresState], jax.Array]


def discounted_least_squares(decay: float | jax.Array) -> DiscountedLeastSquares:
    """Compute the gradient of the discounted past squared errors of a linear model.

        state = rule.init(w)
        state = rule.push(state, x, y)
        gradient = rule.gradient(w, state)  # R w − p

    The gradient is taken at the current weights w, and equals the gradient of
    :func:`replay` of ½ (y − xᵀ w)² without a horizon. The state has the sums
    R = Σ_k λ^k x_{n−k} x_{n−k}ᵀ and p = Σ_k λ^k x_{n−k} y_{n−k}. A step −η (R w − p)
    with learning rate η is stable if η is below 2 divided by the largest eigenvalue of
    R. The largest eigenvalue of R is about (1−λ)⁻¹ times that of the mean of x xᵀ.

    A NaN or infinity in an example stays in the sums R and p for ever. The state has
    d² + d·k elements for d inputs and k outputs; a step takes time O(d² + d·k).

    Args:
      decay: forgetting factor 0 ≤ λ ≤ 1, where 1 forgets nothing.

    Returns:
      A :class:`DiscountedLeastSquares`: `w` is [d] or [d, *outputs], `x` [d] and `y` []
      or [*outputs].

    Raises:
      ValueError: if decay is out of its range; in `init`, if w is not a real floating
        array with an axis of inputs; in `push`, if shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.discounted_least_squares(decay=0.5)
      >>> w = jnp.array([0.0, 1.0])
      >>> state = rule.push(rule.init(w), jnp.array([1.0, 1.0]), jnp.array(3.0))
      >>> state = rule.push(state, jnp.array([2.0, 0.0]), jnp.array(1.0))
      >>> rule.gradient(w, state).tolist()  # ½ (1 − 3) (1, 1) + (0 − 1) (2, 0)
      [-3.0, -1.0]
    """
    check_number("decay", decay)
    if are_numbers(decay) and not 0 <= decay <= 1:
        raise ValueError(
            f"discounted_least_squares needs 0 <= decay <= 1, got {decay}; the error "
            "of k steps ago is weighted by decay**k."
        )

    def init(w):
        check_weights(w)
        correlations = jnp.zeros_like(jnp.asarray(wide(w)))
        shape = (len(correlations), len(correlations))
        return LeastSquaresState(jnp.zeros(shape, correlations.dtype), correlations)

    def push(state, x, y):
        check_state("discounted_least_squares", state, LeastSquaresState)
        check_example(x, y, state.correlations)
        moments, correlations = state
        x, y = (jnp.asarray(value, moments.dtype) for value in (x, y))
        fade = jnp.asarray(decay, moments.dtype)
        return LeastSquaresState(
            fade * moments + jnp.outer(x, x),
            fade * correlations + jnp.tensordot(x, y, axes=0),
        )

    def gradient(w, state):
        check_state("discounted_least_squares", state, LeastSquaresState)
        w = as_grads(w, state.correlations, "w")
        wide_w = cast_like(w, state.moments)
        slope = jnp.tensordot(state.moments, wide_w, axes=1) - state.correlations
        return cast_like(slope, w)

    return DiscountedLeastSquares(init, push, gradient)


def check_weights(w: jax.Array) -> None:
    """Check that w is a real floating array [d, *outputs]."""
    if not jax.tree_util.all_leaves([w]) or jnp.ndim(w) == 0:
        raise ValueError(
            "w must be one array [d] or [d, *outputs] for d inputs, got "
            f"{jax.tree.map(jnp.shape, w)}; a bias is the weight of an input of 1."
        )
    check_floating("w", w)
    check_real("w", w)


def check_example(x: jax.Array, y: jax.Array, w: jax.Array) -> None:
    """Check that x is [d] and y [*outputs] for w [d, *outputs]."""
    for name, value, shape in (("x", x, w.shape[:1]), ("y", y, w.shape[1:])):
        if jnp.shape(value) != shape:
            raise ValueError(
                f"{name} must be of shape {shape}, as w is of shape {w.shape}; got "
                f"{jnp.shape(value)}. Examples are given one at a time."
            )
        check_real(name, value)
