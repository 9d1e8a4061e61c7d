"""Schedule for ARTBP whose segments between random cuts have heavy-tailed lengths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers
from bpvariants._dtypes import is_floating
from bpvariants._settings import check_scalar


def growing_truncation(
    mean_length: float, alpha: float
) -> Callable[[jax.Array], jax.Array]:
    """Return a schedule for :func:`artbp` that allows long segments between cuts.

        κ(age) = α / ((α − 2) ℓ₀ + age)

    κ is the probability of a cut after a step, α is `alpha`, and ℓ₀ is `mean_length`.
    The age of a step is the number of steps since the previous cut. Because κ falls
    with age, the probability that a segment between two cuts lasts more than l steps is
    proportional to l^−α for large l. With constant κ this probability would fall
    exponentially. For large ℓ₀, the mean age of all steps of a long sequence is ℓ₀, and
    the mean length of a segment is (α − 2) / (α − 1) · ℓ₀. (These means are
    approximations, because an integral replaces a sum. Whether the paper on ARTBP uses
    this schedule was not verified.)

    Args:
      mean_length: ℓ₀, the mean age of a sequence's steps. ℓ₀ must be greater than (α −
        1) / (α − 2), so that the probability of a cut after the first step is below 1.
      alpha: exponent α > 2 of the probability l^−α that a segment lasts more than l
        steps. For α ≤ 2 the mean age would be infinite.

    Returns:
      The schedule, a function age -> κ.

    Raises:
      ValueError: if mean_length or alpha is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> gradients.growing_truncation(16, 4.0)(jnp.array([8, 48])).tolist()
      [0.10000000149011612, 0.05000000074505806]
    """
    check_scalar("mean_length", mean_length)
    check_scalar("alpha", alpha)
    if are_numbers(alpha) and not alpha > 2:
        raise ValueError(
            f"alpha must be greater than 2, got {alpha}: the mean age of a segment is "
            "infinite otherwise."
        )
    if are_numbers(mean_length, alpha) and not (alpha - 2) * mean_length > alpha - 1:
        raise ValueError(
            "mean_length must be greater than (alpha - 1) / (alpha - 2) = "
            f"{(alpha - 1) / (alpha - 2):g}, got {mean_length}: otherwise a cut is "
            "certain after the first step, and the estimate is biased."
        )

    def schedule(age):
        age = jnp.asarray(age)
        dtype = age.dtype if is_floating(age) else jnp.result_type(float)
        a, length, age = (jnp.asarray(n, dtype) for n in (alpha, mean_length, age))
        return a / ((a - 2) * length + age)

    return schedule
