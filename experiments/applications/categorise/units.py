"""Texts as indices of words, or of characters in windows; batches of texts.

A symbol is a word or a character, and has one or more indices. The first index belongs
to the symbol alone; it is UNKNOWN if the symbol is not in the training texts. A word
has further indices, one for each part (three neighbouring letters), found by a hash
function. A word that is not in the training texts shares indices with known words that
have the same parts. Optionally, a word has one more index for the pair of the previous
word and itself, also found by a hash function.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.data import as_seen
from experiments.networks.batches import draw_batches, length_buckets, pad

Kind = Literal["words", "characters"]
KINDS = ("words", "characters")
NONE, UNKNOWN, FIRST = 0, 1, 2  # index of padding, unknown symbols, first known symbol
PARTS = 12  # only the first 12 parts of a word have an index


def of_kind(settings: Sequence, kind: Kind) -> Any:
    """Return the first of two settings for words, and the second for characters."""
    return settings[KINDS.index(kind)]


class Units(NamedTuple):
    """Symbols of the training texts, and the number of times that each occurs."""

    kind: Kind
    counts: dict[str, int]  # {symbol: times it occurs}; the first one has index FIRST
    hashed: int  # number of hash buckets for parts of words
    width: int  # symbols in a window; a network reads one window per step
    stride: int  # number of symbols from one window's start to the next
    pairs: int = 0  # number of hash buckets for pairs of neighbouring words

    @property
    def size(self) -> int:
        """Number of different indices; each index has an embedding."""
        return self.width * (FIRST + len(self.counts)) + self.hashed + self.pairs


class Encoded(NamedTuple):
    """Texts as arrays of indices into a table of symbols."""

    symbols: np.ndarray  # [S, K]: K indices of each of S symbols, padded with NONE
    unknown: np.ndarray  # [S] index that replaces symbols[:, 0] of an unknown symbol
    counts: np.ndarray  # [S] number of times the symbol is in the training texts
    texts: list[np.ndarray]  # each [length, symbols in a window]: row numbers


def split(text: str, kind: Kind) -> list[str]:
    """Split a text into symbols; each digit becomes 0, and several spaces become one.

    Texts that look the same give the same symbols. A letter and its accent are one
    character (NFC), and invisible characters, such as a zero-width space, are left out.

    Example:
      >>> split("Win £500 now!", "words")
      ['Win', '£', '000', 'now', '!']
      >>> split("a  7", "characters")
      ['a', ' ', '0']
    """
    text = re.sub(r"\d", "0", as_seen(text))
    if kind == "words":
        return re.findall(r"\w+|[^\w\s]", text)
    return list(" ".join(text.split()))


def learn_units(
    texts: Sequence[str],
    kind: Kind,
    *,
    hashed: int,
    width: int,
    stride: int,
    pairs: int = 0,
) -> Units:
    """Return the symbols of the training texts.

    A word in upper case and the word in lower case are one symbol, but their parts have
    different indices.

    Example:
      >>> learn_units(["No no", "yes"], "words", hashed=0, width=4, stride=2).counts
      {'no': 2, 'yes': 1}
    """
    found = Counter(_name(unit, kind) for text in texts for unit in split(text, kind))
    if kind == "words":
        return Units(kind, dict(found), hashed, 1, 1, pairs)
    return Units(kind, dict(found), 0, width, stride)


def encode(units: Units, texts: Sequence[str], longest: int) -> Encoded:
    """Encode texts as indices; only the first `longest` symbols of a text are read.

    Raises:
      ValueError: if a text has no symbols.
    """
    own = {name: FIRST + i for i, name in enumerate(units.counts)}
    rows: dict[tuple[int, str, int], int] = {}
    encoded = []
    for text in texts:
        found = split(text, units.kind)[:longest]
        if not found:
            raise ValueError(f"a text must have some {units.kind}, got {text!r}.")
        read = _windows(found, units.width, units.stride)
        numbers = [
            [rows.setdefault((*at, pair), len(rows)) for at in enumerate(window)]
            for window, pair in zip(read, _pairs(found, units), strict=False)
        ]
        encoded.append(np.array(numbers, np.int32))
    width = 1 + (PARTS if units.hashed else 0) + (1 if units.pairs else 0)
    symbols = np.full((len(rows), width), NONE, np.int32)
    unknown, counts = np.full(len(rows), NONE, np.int32), np.zeros(len(rows), np.int64)
    for (place, unit, pair), row in rows.items():
        if not unit:
            continue
        name = _name(unit, units.kind)
        begin = place * (FIRST + len(own))
        symbols[row, 0] = begin + own.get(name, UNKNOWN)
        unknown[row] = begin + UNKNOWN
        counts[row] = units.counts.get(name, 0)
        if units.hashed:
            parts = _parts(unit, units.hashed)
            symbols[row, 1 : 1 + len(parts)] = FIRST + len(own) + np.array(parts)
        if units.pairs:
            symbols[row, -1] = pair
    return Encoded(symbols, unknown, counts, encoded)


def batches(
    encoded: Encoded,
    labels: np.ndarray,
    start: int,
    *,
    batch: int,
    run: int,
    lengths: int,
    rare: float,
    seed: int,
) -> Iterator[tuple]:
    """Draw batches (xs, targets, weights, mask, symbols) of texts of similar lengths.

    The array `symbols` [U, K] has K indices for each of the U symbols of the batch. The
    array xs [T, B, W] holds the W symbols that are read at each time step of each text;
    a symbol is given as a row number of `symbols`. `weights` is 1 at the last step of a
    text, and 0 at all other steps.

    Args:
      encoded: texts as indices.
      labels: class of each text.
      start: number of batches to skip, to resume a training.
      batch: number of texts in a batch.
      run: number of consecutive batches that have the same shape.
      lengths: largest number of different lengths to which texts are padded.
      rare: a symbol that occurs c times in the training texts is replaced by the
        unknown symbol in a batch with probability rare / (rare + c), so that networks
        learn to read unknown symbols.
      seed: seed of all random numbers.

    References:
      Kiperwasser and Goldberg, "Simple and accurate dependency parsing using
      bidirectional LSTM feature representations", TACL 4, 2016 (unknown words).
    """
    buckets = length_buckets([*map(len, encoded.texts)], lengths)
    distinct = np.array([len(np.unique(text)) for text in encoded.texts])
    most = {  # {length of texts: largest number of rows of `symbols` in a batch}
        length: min(1 + np.sort(distinct[rows])[-batch:].sum(), len(encoded.symbols))
        for length, rows in buckets
    }
    drawn = draw_batches(buckets, batch, seed=seed, run=run, start=start)
    for step, bucket in enumerate(drawn, start):
        xs, mask = pad(encoded.texts, bucket)
        shape = xs.shape
        used, xs = np.unique(xs, return_inverse=True)
        size = most[bucket.length]
        symbols = np.full((size, encoded.symbols.shape[1]), NONE, np.int32)
        symbols[: len(used)] = encoded.symbols[used]
        rng = np.random.default_rng((seed, 1, step))
        chance = rare / (rare + encoded.counts[used]) if rare else 0.0
        forgotten = np.flatnonzero(rng.uniform(size=len(used)) < chance)
        symbols[forgotten, 0] = encoded.unknown[used[forgotten]]
        ends = mask & ~np.concatenate([mask[1:], np.zeros_like(mask[:1])])
        targets = np.broadcast_to(labels[bucket.rows], mask.shape)
        xs = xs.reshape(shape).astype(np.int32)
        yield xs, targets, ends.astype(np.float32), mask, symbols


def _name(unit: str, kind: Kind) -> str:
    return unit.casefold() if kind == "words" else unit


def _windows(units: list[str], width: int, stride: int) -> list[list[str]]:
    """Return windows of neighbouring symbols, each window reversed; "" is padding."""
    padded = [""] * (width - 1) + units
    ends = range(len(units) - 1, -1, -stride)
    return [padded[end : end + width][::-1] for end in reversed(ends)]


def _pairs(found: list[str], units: Units) -> list[int]:
    """Return the index of the pair that each word forms with the previous word."""
    if not units.pairs:
        return [NONE] * len(found)
    words = ["", *(_name(word, units.kind) for word in found)]
    pairs = [f"{before} {word}" for before, word in pairwise(words)]
    first = units.size - units.pairs
    return [first + _bucket(pair, units.pairs) for pair in pairs]


def _parts(word: str, hashed: int) -> list[int]:
    """Return hashed indices of a word's parts; < marks the word's start, > its end."""
    marked = f"<{word}>"
    parts = [marked[i : i + 3] for i in range(len(marked) - 2)][:PARTS]
    return [_bucket(part, hashed) for part in parts]


def _bucket(text: str, buckets: int) -> int:
    return zlib.crc32(text.encode()) % buckets
