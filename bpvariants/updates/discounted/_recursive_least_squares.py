"""Recursive least squares: weights that minimise the sum of discounted past errors.

A linear model with weights w has the squared error ½ (y_k − x_kᵀ w)² on example k, with
inputs x_k and target y_k. In the sum of past errors, an error is multiplied by the
forgetting factor λ once for each later example. After each example, w is moved to the
minimum of the sum, by a gain K and a covariance matrix P:

    K = P x / (λ + xᵀ P x),   w ← w + K (y − xᵀ w),   P ← (P − K xᵀ P) / λ.

With the sums R_n and p_n of :func:`~bpvariants.updates.discounted_least_squares`, the
weights w_n and the covariance P_n after n examples are

    w_n = (R_n + λⁿ P_0⁻¹)⁻¹ (p_n + λⁿ P_0⁻¹ w_0),   P_n = (R_n + λⁿ P_0⁻¹)⁻¹,

so the prior mean w_0 and the prior covariance P_0 are discounted in the same way as the
data.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers
from bpvariants._dtypes import cast_like
from bpvariants.updates._params import check_number, check_state, wide
from bpvariants.updates.discounted._discounted_least_squares import (
    check_example,
    check_weights,
)


class RecursiveLeastSquaresState(NamedTuple):
    """State of :func:`recursive_least_squares`."""

    covariance: jax.Array  # [d, d]: the covariance P, in float32 or wider


class RecursiveLeastSquares(NamedTuple):
    """Result of :func:`recursive_least_squares`: the functions init and update."""

    init: Callable[[jax.Array], RecursiveLeastSquaresState]
    update: Callable[..., tuple[jax.Array, RecursiveLeastSquaresState]]


def recursive_least_squares(
    decay: float | jax.Array, *, prior: float | jax.Array = 100.0
) -> RecursiveLeastSquares:
    """Solve for a linear model's weights after each example, discounting old errors.

        state = rule.init(w)
        w, state = rule.update(w, state, x, y)

    The weights w are the exact minimum of the sum of discounted squared errors, so no
    learning rate is needed. With forgetting factor λ, w depends mainly on the last
    1/(1−λ) examples, whose inputs should vary in all directions. In a direction in
    which no input varies for n examples, the covariance P of the weights grows as λ⁻ⁿ,
    and the weights overfit the examples that follow (windup). After many examples
    without variation in some direction, P overflows to NaN and stays NaN. An example
    that is not finite also makes P NaN for ever. Values of λ from 0.97 to 0.995 are
    common.

    If the model has d inputs and k outputs, the state has d² elements, and an update
    takes time O(d² + d·k).

    Args:
      decay: forgetting factor 0 < λ ≤ 1; with λ = 1, all examples count equally.
      prior: prior variance of each weight, divided by the variance of the noise in y:
        P_0 = prior·I. The prior mean is the weights given to `init`. The larger `prior`
        is, the sooner the data outweigh the prior mean.

    Returns:
      A :class:`RecursiveLeastSquares`. In its functions, `w` has shape [d] or
      [d, *outputs], `x` has shape [d], and `y` has shape [] or [*outputs].

    Raises:
      ValueError: if decay or prior is out of its range; in `init`, if w is not a real
        floating array with an axis of inputs; in `update`, if the shapes of w, x, y and
        the state disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.recursive_least_squares(decay=0.5, prior=1.0)
      >>> w = jnp.array([0.0])
      >>> w, state = rule.update(w, rule.init(w), jnp.array([1.0]), jnp.array(3.0))
      >>> w.item()  # nearer to 3 than to the prior's 0, which counts half as much
      2.0

    References:
      Haykin, "Adaptive filter theory", 5th edition, Pearson 2014, chapter 10.
    """
    check_number("decay", decay)
    check_number("prior", prior)
    if are_numbers(decay) and not 0 < decay <= 1:
        raise ValueError(
            f"recursive_least_squares needs 0 < decay <= 1, got {decay}; with 0 "
            "only the last example would count, and many weights fit one example."
        )
    if are_numbers(prior) and not prior > 0:
        raise ValueError(
            f"prior must be positive, got {prior}; it is the variance of the weights "
            "before any example."
        )

    def init(w):
        check_weights(w)
        dtype = jnp.asarray(wide(w)).dtype
        identity = jnp.eye(len(w), dtype=dtype)
        return RecursiveLeastSquaresState(jnp.asarray(prior, dtype) * identity)

    def update(w, state, x, y):
        check_state("recursive_least_squares", state, RecursiveLeastSquaresState)
        check_weights(w)
        check_example(x, y, w)
        covariance = state.covariance
        if len(covariance) != len(w):
            raise ValueError(
                f"w must have {len(covariance)} inputs, as the w that init was given, "
                f"got shape {jnp.shape(w)}."
            )
        x, y, fade = (jnp.asarray(v, covariance.dtype) for v in (x, y, decay))
        reach = covariance @ x
        norm = fade + x @ reach
        error = y - jnp.tensordot(x, cast_like(w, covariance), axes=1)
        step = jnp.tensordot(reach / norm, error, axes=0)
        # Subtract a multiple of (P x)(P x)ᵀ, because it is exactly symmetric. Rounding
        # errors in the product K (xᵀ P) would make the covariance P asymmetric.
        covariance = (covariance - jnp.outer(reach, reach) / norm) / fade
        new = cast_like(cast_like(w, step) + step, w)
        return new, RecursiveLeastSquaresState(covariance)

    return RecursiveLeastSquares(init, update)
