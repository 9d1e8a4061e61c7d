"""Texts as indices of words or of windows of characters, and batches of texts.

A symbol is a word or a character, and has one or more indices. The first index is the
symbol's own, or UNKNOWN if the symbol is not in the training texts. A word also has a
hashed index for each of its parts, which are three neighbouring letters. So a word that
is not in the training texts still shares indices with known words.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.data import as_seen
from experiments.networks.batches import draw_batches, length_buckets, pad

Kind = Literal["words", "characters"]
KINDS = ("words", "characters")
NONE, UNKNOWN, FIRST = 0, 1, 2  # index of padding, unknown and the first known symbol
PARTS = 12  # largest number of parts of a word


def of_kind(settings: Sequence, kind: Kind) -> Any:
    """Return the setting of one kind, from settings (for words, for characters)."""
    return settings[KINDS.index(kind)]


class Units(NamedTuple):
    """Symbols of the training texts, and how often each occurs."""

    kind: Kind
    counts: dict[str, int]  # symbols in the order of their indices, from FIRST on
    hashed: int  # number of indices for parts of words
    width: int  # symbols in a window; a network reads a window in one step
    stride: int  # symbols from the start of a window to the start of the next

    @property
    def size(self) -> int:
        """Number of indices."""
        return self.width * (FIRST + len(self.counts)) + self.hashed


class Encoded(NamedTuple):
    """Texts as indices of rows in a table of symbols."""

    symbols: np.ndarray  # [S, K] indices, the symbol's own first; NONE is padding
    unknown: np.ndarray  # [S] index that replaces a symbol's own to make it unknown
    counts: np.ndarray  # [S] how often the symbol occurs in the training texts
    texts: list[np.ndarray]  # each [its length, W], rows of `symbols`


def split(text: str, kind: Kind) -> list[str]:
    """Split a text into symbols; every digit becomes 0, and runs of spaces one space.

    Texts that look alike are split alike: an accent is part of its letter (NFC), and
    characters that cannot be seen, such as a zero-width space, are left out.

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
    texts: Sequence[str], kind: Kind, *, hashed: int, width: int, stride: int
) -> Units:
    """Return the symbols of the training texts.

    Words in upper and in lower case are the same symbol, but their parts differ.

    Example:
      >>> learn_units(["No no", "yes"], "words", hashed=0, width=4, stride=2).counts
      {'no': 2, 'yes': 1}
    """
    found = Counter(_name(unit, kind) for text in texts for unit in split(text, kind))
    if kind == "words":
        return Units(kind, dict(found), hashed, 1, 1)
    return Units(kind, dict(found), 0, width, stride)


def encode(units: Units, texts: Sequence[str], longest: int) -> Encoded:
    """Encode the first `longest` symbols of each text.

    Raises:
      ValueError: if a text has no symbols.
    """
    own = {name: FIRST + i for i, name in enumerate(units.counts)}
    rows: dict[tuple[int, str], int] = {}
    encoded = []
    for text in texts:
        found = split(text, units.kind)[:longest]
        if not found:
            raise ValueError(f"a text must have some {units.kind}, got {text!r}.")
        read = _windows(found, units.width, units.stride)
        numbers = [
            [rows.setdefault(place, len(rows)) for place in enumerate(window)]
            for window in read
        ]
        encoded.append(np.array(numbers, np.int32))
    width = 1 + (PARTS if units.hashed else 0)
    symbols = np.full((len(rows), width), NONE, np.int32)
    unknown, counts = np.full(len(rows), NONE, np.int32), np.zeros(len(rows), np.int64)
    for (place, unit), row in rows.items():
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

    xs [T, B, W] are indices of rows in `symbols` [U, K], a table of the symbols that
    are in the batch.

    Args:
      encoded: the texts.
      labels: the class of each text.
      start: the step of the first batch.
      batch: texts in a batch.
      run: number of consecutive batches of one shape.
      lengths: largest number of different shapes of batches.
      rare: a symbol that occurs c times in training texts is made unknown in
        rare / (rare + c) of the batches: so networks learn to read unknown symbols.
      seed: seed of all draws.

    References:
      Kiperwasser and Goldberg, "Simple and accurate dependency parsing using
      bidirectional LSTM feature representations", TACL 4, 2016 (unknown words).
    """
    buckets = length_buckets([*map(len, encoded.texts)], lengths)
    distinct = np.array([len(np.unique(text)) for text in encoded.texts])
    most = {  # largest number of symbols in a batch, with one more for padding
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
    """Return windows of neighbouring symbols, in reverse order; "" is padding."""
    padded = [""] * (width - 1) + units
    ends = range(len(units) - 1, -1, -stride)
    return [padded[end : end + width][::-1] for end in reversed(ends)]


def _parts(word: str, hashed: int) -> list[int]:
    """Return the hashed indices of a word's parts; < and > mark the word's ends."""
    marked = f"<{word}>"
    parts = [marked[i : i + 3] for i in range(len(marked) - 2)][:PARTS]
    return [zlib.crc32(part.encode()) % hashed for part in parts]
