"""Schedule of random truncations whose segments have a heavy tail."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers
from bpvariants._dtypes import is_floating


def growing_truncation(
    mean_length: float, alpha: float
) -> Callable[[jax.Array], jax.Array]:
    """A schedule for :func:`artbp` under which long segments are not rare.

        κ(age) = α / ((α − 2) ℓ₀ + age)

    The probability of a cut falls with the age of a segment, so that segments longer
    than l have a probability that falls like l^−α, not exponentially. The age at a
    random moment of a long sequence is ℓ₀ on average, where ℓ₀ is large; a segment is
    (α − 2) / (α − 1) as long. (Both by integration in place of the sum. That this is
    the schedule of the paper was not verified.)

    Args:
      mean_length: ℓ₀, in steps, greater than (α − 1) / (α − 2), so that κ(1) < 1.
      alpha: α > 2: how fast long segments become rare; below it their mean age is
        infinite.

    Returns:
      The schedule age -> κ.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> gradients.growing_truncation(16, 4.0)(jnp.array([8, 48])).tolist()
      [0.10000000149011612, 0.05000000074505806]
    """
    if are_numbers(alpha) and not alpha > 2:
        raise ValueError(
            f"alpha must be greater than 2, got {alpha}: the mean age of a segment is "
            "infinite otherwise."
        )
    if are_numbers(mean_length, alpha) and not (alpha - 2) * mean_length > alpha - 1:
        raise ValueError(
            "mean_length must be greater than (alpha - 1) / (alpha - 2) = "
            f"{(alpha - 1) / (alpha - 2):g}, got {mean_length}: a cut would be certain "
            "after the first step, and the estimate biased."
        )

    def schedule(age):
        age = jnp.asarray(age)
        dtype = age.dtype if is_floating(age) else jnp.result_type(float)
        a, length, age = (jnp.asarray(n, dtype) for n in (alpha, mean_length, age))
        return a / ((a - 2) * length + age)

    return schedule
