"""Discounted least squares: the gradient of all past errors, from two running sums.

Example k has inputs x_k and a target y_k. Let E_k(w) = ½ (y_k − x_kᵀ w)² be the squared
error of a linear model with weights w on this example. Let Φ_n(w) = Σ_k λ^k E_{n−k}(w)
be the sum of past errors, discounted by a forgetting factor λ. The gradient of Φ_n
follows from two running sums R_n and p_n, so past examples need not be stored. (In
contrast, :func:`~bpvariants.updates.replay` stores examples.) The equations are

    R_n = λ R_{n−1} + x_n x_nᵀ,  p_n = λ p_{n−1} + x_n y_n,  R_0 = 0, p_0 = 0,
    ∇Φ_n(w) = Σ_k λ^k ∇E_{n−k}(w) = R_n w − p_n.

The sums R_n and p_n include all past examples; no old examples are dropped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_floating, check_real
from bpvariants._dtypes import cast_like
from bpvariants.updates._params import as_grads, check_number, check_state, wide


class LeastSquaresState(NamedTuple):
    """State of :func:`discounted_least_squares`: two sums, in float32 or wider."""

    moments: jax.Array  # [d, d]: discounted sum R of x xᵀ over examples
    correlations: jax.Array  # discounted sum p of x y, in the shape of w


class DiscountedLeastSquares(NamedTuple):
    """Result of :func:`discounted_least_squares`: init, push and gradient."""

    init: Callable[[jax.Array], LeastSquaresState]
    push: Callable[[LeastSquaresState, jax.Array, jax.Array], LeastSquaresState]
    gradient: Callable[[jax.Array, LeastSquaresState], jax.Array]


def discounted_least_squares(decay: float | jax.Array) -> DiscountedLeastSquares:
    """Compute the gradient of the discounted sum of a linear model's squared errors.

        state = rule.init(w)
        state = rule.push(state, x, y)
        gradient = rule.gradient(w, state)  # R w − p

    The gradient is taken at the current weights w. :func:`replay` gives the same
    gradient with the loss ½ (y − xᵀ w)² and an infinite horizon. Let λ be the
    forgetting factor. The state stores the sums R = Σ_k λ^k x_{n−k} x_{n−k}ᵀ and p =
    Σ_k λ^k x_{n−k} y_{n−k} over all examples so far. Let ρ be the largest eigenvalue of
    R. Gradient descent with learning rate η, whose steps are −η (R w − p), is stable if
    η < 2 / ρ. This eigenvalue ρ is about 1/(1−λ) times the largest eigenvalue of the
    mean of x xᵀ.

    After an example with NaN or infinity, the sums R and p are never finite again. For
    d inputs and k outputs, the state has d² + d·k elements, and `push` and `gradient`
    take time O(d² + d·k).

    Args:
      decay: forgetting factor 0 ≤ λ ≤ 1; with λ = 1, all examples count equally.

    Returns:
      A :class:`DiscountedLeastSquares`. In its functions, `w` has shape [d] or
      [d, *outputs], `x` has shape [d], and `y` has shape [] or [*outputs].

    Raises:
      ValueError: if decay is out of its range; in `init`, if w is not a real floating
        array with an axis of inputs; in `push`, if the shapes of x, y and the state
        disagree.

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
    """Check that x has shape [d] and y has shape [*outputs], for w [d, *outputs]."""
    for name, value, shape in (("x", x, w.shape[:1]), ("y", y, w.shape[1:])):
        if jnp.shape(value) != shape:
            raise ValueError(
                f"{name} must be of shape {shape}, as w is of shape {w.shape}; got "
                f"{jnp.shape(value)}. Examples are given one at a time."
            )
        check_real(name, value)
