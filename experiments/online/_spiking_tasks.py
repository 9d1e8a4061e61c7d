"""The two tasks of e-prop's reference programs: weights, inputs and targets.

The draws follow the reference programs of Bellec et al. 2020 and of the NEST simulator
in every detail: NumPy's legacy generator, by default with seed 1, and weights in
float32. Arrays are float64, and weights are multiplied from the right, x @ W.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CUES, SPACING, CUE, PAUSE, RECALL = 7, 50, 100, 1050, 150
STEPS = CUES * (SPACING + CUE) + PAUSE + RECALL  # of evidence accumulation


class Weights(NamedTuple):
    """Initial weights of a network with d inputs, n units and m outputs."""

    inputs: np.ndarray  # [d, n]
    recurrent: np.ndarray  # [n, n], with a diagonal of zeros
    readout: np.ndarray  # [n, m]
    feedback: np.ndarray  # B [m, n], random and constant


class Batch(NamedTuple):
    """One mini-batch of B sequences of T steps."""

    xs: np.ndarray  # input spikes [T, B, d]
    targets: np.ndarray  # [T, B, m]; of evidence accumulation, one-hot
    counts: np.ndarray  # [T]: 1 where the loss counts, 0 elsewhere


def regression(units: int = 100, seed: int = 1) -> tuple[Weights, Iterator[Batch]]:
    """Return the weights of the regression task, and its one sequence, repeated.

    100 inputs with frozen noise; the target is a sum of four sines with periods of
    1000, 500, 333 and 200 steps.
    """
    rng, T, d = np.random.RandomState(seed), 1000, 100
    inputs = rng.randn(d, units) / np.sqrt(d)
    recurrent = rng.randn(units, units) / np.sqrt(units)
    np.fill_diagonal(recurrent, 0)
    readout, feedback = (rng.randn(units, 1) / np.sqrt(units) for _ in range(2))
    weights = _rounded(inputs, recurrent, readout, feedback)
    xs = (rng.rand(T, d) < 0.05).astype(float)
    xs[0] = 0
    amplitudes, phases = rng.uniform(0.5, 2, 4), rng.uniform(0, 2 * np.pi, 4)
    target = np.zeros(T)
    for A, phase, period in zip(amplitudes, phases, (1000, 500, 333, 200), strict=True):
        end = phase + 2 * np.pi * (T // period)
        target += A * np.sin(np.linspace(phase, end, T))
    target -= target[0]
    target /= np.max(np.abs(target))
    batch = Batch(xs[:, None], target[:, None, None], np.ones(T))
    return weights, iter(lambda: batch, None)


def evidence(
    size: int = 1, units: int = 100, seed: int = 1
) -> tuple[Weights, Iterator[Batch]]:
    """Return the weights of evidence accumulation, and mini-batches of `size`.

    Seven cues come from the left or from the right. After a pause, the network says on
    which side there were more. Of the 40 inputs, ten spike at a cue from the left, ten
    at a cue from the right, ten ask for the answer, and ten are noise.
    """
    rng, d = np.random.RandomState(seed), 40
    inputs = rng.randn(d, units) / np.sqrt(d)
    recurrent = rng.randn(units, units) / np.sqrt(units)
    np.fill_diagonal(recurrent, 0)
    bound = np.sqrt(3 / (units // 2 + 1))
    readout = rng.uniform(-bound, bound, (units, 2))
    weights = _rounded(inputs, recurrent, readout, rng.randn(units, 2))
    return weights, _evidence_batches(rng, size, d)


def _evidence_batches(rng, size, d):
    T = STEPS
    counts = np.zeros(T)
    counts[-RECALL:] = 1
    while True:
        likelier = rng.choice([0, 1], size)
        sides = np.array([[0.7, 0.3] if i else [0.3, 0.7] for i in likelier])
        sides = sides.astype(np.float32)
        cues = np.array([rng.choice([0, 1], CUES, p=p) for p in sides])
        rates = np.zeros((size, T, 4))
        for example, row in zip(rates, cues, strict=True):
            for k, side in enumerate(row):
                begin = k * (SPACING + CUE) + SPACING
                example[begin : begin + CUE, side] = 0.04
        rates[:, -RECALL:, 2] = 0.04
        rates[:, :, 3] = 0.01
        each = np.repeat(rates, d // 4, axis=-1)
        xs = (each > rng.rand(each.size).reshape(each.shape)).astype(float)
        xs[:, 0] = 0
        label = (np.sum(cues, axis=1) > CUES // 2).astype(int)
        targets = np.broadcast_to(np.eye(2)[label], (T, size, 2))
        yield Batch(np.swapaxes(xs, 0, 1), targets, counts)


def _rounded(inputs, recurrent, readout, feedback) -> Weights:
    """Round weights to float32, and return them in float64; B is drawn as [n, m]."""
    parts = inputs, recurrent, readout, feedback.T
    return Weights(*(part.astype(np.float32).astype(float) for part in parts))
