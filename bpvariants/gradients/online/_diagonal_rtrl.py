"""Real-time recurrent learning (RTRL) of element-wise recurrences, with little memory.

Let h_t be the carry and θ the parameters. If each unit of the carry depends only on its
own past, ∂h_t/∂h_{t−1} is diagonal. If the units are complex, ∂h_t/∂h_{t−1} has small
blocks, one for the real and imaginary part of each unit. Each parameter usually enters
one unit, and then influences only this unit. The influence e_t = dh_t/dθ of a parameter
on its unit is

    e_t = (∂h_t/∂h_{t−1}) e_{t−1} + ∂h_t/∂θ,    element by element.
"""

from bpvariants.gradients.online._influence.rule import influence_rule
from bpvariants.types import Loss, OnlineRule, Step


def diagonal_rtrl(step: Step, loss: Loss) -> OnlineRule:
    """Exact RTRL of an element-wise recurrence, with little memory.

    For B examples, memory is B·p for any sequence length, where p is the number of
    params that the carry depends on. An update takes the time of a few steps of the
    network. `cells.lru` (with a pair of real arrays as its carry), `cells.min_gru` and
    `cells.rtu` are element-wise recurrences. The rule is :func:`rtrl` with a check that
    raises an error if units of the carry affect each other.

    Args:
      step: one time step of a network, element-wise in its carry.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`InfluenceState`.

    Raises:
      ValueError: in `init` and `update`, if the step's jaxpr lets a parameter influence
        over several steps a unit that the parameter does not influence within one step.
        Also in the cases in which :func:`rtrl` raises one.

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
    if not plan.is_exact:
        raise ValueError(
            "step must be element-wise in its carry, so that each parameter influences "
            "only the units that it enters, but its program mixes units. Use "
            "gradients.rtrl, which is exact, or gradients.snap(step, loss, order=1), "
            "which drops the influence on other units."
        )
