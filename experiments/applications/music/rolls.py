"""Pieces of music as streams of piano rolls, and baseline models of music.

A piano roll [T, 88] says which of 88 piano keys sound at each of T time steps. A stream
is a series of pieces, one after the other; streams are read in parallel. A model
predicts the keys of step t + 1 from the keys of the steps up to t.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data import Music, to_roll
from experiments.networks.recurrent import Window


class Rolls(NamedTuple):
    """Pieces as piano rolls [T, 88], in three parts, as in the published split."""

    train: list[np.ndarray]
    validation: list[np.ndarray]
    test: list[np.ndarray]


def as_rolls(music: Music) -> Rolls:
    """Return the parts of a data set as piano rolls, of dtype uint8."""
    return Rolls(
        *([to_roll(piece).astype(np.uint8) for piece in part] for part in music)
    )


def pack(lengths: Sequence[int], streams: int) -> list[list[int]]:
    """Distribute pieces over streams of about equal length; return indices of pieces.

    The longest piece is placed first. Each piece is added to the shortest stream.

    Example:
      >>> pack([5, 3, 4, 2], 2)
      [[0, 3], [2, 1]]
    """
    shares: list[list[int]] = [[] for _ in range(streams)]
    total = np.zeros(streams, int)
    for i in np.argsort(-np.asarray(lengths), kind="stable"):
        shortest = int(np.argmin(total))
        shares[shortest].append(int(i))
        total[shortest] += lengths[i]
    return shares


def lay_out(
    rolls: Sequence[np.ndarray], shares: Sequence[Sequence[int]], multiple: int = 1
) -> Window:
    """Lay out pieces as one window of streams; a stream is a series of pieces.

    The target at a time step is the next time step of the same piece. The last step of
    a piece is read, but has no target and no loss.

    Args:
      rolls: pieces, each [T, 88] of zeros and ones.
      shares: for each stream, the indices of its pieces in order.
      multiple: the window's number of steps is rounded up to a multiple of this number.

    Example:
      >>> one = np.ones((3, 88), np.uint8)
      >>> window = lay_out([one, one[:2]], [[0, 1]])
      >>> window.xs.shape, window.weights[:, 0].tolist()
      ((5, 1, 88), [True, True, False, True, False])
      >>> window.reset[:, 0].tolist()
      [True, False, False, True, False]
    """
    longest = max(sum(len(rolls[i]) for i in share) for share in shares)
    length = -(-longest // multiple) * multiple
    shape = length, len(shares)
    xs = np.zeros((*shape, rolls[0].shape[1]), np.uint8)
    targets = np.zeros_like(xs)
    weights, mask, reset = (np.zeros(shape, bool) for _ in range(3))
    for b, share in enumerate(shares):
        begin = 0
        for i in share:
            roll, end = rolls[i], begin + len(rolls[i])
            xs[begin:end, b], targets[begin : end - 1, b] = roll, roll[1:]
            mask[begin:end, b], weights[begin : end - 1, b] = True, True
            reset[begin, b] = True
            begin = end
    return Window(xs, targets, weights, mask, reset)


def side_by_side(rolls: Sequence[np.ndarray], streams: int) -> Window:
    """Return all pieces as one window of `streams` parallel streams, for tests."""
    return lay_out(rolls, pack([len(roll) for roll in rolls], streams))


@dataclasses.dataclass(frozen=True)
class Streams:
    """Training pieces as parallel streams, which are read window by window."""

    rolls: Sequence[np.ndarray]
    streams: int
    window: int
    seed: int

    def __call__(self, start: int) -> Iterator[Window]:
        """Yield windows endlessly; the first window has the number `start`.

        For each pass through the training pieces, their order is drawn anew.
        """
        shares = pack([len(roll) for roll in self.rolls], self.streams)
        longest = max(sum(len(self.rolls[i]) for i in share) for share in shares)
        windows = -(-longest // self.window)
        number, left_out = divmod(start, windows)
        while True:
            rng = np.random.default_rng((self.seed, number))
            mixed = [rng.permutation(share).tolist() for share in shares]
            whole = lay_out(self.rolls, mixed, self.window)
            for i in range(left_out, windows):
                cut = slice(i * self.window, (i + 1) * self.window)
                yield Window(*(part[cut] for part in whole))
            number, left_out = number + 1, 0


def independent_keys(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> float:
    """Return the loss on `test`, in nats per step, of a model of independent keys.

    The probability that a piano key sounds is its frequency in `train`, with counts
    increased by one half. The first step of a piece is not scored.
    """
    (_, after), (_, targets) = _pairs(train), _pairs(test)
    return _nats(_share(after), targets)


def markov_keys(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> float:
    """Return the loss on `test`, in nats per step, of a Markov chain per piano key.

    A chain predicts its key from this key at the step before; it is fitted to `train`.
    """
    (before, after), (given, targets) = _pairs(train), _pairs(test)
    shares = _share(after, before), _share(after, ~before)
    return _nats(np.where(given, *shares), targets)


def _pairs(rolls: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    ends = [roll[:-1] for roll in rolls], [roll[1:] for roll in rolls]
    before, after = (np.concatenate(each) > 0 for each in ends)
    return before, after


def _share(sounds: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    where = np.ones_like(sounds) if where is None else where
    return ((sounds & where).sum(axis=0) + 0.5) / (where.sum(axis=0) + 1)


def _nats(probabilities: np.ndarray, sounds: np.ndarray) -> float:
    likely = np.where(sounds, probabilities, 1 - probabilities)
    return float(-np.log(likely).sum(axis=1).mean())
