"""Tasks of the study `atlas`: short sequences, with the loss of a trivial predictor.

Each task has random mini-batches for training, and two constant sets of sequences, one
to choose learning rates (validation) and one that is looked at once (test). A part is
(xs [T, B, …], targets [T, B, …], weights [T, B]); weights say which losses count.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import Loss
from experiments import data
from experiments.applications.speech import baseline, network as speech
from experiments.online import _breathing_series, _copy_task, _dynamical_systems
from experiments.through_time import (
    _influence_balancing_network as balancing,
    _memory_tasks,
)

Part = tuple[jax.Array, jax.Array, jax.Array]
BITS, ADDED, BALANCED, FRAMES = 5, 10, 60, 16
WINDOW = 24  # steps of a window of a series; losses of the second half count
AHEAD = {"mackey_glass": 6, "breathing": 5}  # samples from an input to its target
EVALUATED = 500  # sequences in the validation part and in the test part
SERIES = 6000  # values of the chaotic series in each part


class Task(NamedTuple):
    """A task; without a batch axis, `batch` is ()."""

    steps: int  # T
    batch: tuple[int, ...]  # sequences in a mini-batch
    inputs: int
    outputs: int
    loss: Loss
    draw: Callable[[jax.Array], Part]  # key -> mini-batch
    validation: Part
    test: Part
    trivial: float  # test loss of the trivial predictor
    predictor: str  # what the trivial predictor is


def copy(batch: int) -> Task:
    """Return the copy task: read five random bits, then output them."""
    draw = lambda key, count: _copy_task.draw_sequence(key, BITS, count, BITS)[:3]
    return _generated(
        2 * BITS, 3, 1, _copy_task.loss, draw, batch,
        _copy_task.GUESS, "a guess",
    )  # fmt: skip


def adding(batch: int) -> Task:
    """Return the adding task: output the sum of two marked numbers, after ten steps."""
    task = _memory_tasks.adding(ADDED)
    return _generated(
        ADDED, task.inputs, task.outputs, task.loss, task.draw, batch,
        task.floor, "the mean of the sum",
    )  # fmt: skip


def influence(batch: int) -> Task:
    """Return influence balancing, whose network has one parameter and no inputs.

    The sequences are all equal, so there is no batch, and the test part equals the
    training part. Initial parameters are random.
    """
    del batch
    part = balancing.stream(BALANCED)
    return Task(
        BALANCED, (), 0, 1, balancing.half_square,
        lambda key: part, part, part, 0.5, "a constant 0",
    )  # fmt: skip


def mackey_glass(batch: int) -> Task:
    """Return forecasts of the Mackey–Glass series; each part has its own trajectory."""
    series = _dynamical_systems.series("mackey_glass", SERIES, 3).astype(np.float32)
    parts = [_windows(each[:, None], AHEAD["mackey_glass"]) for each in series.T]
    return _forecasts(batch, parts, AHEAD["mackey_glass"])


def breathing(batch: int) -> Task:
    """Return forecasts of breathing markers, 0.5 s ahead.

    The positions drift, so each window is shifted to begin at 0, and the target is the
    change from the current position.

    Of each of the nine sequences, the first 60 % are for training, the next 20 % for
    validation, and the rest is for the test.
    """
    found = _breathing_series.series(10.0)
    parts = []
    for low, high in ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0)):
        pieces = []
        for values, length in zip(found.values, found.lengths, strict=True):
            part = values[int(low * length) : int(high * length)]
            windows = _windows(part.astype(np.float32), AHEAD["breathing"])
            pieces.append(windows - windows[0])
        parts.append(np.concatenate(pieces, axis=1))
    return _forecasts(batch, parts, AHEAD["breathing"], changes=True)


def spoken_digits(batch: int) -> Task:
    """Return spoken digits: each recording is the mean features of 16 equal parts."""
    recordings, _, read = speech.load()
    xs = np.stack(
        [baseline.segments(x, FRAMES).reshape(FRAMES, -1) for x in read.xs], axis=1
    ).astype(np.float32)
    targets = np.broadcast_to(read.digits, (FRAMES, len(read.digits)))
    weights = np.zeros(targets.shape, np.float32)
    weights[-1] = 1
    of = lambda array, rows: jnp.asarray(array[:, rows])
    parts = [
        (of(xs, rows), of(targets, rows), of(weights, rows))
        for rows in (recordings.train, recordings.validation, recordings.test)
    ]
    loss = optax.softmax_cross_entropy_with_integer_labels
    return Task(
        FRAMES, (batch,), xs.shape[-1], 10, loss,
        _sampler(parts[0], batch), parts[1], parts[2], math.log(10), "a guess",
    )  # fmt: skip


TASKS: dict[str, Callable[[int], Task]] = {
    "copy": copy,
    "adding": adding,
    "mackey_glass": mackey_glass,
    "breathing": breathing,
    "spoken_digits": spoken_digits,
    "influence": influence,
}
NEEDED = {"breathing": data.breathing, "spoken_digits": data.fsdd}  # downloaded data


@cache
def task(name: str, batch: int) -> Task:
    """Return a task by name, the same object at each call."""
    return TASKS[name](batch)


def _generated(
    steps: int, inputs: int, outputs: int, loss: Loss, draw: Callable,
    batch: int, trivial: float, predictor: str,
) -> Task:  # fmt: skip
    """Return a task whose sequences are drawn, each part from its own key."""
    of_validation, of_test = jax.random.split(jax.random.key(2019))
    return Task(
        steps, (batch,), inputs, outputs, loss, lambda key: draw(key, batch),
        draw(of_validation, EVALUATED), draw(of_test, EVALUATED), trivial, predictor,
    )  # fmt: skip


def _windows(values: np.ndarray, ahead: int) -> np.ndarray:
    """Return windows [WINDOW + ahead, W, d] of a series [N, d], half overlapping."""
    length = WINDOW + ahead
    starts = range(0, len(values) - length + 1, WINDOW // 2)
    return np.stack([values[start : start + length] for start in starts], axis=1)


def _forecasts(
    batch: int, windows: list[np.ndarray], ahead: int, changes: bool = False
) -> Task:
    """Return the forecast of a series, or of its changes, from windows of three parts.

    The trivial predictor is the better one of the mean of all training targets, and the
    last value (for changes, no change).
    """
    parts = [_to_part(each, ahead, changes) for each in windows]
    xs, targets, weights = map(np.asarray, parts[2])
    mean = np.asarray(parts[0][1]).mean(axis=(0, 1))
    last = np.zeros_like(xs) if changes else xs
    trivial = {}
    guesses = {"the mean of all training targets": mean, "the last value": last}
    for name, guess in guesses.items():
        squares = ((guess - targets) ** 2).mean(axis=-1)
        trivial[name] = float(np.average(squares, weights=weights))
    predictor = min(trivial, key=lambda name: trivial[name])
    loss = lambda y, target: jnp.mean((y - target) ** 2, axis=-1)
    width = xs.shape[-1]
    return Task(
        WINDOW, (batch,), width, width, loss, _sampler(parts[0], batch),
        parts[1], parts[2], trivial[predictor], predictor,
    )  # fmt: skip


def _to_part(windows: np.ndarray, ahead: int, changes: bool) -> Part:
    """Divide windows into inputs and targets; losses of the second half count."""
    xs, targets = jnp.asarray(windows[:-ahead]), jnp.asarray(windows[ahead:])
    late = (jnp.arange(WINDOW) >= WINDOW // 2).astype(xs.dtype)
    weights = jnp.broadcast_to(late[:, None], xs.shape[:2])
    return xs, targets - xs if changes else targets, weights


def _sampler(part: Part, batch: int) -> Callable[[jax.Array], Part]:
    """Return a function key -> mini-batch of random sequences of a part."""

    def draw(key):
        rows = jax.random.randint(key, (batch,), 0, part[2].shape[1])
        xs, targets, weights = (array[:, rows] for array in part)
        return xs, targets, weights

    return draw
