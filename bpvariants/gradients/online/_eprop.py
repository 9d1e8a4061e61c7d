"""Eligibility propagation (e-prop): traces without the paths between units.

Notation: v_t is the internal part of the carry. z_t is its visible part, through which
units affect each other (spikes, or the result of an output gate). θ are the parameters,
ℓ_t is the loss of step t.

    ε_t = ∂v_t/∂v_{t−1} ε_{t−1} + ∂v_t/∂θ        eligibility vectors, z_{t−1} fixed
    e_t = ∂z_t/∂v_t ε_t + ∂z_t/∂θ                eligibility traces
    g_t = S_t e_t                                S_t the learning signal

If S_t = dE/dz_t, where E is the loss of the whole sequence, then Σ_t g_t = dE/dθ. At
step t only ∂ℓ_t/∂z_t is known.
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

    where v is the internal and z the visible part of the carry. z_{t−1} is held fixed,
    and ∂ℓ_t/∂θ is that of the readout, at fixed v_t and z_t. The rule is exact if
    nothing reads z_{t−1}, or if the given signal is S_t = dE/dz_t, the derivative of
    the whole sequence's loss. Otherwise it is biased. If the loss also reads v_t,
    v_{t−1} or z_{t−1} directly, g_t includes these derivatives.

    If no internal part goes on from step to step, nothing is traced. This is so if all
    of the carry is visible, and in cells without a hidden part, such as `cells.tanh`
    and `cells.gru`. With symmetric feedback the rule is then :func:`truncated_bptt`
    with every=1, lookback=1. `init` warns of it, unless there is a signal.

    With feedback weights B, S_t = ∂ℓ_t/∂y_t B. Then no derivative in the visible part
    goes back through the readout, nor from an output that reads z_{t−1} directly.

    With a `signal`, S_t = signal(y_t, target_t). If the signal needs more than y_t, put
    it into the target. S_t replaces the derivative ∂ℓ_t/∂z_t of one example's own loss,
    and has the same weight, w / Σ w. So if all losses of a sequence count alike, the
    derivative of their mean is S_t / (T·B) for B examples. If a loss does not count,
    its signal does not count either.

    A unit may remember its own spikes, for example in an adaptive threshold. This
    memory is in ε only if the step computes these spikes again from v_{t−1} instead of
    reading z_{t−1}. Define the derivative of a spike by `jax.custom_jvp`.

    For B examples, memory is B·p times the number of elements of v that a parameter can
    influence with z_{t−1} fixed (1 in an LSTM). Parameters of the readout do not count
    in p. A step takes the time of a few backward passes through it. (If the loss reads
    v_{t−1} or z_{t−1} directly, traces of z are kept too.) If elements of the internal
    part mix, traces and time grow to those of :func:`rtrl`, where further limits of
    online rules are listed.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      visible: function from a carry to its visible part, which must be whole,
        unchanged leaves, each once: for the (c, h) of an LSTM `lambda carry: carry[1]`.
        It is called with stand-ins, which cannot be computed with.
      feedback: "symmetric", or weights B as :func:`random_feedback` draws them for the
        visible part, or an :class:`AdaptiveFeedback`.
      signal: None, or a function (y, target) -> S_t, with leaves [*batch, ...] like the
        visible part. For targets (label, S) it is `lambda y, target: target[1]`, and
        the loss compares with target[0].

    Returns:
      An :class:`~bpvariants.types.OnlineRule` whose state is :class:`TraceState`.

    Raises:
      ValueError: if feedback is invalid, or given together with a signal; in `init`
        and `update`, as :func:`rtrl`, and if visible, feedback or signal do not fit the
        network.

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
