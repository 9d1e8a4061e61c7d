"""Sentences as indices of words, batches of sentences, and scores of translations.

BLEU is sacrebleu's score of a whole corpus, with one reference for each sentence. The
sentences are in lower case without accents, so their BLEU is not comparable with the
BLEU of ordinary text.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sklearn.feature_extraction.text import TfidfVectorizer

from experiments import data
from experiments.applications.translate.losses import Batch
from experiments.applications.translate.network import END, UNKNOWN
from experiments.networks.batches import Bucket, draw_batches, length_buckets, pad

RESAMPLED = 300  # number of bootstrap samples for the interval of BLEU
Part = list[tuple[str, str]]  # (source, target)


class Corpus(NamedTuple):
    """Sentence pairs (source, target) in three parts, and training vocabularies."""

    train: Part
    validation: Part
    test: Part
    source_words: list[str]  # word of each index; the first two are END and UNKNOWN
    target_words: list[str]


def load(to: Literal["english", "french"]) -> Corpus:
    """Load the pairs of PyTorch's tutorial, split by a hash of the English sentence.

    `to` is the language of the targets; the other language is the source.
    """
    found = data.tatoeba_fra_eng(data.tutorial_form, data.is_of_tutorial)
    parts = [
        [pair if to == "french" else (pair[1], pair[0]) for pair in part]
        for part in found
    ]
    return make_corpus(*parts)


def make_corpus(train: Part, validation: Part, test: Part) -> Corpus:
    """Return a corpus and its vocabularies, the most frequent words first.

    Example:
      >>> make_corpus([("un chat", "a cat"), ("un", "a")], [], []).source_words
      ['<end>', '<unknown>', 'un', 'chat']
    """
    sides = [
        Counter(word for pair in train for word in pair[i].split()) for i in (0, 1)
    ]
    words = [["<end>", "<unknown>", *(w for w, _ in s.most_common())] for s in sides]
    return Corpus(train, validation, test, *words)


def to_numbers(sentences: Sequence[str], words: list[str]) -> list[np.ndarray]:
    """Convert each sentence to the indices of its words, followed by END.

    Example:
      >>> to_numbers(["a dog"], ["<end>", "<unknown>", "a"])[0].tolist()
      [2, 1, 0]
    """
    number = {word: i for i, word in enumerate(words)}
    return [
        np.array([*(number.get(w, UNKNOWN) for w in each.split()), END], np.int32)
        for each in sentences
    ]


def to_text(numbers: Iterable[int], words: list[str]) -> str:
    """Convert indices of words to text; END and all words after it are dropped.

    Example:
      >>> to_text([2, 0, 2], ["<end>", "<unknown>", "a"])
      'a'
    """
    before = itertools.takewhile(lambda number: number != END, numbers)
    return " ".join(words[number] for number in before)


class Numbers(NamedTuple):
    """A part of a corpus as indices of words."""

    source: list[np.ndarray]
    target: list[np.ndarray]


def part_to_numbers(part: Part, corpus: Corpus) -> Numbers:
    """Return the sentence pairs of a part as indices of words."""
    return Numbers(
        to_numbers([pair[0] for pair in part], corpus.source_words),
        to_numbers([pair[1] for pair in part], corpus.target_words),
    )


def padded(numbers: Numbers, rows: Bucket, length: int) -> Batch:
    """Return some sentence pairs as a batch, with targets padded to `length` words."""
    target = pad(numbers.target, Bucket(length, rows.rows))
    return Batch(*pad(numbers.source, rows), *target)


def batches(
    numbers: Numbers,
    start: int,
    *,
    batch: int,
    run: int,
    lengths: int,
    forget: float,
    seed: int,
) -> Iterator[tuple]:
    """Draw batches of sentences of about the same length.

    Args:
      numbers: sentence pairs to draw from, as indices of words.
      start: number of batches to skip, to resume a training.
      batch: number of sentence pairs in a batch.
      run: number of consecutive batches that have the same shape.
      lengths: largest number of different lengths that sources are padded to.
      forget: fraction of source words to replace by UNKNOWN, so that the network learns
        to read unknown words. The words are drawn anew for each batch.
      seed: seed of all random numbers.
    """
    buckets = length_buckets([*map(len, numbers.source)], lengths)
    longest = {
        bucket.length: max(len(numbers.target[row]) for row in bucket.rows)
        for bucket in buckets
    }
    drawn = draw_batches(buckets, batch, seed=seed, run=run, start=start)
    for step, bucket in enumerate(drawn, start):
        found = padded(numbers, bucket, longest[bucket.length])
        rng = np.random.default_rng((seed, 1, step))
        lost = (rng.random(found.source.shape) < forget) & (found.source != END)
        yield tuple(found._replace(source=np.where(lost, UNKNOWN, found.source)))


def score(said: Sequence[str], right: Sequence[str]) -> dict[str, float]:
    """Return BLEU, its 95 % bootstrap interval, and the percentage of exact matches.

    `said` are the translations, and `right` the reference translations.

    Example:
      >>> same = ["i am not a very old man", "she is here with you and me"]
      >>> {name: round(value) for name, value in score(same, same).items()}
      {'bleu': 100, 'low': 100, 'high': 100, 'exact': 100}
    """
    found: Any = BLEU(tokenize="none").corpus_score(
        list(said), [list(right)], n_bootstrap=RESAMPLED
    )
    exact = np.mean([a == b for a, b in zip(said, right, strict=True)])
    return {
        "bleu": float(found.score),
        "low": float(found._mean - found._ci),
        "high": float(found._mean + found._ci),
        "exact": 100 * float(exact),
    }


def most_common(train: Part, sources: Sequence[str]) -> list[str]:
    """Translate every source by the most common target of the training part."""
    target = Counter(pair[1] for pair in train).most_common(1)[0][0]
    return [target] * len(sources)


def nearest(train: Part, sources: Sequence[str]) -> list[str]:
    """Translate each source by the target of the most similar training source.

    Similarity is the cosine of the angle between tf-idf vectors; their features are
    words and pairs of neighbouring words.

    Example:
      >>> nearest([("un chat", "a cat"), ("un chien", "a dog")], ["le chien"])
      ['a dog']
    """
    words = TfidfVectorizer(token_pattern=r"\S+", lowercase=False, ngram_range=(1, 2))
    known: Any = words.fit_transform([pair[0] for pair in train])
    alike: Any = words.transform(sources) @ known.T
    return [train[i][1] for i in np.asarray(alike.argmax(axis=1)).ravel()]
