"""Texts as indices of words or of windows of characters, and batches of them.

A symbol, a word or a character, is a few indices: its own, which is UNKNOWN if the
texts that were learned from lack it, and for words those of its parts, the three
neighbouring letters, which are hashed. So a word that is new is still like others.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.networks.batches import draw_batches, length_buckets, pad

Kind = Literal["words", "characters"]
KINDS = ("words", "characters")
NONE, UNKNOWN, FIRST = 0, 1, 2  # no index, that of new symbols, the first of known ones
PARTS = 12  # of a word, at most


def of_kind(settings: Sequence, kind: Kind) -> Any:
    """Return which of the settings, for words and for characters, is that of a kind."""
    return settings[KINDS.index(kind)]


class Units(NamedTuple):
    """The symbols that were in some texts, and how often."""

    kind: Kind
    counts: dict[str, int]  # index FIRST is that of the first
    hashed: int  # how many indices there are for parts of words
    width: int  # how many neighbours are read together
    stride: int  # how many further on is what is read next

    @property
    def size(self) -> int:
        """How many indices there are."""
        return self.width * (FIRST + len(self.counts)) + self.hashed


class Encoded(NamedTuple):
    """Texts as symbols."""

    symbols: np.ndarray  # [S, K] indices, the symbol's own at first; NONE is none
    unknown: np.ndarray  # [S] what its index would be if it were new
    counts: np.ndarray  # [S] how often a symbol was learned from
    texts: list[np.ndarray]  # each [its length, W] rows of symbols


def split(text: str, kind: Kind) -> list[str]:
    """Return the symbols of a text; other digits are as 0, and spaces as one.

    Example:
      >>> split("Win £500 now!", "words")
      ['Win', '£', '000', 'now', '!']
      >>> split("a  7", "characters")
      ['a', ' ', '0']
    """
    text = re.sub(r"\d", "0", text)
    if kind == "words":
        return re.findall(r"\w+|[^\w\s]", text)
    return list(" ".join(text.split()))


def learn_units(
    texts: Sequence[str], kind: Kind, *, hashed: int, width: int, stride: int
) -> Units:
    """Return the symbols of the texts to learn from, and of no others.

    Words are the same in capitals and small letters; their parts are not.

    Example:
      >>> learn_units(["No no", "yes"], "words", hashed=0, width=4, stride=2).counts
      {'no': 2, 'yes': 1}
    """
    found = Counter(_name(unit, kind) for text in texts for unit in split(text, kind))
    if kind == "words":
        return Units(kind, dict(found), hashed, 1, 1)
    return Units(kind, dict(found), 0, width, stride)


def encode(units: Units, texts: Sequence[str], longest: int) -> Encoded:
    """Return texts as symbols, at most the first `longest` of each.

    Raises:
      ValueError: if a text has none.
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
    """Draw batches (xs, targets, weights, mask, symbols) of similar lengths.

    xs [T, B] are rows of symbols [U, K], which are those of the batch alone.

    Args:
      encoded: the texts.
      labels: the class of each.
      start: the step of the first batch.
      batch: texts in each.
      run: how many batches of one shape follow each other.
      lengths: how many shapes of batches there are, at most.
      rare: a symbol that there are c of is taken for an unknown one in a share of
        rare / (rare + c) of batches: so networks learn what to make of those.
      seed: of all draws.

    References:
      Kiperwasser and Goldberg, "Simple and accurate dependency parsing using
      bidirectional LSTM feature representations", TACL 4, 2016 (unknown words).
    """
    buckets = length_buckets([*map(len, encoded.texts)], lengths)
    distinct = np.array([len(np.unique(text)) for text in encoded.texts])
    most = {  # symbols in a batch: those of the texts that have the most, and padding
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
    """Return neighbours that are read together, the last one first; "" is none."""
    padded = [""] * (width - 1) + units
    ends = range(len(units) - 1, -1, -stride)
    return [padded[end : end + width][::-1] for end in reversed(ends)]


def _parts(word: str, hashed: int) -> list[int]:
    """Return the indices of a word's parts, with its begin and its end as < and >."""
    marked = f"<{word}>"
    parts = [marked[i : i + 3] for i in range(len(marked) - 2)][:PARTS]
    return [zlib.crc32(part.encode()) % hashed for part in parts]
