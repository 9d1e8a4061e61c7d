"""Forgetting factor within one sequence: late losses count more than early ones.

Let ℓ_t be the losses of a sequence at fixed params, 0 ≤ λ ≤ 1 the forgetting factor and
η a learning rate. The two forms of the total loss E are

    scaled   E = Σ_{t=1..T} λ^{T−t} ℓ_t,
    printed  E = η ℓ_T + Σ_{t<T} λ^{T−t} ℓ_t.

The tutorial "4 Types of Backpropagation" prints an equation with the second form.
`bpvariants.updates.forgetting` applies this equation to the gradients of past updates;
here it is applied to the losses of one sequence. To use either form of E, pass the
factors of the losses as the `weights` of a gradient rule.
"""

import jax
import jax.numpy as jnp

from bpvariants._checks import are_numbers, check_count, check_real
from bpvariants._dtypes import widen
from bpvariants._settings import check_scalar


def discounted_weights(
    num_steps: int,
    decay: float | jax.Array,
    *,
    learning_rate: float | jax.Array | None = None,
) -> jax.Array:
    """Return weights λ^{T−t}, [T], that make a gradient rule forget early losses.

    λ is the forgetting factor `decay`, T the number of time steps, and ℓ_t the loss of
    step t. A gradient rule divides by the sum of the weights. Its value is therefore a
    weighted mean of the losses, whose scale does not depend on λ. To get the value and
    the gradient of the sum Σ_t λ^{T−t} ℓ_t, multiply the rule's results by w.sum(),
    where w = discounted_weights(T, λ).

    With a batch of B examples, a rule's weights must be [T, B]; use
    `jnp.broadcast_to(w[:, None], (T, B))`. The rule then divides by the sum of the
    weights over the batch too. To get the sum of the losses of all examples, multiply
    the rule's results by B·w.sum(), where w [T] are the weights of one example.

    Args:
      num_steps: T, the length of the sequence.
      decay: λ, within 0 ≤ λ ≤ 1. With λ = 0 only the last loss counts; with λ = 1 all
        losses count equally.
      learning_rate: η, the weight of the last loss in the equation that the tutorial
        prints. The parameter change of this equation is −w.sum()·grads, where w are the
        weights and grads the rule's gradient, without another learning rate. Default:
        1.

    Raises:
      ValueError: if num_steps is not an integer of at least 1, if decay is out of its
        range, if learning_rate is negative, or if decay or learning_rate is complex.

    Example:
      >>> from bpvariants import gradients
      >>> gradients.discounted_weights(4, 0.5).tolist()
      [0.125, 0.25, 0.5, 1.0]
      >>> gradients.discounted_weights(3, 0.5, learning_rate=2.0).tolist()
      [0.25, 0.5, 2.0]

    References:
      "4 Types of Backpropagation", OpenGenus (source of the printed form).
    """
    check_count("num_steps", num_steps, remedy="it is T, the length of the sequence")
    optional = {} if learning_rate is None else {"learning_rate": learning_rate}
    for name, setting in {"decay": decay, **optional}.items():
        if not isinstance(setting, complex):  # check_real refuses complex numbers
            check_scalar(name, setting)
        check_real(name, setting)
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
    base = widen(jnp.asarray(decay, float if are_numbers(decay) else None))
    # cumprod, unlike a power of λ, has a finite derivative at λ = 0.
    weights = jnp.cumprod(jnp.full(int(num_steps), base).at[0].set(1))[::-1]
    if learning_rate is None:
        return weights
    return weights.at[-1].set(jnp.asarray(learning_rate, weights.dtype))
