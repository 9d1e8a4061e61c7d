"""Random feedback local online learning (RFLO): one decaying trace for each weight.

Notation: h_t is the carry, x_t the input, θ the parameters, ℓ_t the loss of step t. The
cell of the RFLO paper is h_t = (1 − α) h_{t−1} + α φ(u_t) with u_t = W h_{t−1} + U x_t.
Each weight has a trace P, which is multiplied by 1 − α at each step, like the carry of
its unit. The learning signal c_t is ∂ℓ_t/∂h_t or a substitute. The gradient is g_t:

    P_t = (1 − α) P_{t−1} + α φ′(u_t) ⊗ (h_{t−1}, x_t),    g_t = c_t P_t

For other cells, ∂h_t/∂θ takes the place of the term α φ′(u_t) ⊗ (h_{t−1}, x_t). The
part of ∂h_t/∂h_{t−1} with only element-wise paths takes the place of the factor 1 − α.
"""

from bpvariants.gradients._feedback import Feedback
from bpvariants.gradients.online._influence.traces import Paths, Signal, trace_rule
from bpvariants.types import Loss, OnlineRule, Step


def rflo(
    step: Step,
    loss: Loss,
    *,
    feedback: Feedback = "symmetric",
    signal: Signal | None = None,
) -> OnlineRule:
    """RFLO: real-time recurrent learning without paths through recurrent weights.

        P_t = J̃_t P_{t−1} + ∂h_t/∂θ,    g_t = ∂ℓ_t/∂θ + c_t P_t,    c_t = ∂ℓ_t/∂h_t

    P_t are the traces, g_t the gradient at step t, c_t the learning signal, and J̃_t a
    part of the Jacobian ∂h_t/∂h_{t−1}. J̃_t includes only element-wise paths, such as
    through a leak or a gate. J̃_t excludes paths through matrix products, through sums
    along an axis, and through other operations that may combine different elements:
    branches, loops and refs (mutable arrays) within the step. ∂ℓ_t/∂θ is the derivative
    of the loss through the readout, at fixed carry h_t.

    The rule is exact for sequences of one step, and if the elements of the carry do not
    affect each other. In all other cases, the rule is biased. In a cell without a leak
    or a gate, such as `cells.tanh`, J̃_t is 0. With symmetric feedback the rule is then
    :func:`truncated_bptt` with every=1, lookback=1.

    With feedback weights B, the learning signal is c_t = ∂ℓ_t/∂y_t B. This signal
    replaces the derivatives of the loss ℓ_t through the readout. If the output depends
    on h_{t−1} directly, the gradient ignores this dependence too.

    Consider the carry elements that one parameter enters and that the next step reads
    element-wise. For B examples of a leaky or gated cell, memory is B·p times the
    number of these elements. In an LSTM, this number is 1, for an element of c, because
    only matrix products read h. p is the number of parameters, without the parameters
    of the readout. An update takes the time of a few backward passes through the step.
    `step` gets one example at a time, as in :func:`rtrl`, whose docstring lists further
    limits of online rules.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      feedback: "symmetric"; or weights B that :func:`random_feedback` returns; or an
        :class:`AdaptiveFeedback`.
      signal: None, or a function (y, target) -> c_t, with leaves like the carry. c_t
        replaces ∂ℓ_t/∂h_t of each example's loss, as in :func:`eprop`.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`TraceState`.

    Raises:
      ValueError: if feedback is invalid, or given together with a signal. In `init` and
        `update`, if feedback or signal do not fit the network, and in the cases in
        which :func:`rtrl` raises one.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.gru.init(jax.random.key(0), 2, 3)
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
      >>> h = jnp.zeros(3)
      >>> B = gradients.random_feedback(jax.random.key(1), h, h)
      >>> rule = gradients.rflo(cells.gru, loss, feedback=B)
      >>> x, target = jnp.ones(2), jnp.ones(3)
      >>> state = rule.init(params, h, (x, target))
      >>> value, grads, state = rule.update(params, state, x, target)

    References:
      Murray, "Local online learning in recurrent networks with random feedback", eLife
      8, 2019, doi:10.7554/eLife.43299.
      Marschall, Cho & Savin, "A unified framework of online learning algorithms for
      training recurrent neural networks", JMLR 21(135), 2020, arXiv:1907.02649.
    """
    return trace_rule("rflo", step, loss, Paths(direct_only=True), feedback, signal)
