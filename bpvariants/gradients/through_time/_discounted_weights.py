"""Forgetting factor within one sequence: late losses count more than early ones.

Let ℓ_t be the losses of a sequence at fixed params, and 0 ≤ λ ≤ 1. The two forms are

    scaled   E = Σ_{t=1..T} λ^{T−t} ℓ_t,
    printed  E = η ℓ_T + Σ_{t<T} λ^{T−t} ℓ_t.

The tutorial's equation is in `bpvariants.updates.forgetting`. Here it is read as a sum
over the errors of one sequence. Any gradient rule takes both forms through `weights`.
"""

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_count, check_real
from bpvariants._dtypes import widen


def discounted_weights(
    num_steps: int,
    decay: float | jax.Array,
    *,
    learning_rate: float | jax.Array | None = None,
) -> jax.Array:
    """Return weights λ^{T−t}, [T], that make a gradient rule forget early losses.

    A rule divides by the sum of its weights, so it returns a weighted mean whose size
    does not depend on λ. Let w = discounted_weights(T, λ). To get the value and the
    gradient of the sum Σ_t λ^{T−t} ℓ_t, multiply the results by w.sum().

    With a batch of B examples, weights must be [T, B]; use
    `jnp.broadcast_to(w[:, None], (T, B))`. The rule then divides by the sum over the
    batch too, so multiply by B·w.sum() to get the sum over all examples.

    Args:
      num_steps: T.
      decay: λ, within 0 ≤ λ ≤ 1. With 0 only the last loss counts; with 1 all losses
        count equally.
      learning_rate: η, the weight of the last loss, as in the equation that the
        tutorial prints. The step of that equation is then −w.sum()·grads, without
        another learning rate. Default: 1.

    Raises:
      ValueError: if num_steps is not an integer of at least 1, decay is out of its
        range, learning_rate is negative, or one of them is complex.

    Example:
      >>> from bpvariants import gradients
      >>> gradients.discounted_weights(4, 0.5).tolist()
      [0.125, 0.25, 0.5, 1.0]
      >>> gradients.discounted_weights(3, 0.5, learning_rate=2.0).tolist()
      [0.25, 0.5, 2.0]

    References:
      "4 Types of Backpropagation", OpenGenus (the printed form).
    """
    check_count("num_steps", num_steps, remedy="it is T, the length of the sequence")
    if are_numbers(decay) and not 0 <= decay <= 1:
        raise ValueError(
            f"discounted_weights needs 0 <= decay <= 1, got {decay}; a loss k steps "
            "before the last one has the weight decay**k."
        )
    if are_numbers(learning_rate) and not learning_rate >= 0:  # pyright: ignore
        raise ValueError(
            f"discounted_weights needs learning_rate >= 0, got {learning_rate}; to "
            "ascend, negate the loss."
        )
    check_real("decay", decay)
    check_real("learning_rate", learning_rate)
    base = widen(jnp.asarray(decay, float if are_numbers(decay) else None))
    # Products, not powers, so that the derivative exists at λ = 0.
    weights = jnp.cumprod(jnp.full(int(num_steps), base).at[0].set(1))[::-1]
    if learning_rate is None:
        return weights
    return weights.at[-1].set(jnp.asarray(learning_rate, weights.dtype))
