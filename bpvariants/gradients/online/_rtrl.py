"""Real-time recurrent learning (RTRL): exact gradients, computed forwards in time.

Notation, for one example: h_t is the carry as a vector [n], θ the parameters as a
vector [p], ℓ_t the loss of step t. With J_t = ∂h_t/∂h_{t−1} and I_t = ∂h_t/∂θ, the
influence M_t = dh_t/dθ, [n, p], is computed forwards in time:

    M_t = J_t M_{t−1} + I_t.

With M_t, the gradient of a loss is available as soon as the loss is known. Here c_t =
∂ℓ_t/∂h_t and r_t = ∂ℓ_t/∂θ are derivatives of the part of the step that computes the
loss from h_t. If this part also reads h_{t−1}, b_t = ∂ℓ_t/∂h_{t−1}, otherwise b_t = 0:

    dℓ_t/dθ = c_t M_t + b_t M_{t−1} + r_t.

The jaxpr of the step shows which entries of the influence are always zero. These
entries are neither stored nor computed. For parameters of a readout, nothing is stored.
In a stack of cells, the influence of a layer's parameters on the carries of lower
layers is not stored. In an element-wise recurrence, only the influence of each
parameter on its own unit is stored.
"""

from bpvariants.gradients.online._influence.rule import influence_rule
from bpvariants.types import Loss, OnlineRule, Step


def rtrl(step: Step, loss: Loss) -> OnlineRule:
    """Real-time recurrent learning: BPTT's gradient without going back in time.

    The gradient is exact as long as params do not change. If params change at every
    step, the influence M_t = dh_t/dθ contains terms computed with older params.

    For B examples of a dense cell with n carry elements and p parameters, memory is
    B·n·p for any sequence length. Each update takes B·n²·p multiplications for the
    product J_t M_{t−1} of the step's Jacobian J_t = ∂h_t/∂h_{t−1} and the influence
    M_{t−1}. The backward passes through a step, n for J_t and one for ∂h_t/∂θ, cost
    little in comparison. Only entries of the influence that can be nonzero are stored
    and computed. p counts only arrays that the carry depends on, so a readout needs no
    memory for the influence.

    `step` gets one example at a time, as a batch of one. If the step draws random
    arrays with the shape of the batch, such as for dropout, these arrays are therefore
    equal for all examples. If the step needs an array with batch axes, pass the array
    in x. If the carry before the first step depends on params (a learned h_0), this
    carry is treated as a constant.

    Args:
      step: one time step of the network.
      loss: one loss for each example.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`InfluenceState`.

    Raises:
      ValueError: in `init`, if params are not real floating arrays or carry is complex;
        in `update`, if the step's jaxpr needs other entries of the influence M than the
        jaxpr traced in `init`. In `init` and in `update`, if shapes or dtypes of the
        arguments disagree, or if the step has no forward-mode derivative
        (jax.custom_vjp).

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
