"""One window of truncated BPTT: its steps, and its gradient.

A window starts from a constant carry. The window first runs the held steps, whose
losses were counted in earlier windows. After the held steps, the window runs the new
steps, whose losses it counts.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._dtypes import cast_like, widen
from bpvariants._masking import keep
from bpvariants.gradients._learning import cut
from bpvariants.gradients.through_time._unroll import scan_steps
from bpvariants.types import PyTree, Step


class Steps(NamedTuple):
    """Inputs and flags of steps, leaves [time, ...]; mask and reset may be None.

    `began` is False for placeholder steps before the start of the stream. A placeholder
    step does not change the carry. Its inputs are the inputs of the stream's first
    step, because made-up inputs might be invalid.
    """

    x: PyTree
    mask: jax.Array | None
    reset: jax.Array | None
    began: jax.Array


class Held(NamedTuple):
    """Start of the next window of a sequence."""

    start: PyTree  # first carry of the next window
    steps: Steps | None  # steps of the next window that already ran; or None


class Block(NamedTuple):
    """New steps and their targets, leaves [time, ...]."""

    steps: Steps
    targets: PyTree


# Function (params, shares) -> ((mean loss, (carry at the window's end, Held)), grads).
# Shares are normalised weights w / Σ w of the losses; grads are float32 or wider.
GradientAt = Callable[
    [PyTree, jax.Array], tuple[tuple[jax.Array, tuple[PyTree, Held]], PyTree]
]


def window(
    step: Step, advance: Step, initial: PyTree, held: Held, block: Block, drop: int
) -> GradientAt:
    """Return a function that computes the loss and the gradient of one window.

    `advance` is the step with the loss as output. `held` is the start of this window,
    and `block` has the new steps, whose losses count. The next window starts `drop`
    steps after the start of this window.
    """
    steps = after(held.steps, block.steps)
    total = num_steps(steps)
    ahead = total - num_steps(block.steps)
    edges = sorted({0, ahead, drop, total})

    def gradient_at(params, shares):
        def objective(params):
            carry, carries, losses = held.start, {0: held.start}, []
            for begin, end in pairwise(edges):
                part = cut(steps, begin, end - begin)
                if begin < ahead:
                    run, inputs = _before_losses(step), (part.x, part.began)
                else:
                    targets = cut(block.targets, begin - ahead, end - begin)
                    run, inputs = advance, (part.x, targets)
                carry, outputs = scan_steps(
                    run, params, carry, inputs, part.mask, part.reset, initial
                )
                carries[end] = carry
                losses += [] if outputs is None else [outputs]
            value = jnp.sum(shares * jnp.concatenate(losses))
            return value, (carry, carries[drop])

        as_given = lambda wide: objective(cast_like(wide, params))
        (value, (end, start)), grads = jax.value_and_grad(as_given, has_aux=True)(
            widen(params)
        )
        rest = cut(steps, drop, total - drop) if drop < total else None
        return (value, (end, Held(start, rest))), grads

    return gradient_at


def _before_losses(step: Step) -> Step:
    """Return a step that computes only the new carry.

    A placeholder step, which `began` marks by False, does not change the carry.
    """

    def quiet_step(params, carry, inputs):
        x, began = inputs
        return keep(step(params, carry, x)[0], carry, began), None

    return quiet_step


def idle(first: Steps, times: int) -> Steps | None:
    """Return `times` placeholder steps for the time before the start of a stream."""
    if times == 0:
        return None
    repeat = lambda leaf: jnp.broadcast_to(leaf[:1], (times, *leaf.shape[1:]))
    return jax.tree.map(repeat, first)._replace(began=jnp.zeros(times, bool))


def after(earlier: Steps | None, later: Steps) -> Steps:
    if earlier is None:
        return later
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), earlier, later)


def num_steps(steps: Steps) -> int:
    return steps.began.shape[0]
