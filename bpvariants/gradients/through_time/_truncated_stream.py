"""State of a stream that is cut into calls of truncated BPTT.

A loss looks back to s = e − h, where e is the end of its block of h′ steps and h the
lookback. So a call that ends k steps into a block can count their losses at once, if it
leaves to the next call h_s and what steps took since then, h − h′ + k of them.
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
    """What :func:`truncated_bptt` leaves to its next call, made by :func:`stream`.

    A pytree; the last three fields are static, and programs are compiled for them.

    Attributes:
      carry: the state h_t of the network.
      initial: what a reset puts back: `initial` as last given.
      start: the carry with which the next window begins; None if that is h_t.
      steps: what steps took since then, lookback − every + phase of them, leaves
        [time, ...]; None if there are none.
      phase: how many steps of the block of `every` under way have been taken.
      every: that of the rule; None if there was no call yet.
      lookback: that of the rule; None if there was no call yet.
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
    """Begin a stream that :func:`truncated_bptt` is given in calls, cut anywhere.

    Given in place of the carry, it comes back in place of the carry, for the next call.
    How the stream is cut then changes no gradient: with W_c = Σ w of call c, each loss
    counted in its own call, that of one long call is

        g = Σ_c W_c g_c / Σ_c W_c,

    to rounding, and so is the value. Losses of a block of `every` steps that a call
    leaves unfinished look back from where the block will end, not from the cut as
    those of a plain carry do: only there one long call with a plain carry differs, if
    T is no multiple of `every`. Where episodes begin, a reset puts back `initial`: as
    the last call that was given it, and until then the carry given here. It must not
    change between calls, since a window takes its steps again.

    Besides carries, a stream holds the inputs, masks and resets of lookback − every
    steps and of those of the block under way. Each call takes them again, so calls
    should be longer than that. Calls of one length, a multiple of `every`, share one
    program from the second on; then the stream is also a carry for `jax.lax.scan`
    and `training.fit`.

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
            "carry must be the state of a network, got a stream; give that to the rule "
            "as it is, or begin another with gradients.stream(carry.carry)."
        )
    carry = jax.tree.map(jnp.asarray, carry)
    return TruncatedStream(carry, carry)


def resume(
    stream: TruncatedStream, new: Steps, every: int, lookback: int
) -> tuple[Held, Steps]:
    """Return where the first window of a call begins, and the new steps to go with it.

    Either both have a mask, or neither, and so with resets.
    """
    if stream.every is None:
        steps = idle(new, lookback - every)
        return Held(stream.carry, steps), new
    made_by = stream.every, stream.lookback
    if made_by != (every, lookback):
        raise ValueError(
            f"carry is a stream of a rule with every={made_by[0]} and "
            f"lookback={made_by[1]}, but this one has every={every} and "
            f"lookback={lookback}; begin another with gradients.stream(carry.carry)."
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
    """Return what a call of so many steps leaves to the next."""
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
    """Give those steps the default flags that have none, if the others have."""
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
