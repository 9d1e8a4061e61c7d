"""Batches of sequences of different lengths, padded, in buckets of similar lengths.

Sequences are put into a few buckets by their length, and a batch is as long as the
longest of its bucket: so little is padding, and few programs are compiled.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Bucket(NamedTuple):
    """Some sequences, and a length that none of them exceeds."""

    length: int
    rows: np.ndarray  # indices; −1 is a row that is all padding


def pad(
    sequences: Sequence[np.ndarray], bucket: Bucket | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences [T, B, …], zeros at their ends, and the mask [T, B].

    Args:
      sequences: each [its own T, …], of one dtype.
      bucket: which of them, to what length; by default all, to that of the longest.

    Raises:
      ValueError: if a sequence is longer than the bucket, or there are none.

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
                f"sequences must not be longer than the bucket, {bucket.length}; that "
                f"of index {row} has {size} steps."
            )
        xs[:size, place], mask[:size, place] = sequences[row], True
    return xs, mask


def length_buckets(lengths: Sequence[int], count: int = 4) -> list[Bucket]:
    """Put sequences into buckets of about as many each, the short ones first.

    Args:
      lengths: of all sequences.
      count: how many buckets at most; there are fewer where many lengths are the same.

    Example:
      >>> for bucket in length_buckets([3, 9, 4, 8, 3], count=2):
      ...     print(bucket.length, bucket.rows.tolist())
      4 [0, 2, 4]
      9 [1, 3]
    """
    sizes = np.asarray(lengths)
    if not sizes.size or count < 1:
        raise ValueError(
            f"lengths must hold at least one, and count be at least 1; got "
            f"{sizes.size} and {count}."
        )
    shares = np.arange(1, count + 1) / count
    ends = np.unique(np.quantile(sizes, shares, method="inverted_cdf"))
    which = np.searchsorted(ends, sizes)
    return [Bucket(int(end), np.flatnonzero(which == i)) for i, end in enumerate(ends)]


def draw_batches(
    buckets: Sequence[Bucket], batch: int, *, seed: int, run: int = 1, start: int = 0
) -> Iterator[Bucket]:
    """Draw batches without end, each from one bucket, `run` of the same after another.

    What :func:`~bpvariants.training.fit` compiles together, its `chunk`, must be of one
    shape: that is `run`, which should be small, as a longer run sees sequences of about
    one length. Sequences come equally often in the mean: a bucket is chosen in
    proportion to its size, and its sequences are taken in turn, in random order.

    Args:
      buckets: to draw from, as :func:`length_buckets` returns them.
      batch: sequences in a batch; some are in it twice if a bucket has fewer.
      seed: of all draws.
      run: how many batches come from a bucket before another is chosen.
      start: how many batches to leave out, at no cost, to go on from there.

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
        rng = np.random.default_rng((seed, number))  # so any run can be the first
        chosen = buckets[rng.choice(len(buckets), p=weights / weights.sum())]
        turns = -(-run * batch // len(chosen.rows))
        order = np.concatenate([rng.permutation(chosen.rows) for _ in range(turns)])
        for i in range(left_out, run):
            yield Bucket(chosen.length, order[i * batch : (i + 1) * batch])
        number, left_out = number + 1, 0


def all_batches(buckets: Sequence[Bucket], batch: int) -> Iterator[Bucket]:
    """Return every sequence once, in batches of equal size: for evaluation.

    The last batch of a bucket is filled up with rows of −1, which :func:`pad` leaves
    empty.

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
