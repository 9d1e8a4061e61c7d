"""Eligibility propagation (e-prop): RTRL's influence without the paths between units.

Notation: z_t is the visible part of the carry, through which units affect each other
(spikes, or the result of an output gate). v_t is the internal part, the rest of the
carry. θ are the parameters, and ℓ_t is the loss of step t.

    ε_t = ∂v_t/∂v_{t−1} ε_{t−1} + ∂v_t/∂θ        eligibility vectors, z_{t−1} constant
    e_t = ∂z_t/∂v_t ε_t + ∂z_t/∂θ                eligibility traces
    g_t = S_t e_t                                gradient; S_t is the learning signal

If S_t = dE/dz_t, where E is the loss of the whole sequence, then Σ_t g_t = dE/dθ. But
at step t only ∂ℓ_t/∂z_t is known, so by default e-prop uses S_t = ∂ℓ_t/∂z_t.
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
    """E-prop: real-time recurrent learning without paths through the visible state.

        ε_t = ∂v_t/∂v_{t−1} ε_{t−1} + ∂v_t/∂θ,    e_t = ∂z_t/∂v_t ε_t + ∂z_t/∂θ
        g_t = ∂ℓ_t/∂θ + S_t e_t,    S_t = ∂ℓ_t/∂z_t

    Here v is the internal and z the visible part of the carry, ε an eligibility vector
    and e an eligibility trace. g is the gradient, ℓ the loss and S the learning signal.
    The derivatives in ε and e treat z_{t−1} as a constant. ∂ℓ_t/∂θ is the derivative
    through the readout, at fixed v_t and z_t. The rule is exact if the step does not
    use z_{t−1}. The rule is also exact if the given signal is S_t = dE/dz_t, where E is
    the loss of the whole sequence. In all other cases, the rule is biased. If the loss
    also depends on v_t, v_{t−1} or z_{t−1} directly, g_t includes these derivatives.

    If the new carry depends on no internal part of the old carry, there are no traces
    of earlier steps. Examples are a carry that is all visible, and cells without an
    internal part, such as `cells.tanh` and `cells.gru`. With symmetric feedback the
    rule is then :func:`truncated_bptt` with every=1, lookback=1. If there are no traces
    and no `signal` is given, `init` gives a warning.

    With feedback weights B, the learning signal is S_t = ∂ℓ_t/∂y_t B, where ℓ_t is the
    loss. S_t replaces all derivatives of the loss in the visible part: the derivative
    through the readout, and the derivative of an output that depends directly on the
    old visible part.

    With a `signal`, the learning signal is S_t = signal(y_t, target_t). If the signal
    depends on more than y_t, put the additional values into the target. S_t replaces
    the derivative ∂ℓ_t/∂z_t of one example's loss in the visible part z_t. S_t is then
    multiplied by w / Σ w, where w is the weight of this loss. If all losses of a
    sequence have equal weights, S_t / (T·B) therefore replaces the derivative of their
    mean, for T steps and B examples. The signal of a loss with weight 0 does not count.

    A unit may remember its own spikes, for example in an adaptive threshold. The
    eligibility vector ε includes the effect of these spikes only if the step does not
    read the spikes from the visible part z_{t−1}. Instead, the step must compute the
    spikes again from the internal part v_{t−1}. Define the derivative of a spike by
    `jax.custom_jvp`.

    For B examples, memory is B·p times the number of elements of the internal part v
    that one parameter can influence at constant z_{t−1}. In an LSTM, this number is 1.
    p is the number of parameters, without the parameters of the readout. If the loss
    depends on v_{t−1} or z_{t−1} directly, traces of z are stored too. An update takes
    the time of a few backward passes through the step. If elements of the internal part
    affect each other, memory and time grow, at most to the memory and time of
    :func:`rtrl`. The docstring of :func:`rtrl` lists further limits of online rules.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      visible: function that returns the visible part of a carry: whole, unchanged
        leaves of the carry, each only once. For the carry (c, h) of an LSTM, use
        `lambda carry: carry[1]`. The function must not compute with the leaves, because
        it gets placeholders instead of arrays.
      feedback: "symmetric"; or weights B that :func:`random_feedback` returns for the
        visible part; or an :class:`AdaptiveFeedback`.
      signal: None, or a function (y, target) -> S_t, with leaves [*batch, ...] like the
        visible part. For targets (label, S), the signal is `lambda y, target:
        target[1]`, and the loss compares y with target[0].

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`TraceState`.

    Raises:
      ValueError: if feedback is invalid, or given together with a signal. In `init` and
        `update`, if visible, feedback or signal do not fit the network, and in the
        cases in which :func:`rtrl` raises one.

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
    if not callable(visible):
        raise ValueError(
            "visible must be a function from the carry to its visible part, such as "
            f"`lambda carry: carry[1]`; got {visible!r}."
        )
    return trace_rule("eprop", step, loss, Paths(visible), feedback, signal)
