"""Real-time recurrent learning of element-wise recurrences, at the cost of a step.

Where each unit of the carry depends on its own past alone, ∂h_t/∂h_{t−1} is diagonal
(or has small blocks, as for the two parts of a complex number), a parameter influences
one unit, and the influence e of each parameter on its unit follows

    e_t = (∂h_t/∂h_{t−1}) e_{t−1} + ∂h_t/∂θ,    number by number.
"""

from bpvariants.gradients.online._influence.rule import influence_rule
from bpvariants.types import Loss, OnlineRule, Step


def diagonal_rtrl(step: Step, loss: Loss) -> OnlineRule:
    """RTRL of an element-wise recurrence: exact, in the memory of its parameters.

    For B examples memory is B·p whatever T is, and a step costs as much as a few of the
    network's, where p counts arrays that the carry depends on. `cells.lru` (with a pair
    of real arrays as its carry), `cells.min_gru` and `cells.rtu` are such steps. It is
    :func:`rtrl` with a promise: a step whose units mix is refused, not approximated.

    Args:
      step: one time step of a network, element-wise in its carry.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`InfluenceState`.

    Raises:
      ValueError: when the rule meets a step in whose program a parameter can influence,
        later, what it does not at once; else as :func:`rtrl`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.min_gru.init(jax.random.key(0), 3, 8)
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
      >>> rule = gradients.over_sequence(gradients.diagonal_rtrl(cells.min_gru, loss))
      >>> args = params, jnp.zeros(8), jnp.ones((20, 3)), jnp.zeros((20, 8))
      >>> _, grads = rule(*args)
      >>> _, want = gradients.bptt(cells.min_gru, loss)(*args)
      >>> close = lambda a, b: jnp.allclose(a, b, rtol=1e-4, atol=1e-6).item()
      >>> all(jax.tree.leaves(jax.tree.map(close, grads, want)))
      True

    References:
      Zucchet et al., "Online learning of long-range dependencies", NeurIPS 2023,
      arXiv:2305.15947.
    """
    return influence_rule("diagonal_rtrl", step, loss, 1, _check_separate)


def _check_separate(plan):
    """Check that nothing is influenced later that is not at once."""
    if not plan.is_exact:
        raise ValueError(
            "step must be element-wise in its carry, so that each parameter influences "
            "the units that it feeds and no others, but its program mixes them. Use "
            "gradients.rtrl, which is exact, or gradients.snap(step, loss, order=1), "
            "which drops what is mixed."
        )
