"""State of a stream: a long sequence, processed in several calls of truncated BPTT.

A sequence is divided into blocks of h′ steps, and h is the lookback. The error signal
of a loss travels back to step s = e − h, where e is the last step of the loss's block.
A call that ends k steps into a block already counts the losses of these k steps. To
continue the block, the next call gets the carry of step s, and the inputs, masks and
resets of the h − h′ + k steps since s.
"""

import dataclasses

import jax
import jax.numpy as jnp

from bpvariants._checks import check_arrays, check_like, first_step
from bpvariants.gradients.through_time._truncated_windows import (
    Held,
    idle,
    num_steps,
    Steps,
)
from bpvariants.types import PyTree


@dataclasses.dataclass(frozen=True)
class TruncatedStream:
    """State that :func:`truncated_bptt` passes to its next call; see :func:`stream`.

    A stream is a pytree. Its last three fields are static, so each combination of their
    values has its own compiled program.

    Attributes:
      carry: the carry h_t of the network.
      initial: the carry after a reset: the `initial` that a call got most recently.
      start: the carry that the next window begins with; None if the next window begins
        with h_t.
      steps: inputs, masks and resets of the last lookback − every + phase steps, which
        the next window runs again, leaves [time, ...]; None if there are no such steps.
      phase: number of steps taken so far in the current block of `every` steps.
      every: `every` of the rule; None before the first call.
      lookback: `lookback` of the rule; None before the first call.
    """

    carry: PyTree
    initial: PyTree
    start: PyTree | None = None
    steps: Steps | None = None
    phase: int = 0
    every: int | None = None
    lookback: int | None = None


jax.tree_util.register_dataclass(
    TruncatedStream,
    data_fields=["carry", "initial", "start", "steps"],
    meta_fields=["phase", "every", "lookback"],
)


def stream(carry: PyTree) -> TruncatedStream:
    """Begin a stream, to process a sequence in several calls of :func:`truncated_bptt`.

    A stream is the state that one call passes to the next call. Pass the stream to the
    rule that :func:`truncated_bptt` returns, instead of a carry. The rule then returns
    the stream for the next call, instead of a carry. The gradient does not depend on
    how the sequence is divided into calls. Each loss counts only in the call that gets
    its target. Let g_c be the gradient that call c returns, and W_c the sum of the
    weights of the losses of call c. Up to rounding, the gradient of one long call is

        g = Σ_c W_c g_c / Σ_c W_c.

    The value of one long call is the mean of the values of all calls, with the weights
    W_c.

    A call of a stream may end within a block of `every` steps. The lookback of this
    block is then measured from the step at which the whole block will end. In a call
    with a plain carry, the lookback of the last block is measured from the end of the
    call. One long call with a plain carry therefore differs from a stream only if T is
    not a multiple of `every`. Even then, only the gradients of the last block's losses
    differ.

    At a reset, the carry is replaced by the `initial` of the most recent call that got
    an `initial`. If no call got an `initial`, the carry is replaced by the carry that
    was given to `stream`. `initial` must not change between calls, because a window
    runs steps of earlier calls again.

    Besides carries, a stream stores the inputs, masks and resets of lookback − every
    steps and of the steps taken in the current block. Each call runs all stored steps
    again, so calls should be longer than the stored steps. If the lengths of all calls
    are equal and a multiple of `every`, one compiled program serves all calls from the
    second call on. With such lengths, the stream is also a valid carry for
    `jax.lax.scan` and `training.fit`.

    Args:
      carry: the state h_0 before the first step, leaves [*batch, ...].

    Returns:
      A :class:`TruncatedStream`; its `carry` is the state of the network.

    Raises:
      ValueError: if carry is a stream already.

    Example:
      >>> import jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> decay = lambda w, h, x: (w * h + x, w * h + x)
      >>> loss = lambda y, target: (y - target) ** 2
      >>> rule = gradients.truncated_bptt(decay, loss, every=2, lookback=2)
      >>> xs, targets, stream = jnp.ones(4), jnp.zeros(4), jnp.array(0.0)
      >>> _, whole = rule(0.5, stream, xs, targets)
      >>> stream = gradients.stream(stream)
      >>> (_, stream), first = rule(0.5, stream, xs[:1], targets[:1])
      >>> (_, stream), rest = rule(0.5, stream, xs[1:], targets[1:])
      >>> whole.item(), ((1 * first + 3 * rest) / 4).item(), stream.carry.item()
      (4.40625, 4.40625, 1.875)
    """
    if isinstance(carry, TruncatedStream):
        raise ValueError(
            "carry must be the state of a network, got a stream; pass that to the rule "
            "as it is, or begin a new one with gradients.stream(carry.carry)."
        )
    check_arrays("carry", carry)
    carry = jax.tree.map(jnp.asarray, carry)
    return TruncatedStream(carry, carry)


def resume(
    stream: TruncatedStream, new: Steps, every: int, lookback: int
) -> tuple[Held, Steps]:
    """Return the start of a call's first window, and the new steps of the call."""
    if stream.every is None:
        steps = idle(new, lookback - every)
        return Held(stream.carry, steps), new
    made_by = stream.every, stream.lookback
    if made_by != (every, lookback):
        raise ValueError(
            f"carry is a stream of a rule with every={made_by[0]} and "
            f"lookback={made_by[1]}, but this one has every={every} and "
            f"lookback={lookback}; begin a new one with gradients.stream(carry.carry)."
        )
    if stream.steps is None:
        return Held(stream.carry, None), new
    held = stream.steps
    check_like("xs, of one step,", first_step(new.x), "before", first_step(held.x))
    for name, default in {"mask": True, "reset": False}.items():
        held, new = _both_or_neither(name, default, held, new)
    return Held(stream.start, held), new


def leave(
    stream: TruncatedStream,
    carry: PyTree,
    held: Held,
    length: int,
    every: int,
    lookback: int,
) -> TruncatedStream:
    return TruncatedStream(
        carry=carry,
        initial=stream.initial,
        start=None if held.steps is None else held.start,
        steps=held.steps,
        phase=(stream.phase + length) % every,
        every=every,
        lookback=lookback,
    )


def _both_or_neither(
    name: str, default: bool, held: Steps, new: Steps
) -> tuple[Steps, Steps]:
    """Complete the mask or the resets of the held and the new steps.

    If only the held or only the new steps have the flags `name`, the other steps get
    flags of value `default`.
    """
    given = [getattr(steps, name) for steps in (held, new)]
    known = next((flags for flags in given if flags is not None), None)
    if known is None:
        return held, new
    filled = [
        jnp.full((num_steps(steps), *known.shape[1:]), default)
        if flags is None
        else flags
        for steps, flags in zip((held, new), given, strict=True)
    ]
    return held._replace(**{name: filled[0]}), new._replace(**{name: filled[1]})
