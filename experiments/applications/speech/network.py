"""Network, features and batches of recordings of `speech`.

    h_t = cell(θ, h_{t−1}, x_t),    y_t = V r_t + c,
    r_t = h_t ("last"),  or  r_t = (h_1 + … + h_t) / t ("mean")

h_t is the state of the recurrent layer with the weights θ. r_t is the pooled state, and
y_t are the logits of the digits; V and c are the readout's weights and bias. The inputs
x_t are log-mel features. The features are standardised over each recording, so that the
loudness and contrast of a recording matter little. The loss uses only the output y at
the last time step.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from bpvariants import gradients
from bpvariants.types import PyTree, Step
from experiments import choices, data
from experiments.applications.speech.log_mel import log_mel, num_frames
from experiments.applications.speech.trim import trim
from experiments.networks import pooled, recurrent
from experiments.networks.batches import (
    all_batches,
    Bucket,
    draw_batches,
    length_buckets,
    pad,
)

Pooling = Literal["mean", "last"]
DIGITS, BANDS, SIZE, HOP = 10, 24, 256, 160  # frames of 32 ms, which begin every 20 ms
BATCH = 100  # number of recordings in a batch, except in training
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def features(samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return log-mel features of each recording, [number of frames, 24]."""
    found: list[Any] = [None] * len(samples)
    for batch in all_batches(length_buckets([*map(len, samples)], 8), BATCH):
        sounds, mask = pad(samples, batch)
        loud = np.asarray(log_mel(sounds.T, size=SIZE, hop=HOP, bands=BANDS))
        frames = num_frames(mask.sum(axis=0), SIZE, HOP)
        for place, row in enumerate(batch.rows):
            if row >= 0:
                found[row] = loud[place, : frames[place]]
    return found


def normalised(loud: np.ndarray) -> np.ndarray:
    """Standardise a recording's features to mean 0 and standard deviation 1.

    Mean and standard deviation are over all frames and frequency bands.
    """
    return (loud - loud.mean()) / max(float(loud.std()), 1e-3)


class Recordings(NamedTuple):
    """Recordings: inputs of networks, spoken digits, and speakers."""

    xs: list[np.ndarray]  # each [number of frames, 24]
    digits: np.ndarray
    speakers: np.ndarray


def load() -> tuple[data.FSDD, list[np.ndarray], Recordings]:
    """Return the data set, its log-mel features, and inputs and labels for networks.

    Silence at both ends of a recording is removed before the features are computed.
    """
    found = data.fsdd()
    loud = features([trim(each) for each in found.samples])
    xs = [normalised(each) for each in loud]
    return found, loud, Recordings(xs, found.digits, found.speakers)


def batches(
    recordings: Recordings,
    rows: np.ndarray,
    start: int,
    *,
    batch: int,
    run: int,
    lengths: int,
    hidden: int,
    seed: int,
) -> Iterator[tuple]:
    """Draw batches (xs, targets, weights, mask, speakers) of similarly long recordings.

    Args:
      recordings: all recordings.
      rows: indices of the recordings to draw from.
      start: number of batches to skip, to resume a training.
      batch: number of recordings in a batch.
      run: number of consecutive batches that have the same shape.
      lengths: largest number of different lengths that recordings are padded to.
      hidden: largest number of neighbouring frequency bands of a recording to set to
        zero. The bands are drawn at random for each batch, so that networks do not rely
        on a single band.
      seed: seed of all random numbers.
    """
    frames = [len(recordings.xs[row]) for row in rows]
    buckets = [
        Bucket(bucket.length, rows[bucket.rows])
        for bucket in length_buckets(frames, lengths)
    ]
    drawn = draw_batches(buckets, batch, seed=seed, run=run, start=start)
    for step, bucket in enumerate(drawn, start):
        xs, mask = pad(recordings.xs, bucket)
        rng = np.random.default_rng((seed, 1, step))
        widths = rng.integers(0, hidden + 1, batch)
        low = rng.integers(0, BANDS - widths + 1)
        bands = np.arange(BANDS)
        kept = (bands < low[:, None]) | (bands >= (low + widths)[:, None])
        ends = mask & ~np.concatenate([mask[1:], np.zeros_like(mask[:1])])
        targets = np.broadcast_to(recordings.digits[bucket.rows], mask.shape)
        speakers = recordings.speakers[bucket.rows]
        yield xs * kept, targets, ends.astype(np.float32), mask, speakers


def init(key: jax.Array, cell: str, units: int) -> PyTree:
    """Draw the parameters of a network."""
    return recurrent.init(key, cell, BANDS, units, DIGITS)


def init_runs(key: jax.Array, cell: str, units: int, runs: int) -> PyTree:
    """Draw the parameters of several networks; axis 0 of each leaf is the network."""
    keys = jax.random.split(jax.random.fold_in(key, 1), runs)
    return jax.jit(jax.vmap(partial(init, cell=cell, units=units)))(keys)


def make_rule(
    name: str, cell: str, pooling: Pooling, lookback: int
) -> Callable[..., tuple]:
    """Return a rule (params, left_out, *batch) -> ((loss, left_out), grads).

    `left_out` is the index of a speaker, whose recordings have weight 0 in the loss.
    """
    of_sequence = choices.make_rule(
        name, _step(cell, pooling), cross_entropy,
        lookback=lookback, visible=pooled.visible(cell),
    )  # fmt: skip

    def rule(params, left_out, xs, targets, weights, mask, speakers, **key):
        weights = weights * (speakers != left_out)
        carry = pooled.zeros(params["cell"], cell, pooling, xs.shape[1])
        (value, _), grads = of_sequence(
            params, carry, xs, targets, weights, mask, **key
        )
        return (value, left_out), grads

    return rule


def say(
    params: PyTree, cell: str, pooling: Pooling, xs: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the probabilities of 10 digits for N recordings, [networks, N, 10]."""
    longest = max(map(len, xs))
    length = -(-longest // 25) * 25  # rounded up: fewer shapes to compile
    whole = Bucket(length, np.arange(len(xs)))
    size = min(BATCH, len(xs))
    parts = [
        np.asarray(_classify(cell, pooling)(params, *pad(xs, bucket)))
        for bucket in all_batches([whole], size)
    ]
    return np.concatenate(parts, axis=1)[:, : len(xs)]


@cache
def _classify(cell: str, pooling: Pooling) -> Callable:
    step = _step(cell, pooling)

    def unread(params, carry, x):
        return step(params, carry, x)[0], None

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None))
    def classify(params, xs, mask):
        carry = pooled.zeros(params["cell"], cell, pooling, xs.shape[1])
        carry, _ = gradients.unroll(unread, params, carry, xs, mask=mask)
        return jax.nn.softmax(pooled.readout(params, carry))

    return classify


def _step(cell: str, pooling: Pooling) -> Step:
    return pooled.make_step(cell, pooling, lambda _, x: x)
