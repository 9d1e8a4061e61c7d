"""The windows of one call of truncated BPTT, one after the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants.gradients._truncated_update import Consumer
from bpvariants.gradients._truncated_windows import (
    Block,
    cut,
    Held,
    num_steps,
    window,
)
from bpvariants.types import PyTree, Step


class Call(NamedTuple):
    """What does not change during a call."""

    step: Step
    advance: Step  # with the loss as output
    initial: PyTree
    consumer: Consumer
    block: Block  # all of the call


class Reached(NamedTuple):
    """Where a call has got to, at the end of a window."""

    end: PyTree  # the carry there
    held: Held
    state: PyTree  # of the consumer


def run_windows(
    call: Call, reached: Reached, phase: int, every: int, to_end: bool
) -> Reached:
    """Run the window of each block of a call that begins so many steps into one.

    A last block that is cut short looks back from where it would end, or, with
    `to_end`, from where it does.
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
    """Run one window; the next begins so many steps later than it."""
    block, weights = cut((call.block, call.consumer.weights), begin, size)
    gradient_at = window(
        call.step, call.advance, call.initial, reached.held, block, drop
    )
    state, (end, held) = call.consumer.take(reached.state, gradient_at, weights, size)
    return Reached(end, held, state)
