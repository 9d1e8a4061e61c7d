"""Eligibility propagation (e-prop): traces without the paths between units.

Notation: v_t the internal part of the carry, z_t the visible one, which units see of
each other (spikes, an output gate's result), θ the parameters, ℓ_t the loss of step t.

    ε_t = ∂v_t/∂v_{t−1} ε_{t−1} + ∂v_t/∂θ        eligibility vectors, z_{t−1} fixed
    e_t = ∂z_t/∂v_t ε_t + ∂z_t/∂θ                eligibility traces
    g_t = S_t e_t                                S_t the learning signal

With S_t = dE/dz_t, of the loss E of the whole sequence, Σ_t g_t = dE/dθ; what is known
at step t is ∂ℓ_t/∂z_t.
"""

from collections.abc import Callable

from bpvariants.gradients._feedback import Feedback
from bpvariants.gradients.online._influence.traces import Paths, Signal, trace_rule
from bpvariants.types import Loss, OnlineRule, PyTree, Step


def eprop(
    step: Step,
    loss: Loss,
    *,
    visible: Callable[[PyTree], PyTree],
    feedback: Feedback = "symmetric",
    signal: Signal | None = None,
) -> OnlineRule:
    """E-prop: real-time recurrent learning without the paths through visible state.

        ε_t = ∂v_t/∂v_{t−1} ε_{t−1} + ∂v_t/∂θ,    e_t = ∂z_t/∂v_t ε_t + ∂z_t/∂θ
        g_t = ∂ℓ_t/∂θ + S_t e_t,    S_t = ∂ℓ_t/∂z_t

    where v is the internal and z the visible part of the carry, z_{t−1} counts as
    fixed, and ∂ℓ_t/∂θ is that of the readout, at fixed v_t and z_t. Exact if nothing
    reads z_{t−1}, or if S_t = dE/dz_t is given, the derivative of the whole sequence's
    loss; elsewhere biased. What the loss takes from v_t, v_{t−1} or z_{t−1} directly is
    also in g_t.

    With feedback weights B, S_t = ∂ℓ_t/∂y_t B: then no derivative in the visible part
    goes back through the readout, nor from an output that takes z_{t−1} directly.

    With a `signal`, S_t = signal(y_t, target_t), and what does not follow from y_t is
    part of the target. S_t takes the place of the derivative ∂ℓ_t/∂z_t of one example's
    own loss, and is weighted as this is, by w / Σ w. So if all losses of a sequence
    count alike, the derivative of their mean is S_t / (T·B) for B examples; and where a
    loss does not count, neither does the signal.

    What a unit remembers through its own spikes, such as an adapting threshold, is in
    ε if the step computes these spikes again from v_{t−1}, rather than read z_{t−1}. A
    spike needs a derivative, by `jax.custom_jvp`.

    Memory for B examples is B·p times the numbers of v that a parameter can influence
    with z_{t−1} fixed (1 in an LSTM), where p counts no readout; a step takes a few of
    its backward passes. (If the loss takes something from v_{t−1} or z_{t−1} directly,
    those of z are kept too.) If the internal part mixes its numbers, traces and
    time grow to those of :func:`rtrl`, which also tells what online rules do not see.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      visible: from a carry to its visible part, whole leaves of it as they are: of an
        LSTM's (c, h) `lambda carry: carry[1]`.
      feedback: "symmetric", or weights B as :func:`random_feedback` draws them for the
        visible part, or an :class:`AdaptiveFeedback`.
      signal: None, or (y, target) -> S_t, leaves [*batch, ...] like the visible part:
        with targets (label, S) it is `lambda y, target: target[1]`, and the loss that
        of target[0].

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`TraceState`.

    Raises:
      ValueError: if feedback is none, or given with a signal; in `init` and `update`,
        as :func:`rtrl`, and if visible, feedback or signal do not fit the network.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import cells, gradients
      >>> params = cells.lstm.init(jax.random.key(0), 2, 3)
      >>> loss = lambda y, target: jnp.sum((y - target) ** 2, axis=-1)
      >>> rule = gradients.eprop(cells.lstm, loss, visible=lambda carry: carry[1])
      >>> x, target = jnp.ones(2), jnp.ones(3)
      >>> state = rule.init(params, cells.lstm.carry(params), (x, target))
      >>> value, grads, state = rule.update(params, state, x, target)

    References:
      Bellec et al., "A solution to the learning dilemma for recurrent networks of
      spiking neurons", Nature Communications 11, 2020,
      doi:10.1038/s41467-020-17236-y.
    """
    return trace_rule("eprop", step, loss, Paths(visible), feedback, signal)
