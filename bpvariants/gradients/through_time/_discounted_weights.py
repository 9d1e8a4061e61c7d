"""Forgetting factor within one sequence: late losses count more than early ones.

With ℓ_t the losses of a sequence at fixed params and 0 ≤ λ ≤ 1,

    scaled   E = Σ_{t=1..T} λ^{T−t} ℓ_t,
    printed  E = η ℓ_T + Σ_{t<T} λ^{T−t} ℓ_t,

the tutorial's equation (see `bpvariants.updates.forgetting`) in its reading where all
past errors are those of one sequence. Both are losses of any gradient rule, by weights.
"""

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers
from bpvariants._dtypes import widen


def discounted_weights(
    num_steps: int,
    decay: float | jax.Array,
    *,
    learning_rate: float | jax.Array | None = None,
) -> jax.Array:
    """Return weights λ^{T−t}, [T], by which a gradient rule forgets early losses.

    A rule divides by the sum of its weights. So with w = discounted_weights(T, λ), the
    gradient of Σ_t λ^{T−t} ℓ_t is w.sum() times the gradient that the rule returns, and
    likewise its value; without that factor it is that of a weighted mean, whose size
    does not depend on λ. Times the batch size B if there is one: weights must be
    [T, *batch], as `jnp.broadcast_to(w[:, None], (T, B))` is, and are then divided by
    their sum over the batch too.

    Args:
      num_steps: T.
      decay: λ, within 0 ≤ λ ≤ 1; 0 leaves the last loss alone, 1 weighs all alike.
      learning_rate: η, the weight of the last loss, as in the equation that the
        tutorial prints, whose step is then the bare −w.sum()·grads; by default 1.

    Raises:
      ValueError: if num_steps is not positive, decay out of its range or learning_rate
        negative.

    Example:
      >>> from bpvariants import gradients
      >>> gradients.discounted_weights(4, 0.5).tolist()
      [0.125, 0.25, 0.5, 1.0]
      >>> gradients.discounted_weights(3, 0.5, learning_rate=2.0).tolist()
      [0.25, 0.5, 2.0]

    References:
      "4 Types of Backpropagation", OpenGenus (the printed form).
    """
    if num_steps < 1:
        raise ValueError(
            f"num_steps must be at least 1, got {num_steps}; it is T, the length of "
            "the sequence."
        )
    if are_numbers(decay) and not 0 <= decay <= 1:
        raise ValueError(
            f"discounted_weights needs 0 <= decay <= 1, got {decay}; a loss k steps "
            "before the last one is weighed by its k-th power."
        )
    if are_numbers(learning_rate) and not learning_rate >= 0:  # pyright: ignore
        raise ValueError(
            f"discounted_weights needs learning_rate >= 0, got {learning_rate}; to "
            "ascend, negate the loss."
        )
    base = widen(jnp.asarray(decay, float if are_numbers(decay) else None))
    # Unlike powers, products have a slope at λ = 0.
    weights = jnp.cumprod(jnp.full(num_steps, base).at[0].set(1))[::-1]
    if learning_rate is None:
        return weights
    return weights.at[-1].set(jnp.asarray(learning_rate, weights.dtype))
