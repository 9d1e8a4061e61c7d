"""State of a stream that is cut into calls of truncated BPTT.

A loss looks back to s = e − h, where e is the end of its block of h′ steps and h the
lookback. A call may end k steps into a block; it can count the losses of these steps at
once. For this it passes on to the next call h_s, and the inputs, masks and resets of
the h − h′ + k steps since then.
"""

import dataclasses

import jax
import jax.numpy as jnp

from bpvariants._checks import check_like, first_step
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

    It is a pytree. The last three fields are static, so there is one compiled program
    for each combination of their values.

    Attributes:
      carry: the state h_t of the network.
      initial: what a reset puts back: the `initial` given last.
      start: the carry that the next window begins with; None if this is h_t.
      steps: inputs, masks and resets of the lookback − every + phase steps since then,
        leaves [time, ...]; None if there are no such steps.
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
    """Begin a stream: a long sequence in several calls of :func:`truncated_bptt`.

    Pass the stream to the rule in place of the carry. The rule returns the stream for
    the next call in place of the carry. The gradient does not depend on where the
    stream is cut. Each loss counts in its own call. With W_c = Σ w of call c and g_c
    its gradient, the gradient of one long call is

        g = Σ_c W_c g_c / Σ_c W_c,

    up to rounding. The same holds for the value.

    If a call ends within a block of `every` steps, the losses of that block look back
    from the future end of the block. With a plain carry they look back from the end of
    the call. So one long call with a plain carry differs from a stream only in the
    losses of its last block, and only if T is not a multiple of `every`.

    A reset puts back the `initial` of the last call that got one; before that, the
    carry given here. `initial` must not change between calls, because a window runs
    steps of earlier calls again.

    Besides carries, a stream holds the inputs, masks and resets of lookback − every
    steps and of the steps taken in the current block. Each call runs these steps again,
    so a call should be longer than that. If all calls have the same length, a multiple
    of `every`, they share one compiled program from the second call on. Then the stream
    is also a valid carry for `jax.lax.scan` and `training.fit`.

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
    carry = jax.tree.map(jnp.asarray, carry)
    return TruncatedStream(carry, carry)


def resume(
    stream: TruncatedStream, new: Steps, every: int, lookback: int
) -> tuple[Held, Steps]:
    """Return the start of a call's first window, and the new steps of the call.

    Held and new steps either both have a mask or both have none; likewise for resets.
    """
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
    """Return the stream that a call of `length` steps passes to the next call."""
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
    """Give default flags to the held or new steps without flags, if the others have."""
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
