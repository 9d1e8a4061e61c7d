"""Random feedback local online learning: each unit remembers by itself.

Notation: h_t the carry, θ the parameters, ℓ_t the loss of step t. In the cell of the
paper, h_t = (1 − α) h_{t−1} + α φ(u_t) with u_t = W h_{t−1} + U x_t, each weight has a
trace, which decays as its unit does:

    P_t = (1 − α) P_{t−1} + α φ′(u_t) ⊗ (h_{t−1}, x_t),    g_t = c_t P_t

with a learning signal c_t in the place of ∂ℓ_t/∂h_t. In general 1 − α is the part of
∂h_t/∂h_{t−1} whose paths mix no numbers, and α φ′ ⊗ (h, x) is ∂h_t/∂θ.
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
    """Real-time recurrent learning without the paths through recurrent weights.

        P_t = J̃_t P_{t−1} + ∂h_t/∂θ,    g_t = ∂ℓ_t/∂θ + c_t P_t,    c_t = ∂ℓ_t/∂h_t,

    where J̃_t has those paths of ∂h_t/∂h_{t−1} alone that go number by number, through
    a leak or a gate, and none through products of matrices, sums along an axis, or what
    may mix numbers unseen: branches, loops and references within the step. The
    derivative ∂ℓ_t/∂θ is that of the readout, at fixed h_t. So it is exact where no two
    numbers of the carry mix, and at T = 1; elsewhere biased.

    With feedback weights B, c_t = ∂ℓ_t/∂y_t B: then no derivative goes back through the
    readout, and what the output takes from h_{t−1} directly sends nothing.

    Memory for B examples of a leaky or gated cell is B·p times the numbers of the carry
    that a parameter enters and the next step takes over (1 in an LSTM, that of c),
    where p counts no readout; a step takes a few of its backward passes. The network
    sees one example at a time, as in :func:`rtrl`, which also tells what else online
    rules do not see.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      feedback: "symmetric", or weights B as :func:`random_feedback` draws them, or an
        :class:`AdaptiveFeedback`.
      signal: None, or (y, target) -> c_t, like the carry, to put in the place of
        ∂ℓ_t/∂h_t of each example's own loss, as for :func:`eprop`.

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`TraceState`.

    Raises:
      ValueError: if feedback is none, or given with a signal; in `init` and `update`,
        as :func:`rtrl`, and if feedback or signal do not fit the network.

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
