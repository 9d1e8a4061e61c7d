"""Truncated backpropagation through time, BPTT(h; h′): every loss injected once.

Notation: h is the lookback, h′ ≤ h how often errors are sent back. At each of the ends
e = h′, 2h′, … and T, only the losses since the last end travel back, through the
window that begins at s = max(0, e − h), whose first carry is taken as a constant:

    g = Σ_e ∇_θ Σ_{t = last end + 1 … e} ℓ_t    along h_s → h_{s+1} → … → h_e.

A loss so looks back between h − h′ + 1 and h steps. The windows are an outer scan that
takes the gradient of one window at a time, so that what is kept is that of h steps. (To
`stop_gradient` every h′ steps of one scan gives the gradient of h = h′, and keeps T.)
What a window leaves to the next, and so a call of a stream to the next call, is h_s and
what the h − h′ steps since then took.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import check_count
from bpvariants._losses import (
    as_arrays,
    check_sequence,
    effective_weights,
    with_loss,
)
from bpvariants.gradients._learning import check_pair, check_update, cut
from bpvariants.gradients.through_time._truncated_consumers import (
    add_up,
    Consumer,
    learn,
)
from bpvariants.gradients.through_time._truncated_stream import (
    leave,
    resume,
    stream as begin_stream,
    TruncatedStream,
)
from bpvariants.gradients.through_time._truncated_windows import (
    Block,
    Held,
    num_steps,
    Steps,
    window,
)
from bpvariants.types import GradientRule, Loss, PyTree, Step


class Call(NamedTuple):
    """What is the same for all windows of a call."""

    step: Step
    advance: Step  # with the loss as output
    initial: PyTree
    consumer: Consumer
    block: Block  # all steps of the call


class Reached(NamedTuple):
    """State of a call at the end of a window."""

    end: PyTree  # the carry at the end of the window
    held: Held
    state: PyTree  # of the consumer


def truncated_bptt(
    step: Step, loss: Loss, *, every: int, lookback: int, update: Any = None
) -> GradientRule:
    """BPTT(h; h′), an approximation of BPTT: errors travel back `lookback` steps.

    Biased, and exact for every sequence of T ≤ lookback, whatever `every` is. The value
    and the carry are exact. Memory is that of `lookback` steps, whatever T is; time is
    that of BPTT, lookback / every times. What frameworks call a window of k steps is
    every = lookback = k, in which the first loss looks back one step only; lookback =
    2·every is the common recommendation.

    A carry continues a sequence, but errors do not travel back into the call before.
    They do in a stream: see :func:`stream`, which is given and returned in place of it.

    With an `update` the rule learns on the way, after each window, and is

        learn((params, opt_state), carry, …) -> ((value, carry), (params, opt_state)).

    The new pair takes the place of the gradients. The update is given the gradient of
    the mean loss Σ w·ℓ / Σ w of the window's own losses, and that loss as `value` if it
    accepts it; a window where Σ w = 0 leaves the pair as it is. The value of the call
    is the mean of all losses as they were met. It is no longer the loss of one θ, nor
    is this the gradient of any. If lookback > every, each window runs its first steps
    again, with the new θ from an h_s that older ones made; the carry returned is that
    of the last window.
    A call of a stream that ends within a block updates there too, so that cuts change
    nothing only at multiples of `every`.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      every: h′, after how many steps errors are sent back, 1 ≤ h′ ≤ h.
      lookback: h, how many steps back they travel from there.
      update: None, or an optax.GradientTransformation to learn with on the way.

    Returns:
      A :class:`~bpvariants.types.GradientRule`.

    Raises:
      ValueError: if `every` and `lookback` are not integers with 1 ≤ every ≤ lookback,
        or `update` is no gradient transformation; when the rule is called, if lengths,
        shapes or dtypes disagree, if a stream is of another every and lookback, or if
        with an update params is no pair.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import gradients
      >>> integrate = lambda w, h, x: (h + w * x, h + w * x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = jax.jit(gradients.truncated_bptt(integrate, loss, every=1, lookback=1))
      >>> (value, h), grad = rule(2.0, jnp.array(0.0), jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), grad.item()  # of w + 4w, the second 4w lost 2w
      (10.0, 4.0, 6.0)
      >>> sgd = optax.sgd(0.25)
      >>> learn = gradients.truncated_bptt(
      ...     integrate, loss, every=1, lookback=1, update=sgd
      ... )
      >>> pair, h = (2.0, sgd.init(2.0)), jnp.array(0.0)
      >>> (value, h), (w, _) = learn(pair, h, jnp.ones(2), jnp.zeros(2))
      >>> value.item(), h.item(), w.item()  # w = 2, 1: (2² + (2 + 1)²) / 2; 1 − 6 / 4
      (6.5, 3.0, -0.5)

    References:
      Williams & Peng, "An efficient gradient-based algorithm for on-line training of
      recurrent network trajectories", Neural Computation 2(4), 1990,
      doi:10.1162/neco.1990.2.4.490.
    """
    _check_settings(every, lookback)
    if update is not None:
        check_update(update)
    advance = with_loss(step, loss)

    def rule(
        params, carry, xs, targets, weights=None, mask=None, reset=None, initial=None
    ):
        weights, mask, reset = as_arrays(weights, mask, reset)
        given = carry if isinstance(carry, TruncatedStream) else None
        state = carry if given is None else given.carry
        theta = params if update is None else check_pair(update, params)
        losses = check_sequence(
            advance, theta, state, xs, targets, weights, mask, reset, initial
        )
        length = jax.tree.leaves(xs)[0].shape[0]
        h, num_losses = int(lookback), int(every)
        if given is None:
            h, num_losses = min(h, length), min(num_losses, length)
        stream = begin_stream(carry) if given is None else given
        if initial is not None:
            stream = dataclasses.replace(stream, initial=initial)
        steps = Steps(xs, mask, reset, jnp.ones(length, bool))
        held, steps = resume(stream, steps, num_losses, h)
        weights = effective_weights(weights, mask)
        if update is None:
            consumer = add_up(params, weights, length, losses)
        else:
            consumer = learn(update, params, weights, losses)
        call = Call(step, advance, stream.initial, consumer, Block(steps, targets))
        reached = Reached(stream.carry, held, consumer.state)
        reached = _run_windows(call, reached, stream.phase, num_losses, given is None)
        value, grads = consumer.result(reached.state)
        if given is None:
            return (value, reached.end), grads
        left = leave(stream, reached.end, reached.held, length, num_losses, h)
        return (value, left), grads

    return rule


def _check_settings(every: int, lookback: int) -> None:
    check_count("every", every)
    check_count("lookback", lookback)
    if lookback < every:
        raise ValueError(
            "lookback must be at least every, so that no loss is left out; got "
            f"lookback={lookback} and every={every}."
        )


def _run_windows(
    call: Call, reached: Reached, phase: int, every: int, to_end: bool
) -> Reached:
    """Run the window of each block of a call that begins `phase` steps into a block.

    If the call ends within a block, its losses look back from where the block would
    end, or, with `to_end`, from where the call does.
    """
    length = num_steps(call.block.steps)
    first = min(every - phase, length) if phase else 0
    whole, rest = divmod(length - first, every)
    if first:
        ends = phase + first == every
        reached = _take(call, reached, 0, first, every if ends else 0)
    apart = int(to_end and rest > 0)  # the window before the last one leaves more to it

    def body(reached_and_begin, _):  # counts by itself: an arange would grow with T
        reached, begin = reached_and_begin
        return (_take(call, reached, begin, every, every), begin + every), None

    if whole > apart:
        (reached, _), _ = jax.lax.scan(
            body, (reached, jnp.array(first)), length=whole - apart
        )
    if apart:
        reached = _take(call, reached, length - rest - every, every, rest)
    return _take(call, reached, length - rest, rest, 0) if rest else reached


def _take(
    call: Call, reached: Reached, begin: int | jax.Array, size: int, drop: int
) -> Reached:
    """Run one window of `size` new steps; the next begins `drop` steps after it."""
    block, weights = cut((call.block, call.consumer.weights), begin, size)
    gradient_at = window(
        call.step, call.advance, call.initial, reached.held, block, drop
    )
    state, (end, held) = call.consumer.take(reached.state, gradient_at, weights, size)
    return Reached(end, held, state)
