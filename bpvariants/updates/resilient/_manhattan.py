"""The Manhattan rule: steps of constant length, opposite to the gradient's sign.

    θ_{t+1} = θ_t − η sign(g_t),        sign(0) = 0.

The tutorial "4 Types of Backpropagation" (OpenGenus) prints this equation for what it
calls resilient backpropagation:

    Δw(t) = −sign(g(t)) · Δw(t−1),

where Δw(t−1) is the last step of a weight w. In this file, the length of the steps is a
constant η instead of Δw(t−1). Taken literally, the equation does not minimise a loss.
If the gradient g is always positive and the first step has length d, the steps are −d,
+d, −d and so on. If |Δw(t−1)| took the place of Δw(t−1), a weight whose gradient is
once 0 would never move again.
"""

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import are_numbers
from bpvariants.updates._foreign_names import refuses
from bpvariants.updates._params import (
    as_grads,
    chain,
    check_number,
    check_signed,
    check_state,
)


@refuses(lr="learning_rate")
def manhattan(
    learning_rate: float | jax.Array | optax.Schedule,
) -> optax.GradientTransformation:
    """Take steps of constant length η, opposite to the sign of each gradient.

        θ_{t+1} = θ_t − η sign(g_t).

    Here g_t is the gradient. The Manhattan rule is also known as signSGD. The Manhattan
    rule equals Rprop⁻ with step sizes that never change. With a constant length η,
    parameters approach a minimum only up to a distance of about η. Where the gradient
    is NaN, the update is NaN, but later updates are not affected, because the state is
    only the number of steps taken. An update of p parameters takes time O(p).

    Args:
      learning_rate: length η of the steps, in the units of the params, or a schedule of
        η.

    Returns:
      An optax.GradientTransformation.

    Raises:
      ValueError: if learning_rate is negative; in `init`, if params are not real
        floating arrays; in `update`, if gradients are not real, or have other shapes
        than params.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> optimizer = updates.manhattan(0.5)
      >>> params = jnp.array([1.0, -2.0])
      >>> optimizer.update(2 * params, optimizer.init(params))[0].tolist()
      [-0.5, 0.5]

    References:
      "4 Types of Backpropagation", OpenGenus.
      Bernstein et al., "signSGD: compressed optimisation for non-convex problems",
      ICML 2018, doi:10.48550/arXiv.1802.04434.
    """
    if not callable(learning_rate):
        check_number("learning_rate", learning_rate)
        if are_numbers(learning_rate) and not learning_rate >= 0:
            raise ValueError(
                f"manhattan needs learning_rate >= 0, got {learning_rate}; pass the "
                "length of the steps, which are taken against the gradient."
            )
        # Make the number a schedule, because optax casts a schedule's value to the
        # dtype of each array of updates, but does not cast a traced number.
        learning_rate = optax.constant_schedule(learning_rate)
    rate = optax.scale_by_learning_rate(learning_rate)
    return chain("manhattan", scale_by_sign(), rate)


def scale_by_sign() -> optax.GradientTransformation:
    """Replace each gradient by its sign; :func:`manhattan` multiplies the sign by −η.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import updates
      >>> rule = updates.scale_by_sign()
      >>> rule.update(jnp.array(-7.0), rule.init(jnp.array(0.0)))[0].item()
      -1.0
    """

    def init(params):
        check_signed(params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        check_state("scale_by_sign", state, optax.EmptyState)
        updates = as_grads(updates, updates if params is None else params)
        check_signed(updates, "grads")
        return jax.tree.map(jnp.sign, updates), state

    return optax.GradientTransformation(init, update)
