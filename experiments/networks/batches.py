"""Padded batches of sequences of different lengths, in buckets of similar lengths.

Sequences are put into a few buckets by their length. All batches of a bucket are padded
to the length of its longest sequence. Buckets keep the padding small. Buckets also keep
compilation short, because the batches have few different shapes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Bucket(NamedTuple):
    """Indices of sequences with similar lengths, and the length to pad them to."""

    length: int
    rows: np.ndarray  # indices of sequences; −1 means a row of padding


def pad(
    sequences: Sequence[np.ndarray], bucket: Bucket | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences with zeros at their ends; return one array [T, B, …] and its mask.

    The mask [T, B] is False in the padding.

    Args:
      sequences: arrays [T, …] of the same dtype; lengths T may differ.
      bucket: indices of the sequences to take, and the length to pad them to. By
        default, all sequences are taken, and padded to the length of the longest
        sequence.

    Raises:
      ValueError: if a sequence is longer than the bucket, or if there are none.

    Example:
      >>> xs, mask = pad([np.array([1, 2]), np.array([3])])
      >>> xs.tolist(), mask.tolist()
      ([[1, 3], [2, 0]], [[True, True], [True, False]])
    """
    if not len(sequences):
        raise ValueError("sequences must hold at least one, got none.")
    if bucket is None:
        longest = max(map(len, sequences))
        bucket = Bucket(longest, np.arange(len(sequences)))
    first = np.asarray(sequences[0])
    shape = bucket.length, len(bucket.rows)
    xs, mask = np.zeros((*shape, *first.shape[1:]), first.dtype), np.zeros(shape, bool)
    for place, row in enumerate(bucket.rows):
        if row < 0:
            continue
        size = len(sequences[row])
        if size > bucket.length:
            raise ValueError(
                f"sequences must not be longer than the bucket, {bucket.length}; "
                f"sequence {row} has {size} steps."
            )
        xs[:size, place], mask[:size, place] = sequences[row], True
    return xs, mask


def length_buckets(lengths: Sequence[int], count: int = 4) -> list[Bucket]:
    """Put sequences into buckets by length, with about equally many in each bucket.

    The first bucket has the shortest sequences.

    Args:
      lengths: lengths of all sequences.
      count: largest number of buckets; there are fewer if many lengths are equal.

    Example:
      >>> for bucket in length_buckets([3, 9, 4, 8, 3], count=2):
      ...     print(bucket.length, bucket.rows.tolist())
      4 [0, 2, 4]
      9 [1, 3]
    """
    sizes = np.asarray(lengths)
    if not sizes.size or count < 1:
        raise ValueError(
            f"lengths must hold at least one, and count must be at least 1; got "
            f"{sizes.size} and {count}."
        )
    shares = np.arange(1, count + 1) / count
    ends = np.unique(np.quantile(sizes, shares, method="inverted_cdf"))
    which = np.searchsorted(ends, sizes)
    return [Bucket(int(end), np.flatnonzero(which == i)) for i, end in enumerate(ends)]


def draw_batches(
    buckets: Sequence[Bucket], batch: int, *, seed: int, run: int = 1, start: int = 0
) -> Iterator[Bucket]:
    """Draw batches endlessly: choose a bucket, draw `run` batches from it, repeat.

    The function :func:`~bpvariants.training.fit` trains in chunks of several steps. All
    batches of a chunk must have the same shape, so `run` should be the number of steps
    in a chunk. On the other hand, `run` should be small, because all `run` batches have
    sequences of similar length. On average, all sequences are drawn equally often. The
    probability of a bucket is proportional to its number of sequences, and the
    sequences of a bucket are drawn in random order.

    Args:
      buckets: buckets to draw from, made by :func:`length_buckets`.
      batch: number of sequences in a batch; if a bucket has fewer sequences, some are
        repeated.
      seed: seed of all random numbers.
      run: number of batches from one bucket before the next bucket is chosen.
      start: number of batches to skip when a training is resumed; skipping batches
        takes no time.

    Example:
      >>> buckets = length_buckets([3, 9, 4, 8, 3], count=2)
      >>> drawn = draw_batches(buckets, 2, seed=0, run=2)
      >>> [next(drawn).length for _ in range(6)]
      [9, 9, 9, 9, 4, 4]
    """
    for name, value in {"batch": batch, "run": run}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    weights = np.array([len(bucket.rows) for bucket in buckets], float)
    number, left_out = divmod(start, run)
    while True:
        # Each run of batches from one bucket has its own random generator. A resumed
        # training can therefore begin with any of these runs.
        rng = np.random.default_rng((seed, number))
        chosen = buckets[rng.choice(len(buckets), p=weights / weights.sum())]
        turns = -(-run * batch // len(chosen.rows))
        order = np.concatenate([rng.permutation(chosen.rows) for _ in range(turns)])
        for i in range(left_out, run):
            yield Bucket(chosen.length, order[i * batch : (i + 1) * batch])
        number, left_out = number + 1, 0


def all_batches(buckets: Sequence[Bucket], batch: int) -> Iterator[Bucket]:
    """Yield every sequence once, in batches of equal size, for evaluation.

    If a bucket's last batch has too few sequences, it is filled up with the index −1.
    For this index, the function :func:`pad` returns padding only.

    Example:
      >>> buckets = length_buckets([3, 9, 4, 8, 3], count=2)
      >>> [each.rows.tolist() for each in all_batches(buckets, 2)]
      [[0, 2], [4, -1], [1, 3]]
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}.")
    for length, rows in buckets:
        filled = np.full(-(-len(rows) // batch) * batch, -1)
        filled[: len(rows)] = rows
        for part in filled.reshape(-1, batch):
            yield Bucket(length, part)
