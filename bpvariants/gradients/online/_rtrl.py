"""Real-time recurrent learning: the exact gradient, contracted forwards.

Notation, for one example: h_t is the carry as a vector [n], θ the parameters as a
vector [p], ℓ_t the loss of step t. With J_t = ∂h_t/∂h_{t−1} and I_t = ∂h_t/∂θ, the
influence M_t = dh_t/dθ, [n, p], follows

    M_t = J_t M_{t−1} + I_t,

and with it the gradient of a loss is known as soon as the loss is:

    dℓ_t/dθ = ∂ℓ_t/∂h_{t−1} M_{t−1} + ∂ℓ_t/∂θ.

What cannot be other than zero is neither kept nor computed: the program of the step
tells. A readout has no rows of M; in a stack of cells, a layer has none below it; in an
element-wise recurrence a parameter has that of its own unit alone.
"""

from bpvariants.gradients.online._influence.rule import influence_rule
from bpvariants.types import Loss, OnlineRule, Step


def rtrl(step: Step, loss: Loss) -> OnlineRule:
    """Real-time recurrent learning, BPTT's gradient without going back in time.

    Exact while params stay the same; if they change at every step, M_t keeps terms
    taken at older ones. For B examples of a dense cell, memory is B·n·p whatever T is,
    and a step takes B·n²·p multiplications in J M, beside which n backward passes for
    J and one for I are little. Only entries of M that can be nonzero are kept and
    computed, and p counts only arrays that the carry depends on: readouts cost nothing.

    The network sees one example at a time, as a batch of one. So what the step draws at
    random in the shape of its batch, such as dropout, is the same for all examples, and
    an array with batch axes must come in with x. A carry that depends on params before
    the first step (a learned h_0) is taken as a constant.

    Args:
      step: one time step of the network.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`InfluenceState`,
      float32 or wider.

    Raises:
      ValueError: in `init`, if params or carry are not real floating arrays; when
        `update` is called, if shapes or dtypes disagree, if the step has no forward
        derivative (jax.custom_vjp), or if its program needs entries of M that the
        inputs of `init` did not show.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> rule = gradients.rtrl(integrate, lambda y, target: (y - target) ** 2)
      >>> state = rule.init(2.0, jnp.array(0.0), (1.0, 0.0))
      >>> for x, target in [(1.0, 0.0), (1.0, 0.0)]:
      ...     value, grad, state = rule.update(2.0, state, x, target)
      >>> value.item(), state.influence[0].item(), grad.item()  # (2w)², 2, 8w
      (16.0, 2.0, 16.0)

    References:
      Williams & Zipser, "A learning algorithm for continually running fully recurrent
      neural networks", Neural Computation 1(2), 1989, doi:10.1162/neco.1989.1.2.270.
    """
    return influence_rule("rtrl", step, loss, order=None)
