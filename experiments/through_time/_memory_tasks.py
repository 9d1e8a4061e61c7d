"""The copy task and the adding task, which need memory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

SYMBOLS, REMEMBERED = 8, 10


class MemoryTask(NamedTuple):
    """A task: random sequences, a loss, and the lowest loss of a net without memory."""

    steps: int  # number of steps T of a sequence
    inputs: int
    outputs: int
    draw: Callable  # (key, batch) -> xs [T, B, inputs], targets [T, B, …], weights
    loss: Callable  # (y, target) -> losses [B]
    floor: float  # lowest mean loss of a network without memory


def copy_memory(blanks: int) -> MemoryTask:
    """Return the copy task: repeat ten symbols, of eight kinds, after `blanks` steps.

    The best network without memory predicts all blanks and guesses the ten symbols. The
    loss of this network, summed over all steps of a sequence, is 10 ln 8 nats.
    """
    steps, blank, marker = blanks + 2 * REMEMBERED, 0, SYMBOLS + 1

    def draw(key, batch):
        symbols = jax.random.randint(key, (REMEMBERED, batch), 1, SYMBOLS + 1)
        constant = lambda length, value: jnp.full((length, batch), value)
        asked = constant(REMEMBERED + 1, marker)
        xs = jnp.concatenate([symbols, constant(blanks - 1, blank), asked])
        targets = jnp.concatenate([constant(blanks + REMEMBERED, blank), symbols])
        return jax.nn.one_hot(xs, SYMBOLS + 2), targets, jnp.ones(targets.shape)

    loss = optax.softmax_cross_entropy_with_integer_labels
    floor = REMEMBERED * math.log(SYMBOLS) / steps
    return MemoryTask(steps, SYMBOLS + 2, SYMBOLS + 1, draw, loss, floor)


def adding(steps: int) -> MemoryTask:
    """Return the adding task: output the sum of the two marked numbers in a sequence.

    Each half of a sequence has one marked number; all numbers are uniform in [0, 1].
    Without memory, the best prediction of the sum is 1, its mean. The mean squared
    error of this prediction is 1/6, the variance of the sum.
    """

    def draw(key, batch):
        values, first, second = jax.random.split(key, 3)
        values = jax.random.uniform(values, (steps, batch))
        ends = (0, steps // 2), (steps // 2, steps)
        marked = [
            jnp.arange(steps)[:, None] == jax.random.randint(key, (batch,), *end)
            for key, end in zip((first, second), ends, strict=True)
        ]
        marks = (marked[0] | marked[1]).astype(values.dtype)
        sums = jnp.broadcast_to(jnp.sum(values * marks, axis=0), (steps, batch))
        weights = jnp.zeros((steps, batch)).at[-1].set(1.0)
        return jnp.stack([values, marks], axis=-1), sums, weights

    loss = lambda y, target: (y[..., 0] - target) ** 2
    return MemoryTask(steps, 2, 1, draw, loss, 1 / 6)
