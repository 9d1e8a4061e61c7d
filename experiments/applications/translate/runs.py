"""Networks of several seeds: initial weights, translations and scores."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import training
from bpvariants.types import PyTree
from experiments import data
from experiments.applications.translate import network, text
from experiments.applications.translate.losses import Batch, counted, greedy, losses
from experiments.applications.translate.network import encode, How, Sizes, UNKNOWN
from experiments.applications.translate.text import Corpus, Numbers, Part
from experiments.harness.errors import DataError
from experiments.networks.batches import all_batches, Bucket, pad

LONGEST = 9  # largest number of words in a sentence, as in PyTorch's tutorial
STEPS = LONGEST + 3  # largest number of words in a translation
BATCH, EXAMPLES = 256, 8


def init(key: jax.Array, sizes: Sizes, runs: int) -> PyTree:
    """Draw the parameters of several networks; axis 0 of each leaf is the network."""
    keys = jax.random.split(jax.random.fold_in(key, 1), runs)
    return _init(sizes)(keys)


@cache
def _init(sizes: Sizes) -> Callable:
    return jax.jit(jax.vmap(partial(network.init, sizes=sizes)))


class Scored(NamedTuple):
    """Translations of a part of a corpus, and their scores."""

    scores: dict[str, list[float]]  # name of a score -> its value for each seed
    said: list[list[str]]  # for each network, the translations of all sentences
    unknown_share: float  # share of target words that are unknown, so never predicted


def score(params: PyTree, *, part: Part, corpus: Corpus, how: How) -> Scored:
    """Translate a part of a corpus greedily, and score the translations.

    The scores are those of :func:`text.score`, and two mean losses in nats per word.
    The means are over known words and END. For `forced_nats`, the decoder reads the
    reference's words; for `own_nats`, it reads the words that it predicts.
    """
    numbers = text.part_to_numbers(part, corpus)
    said = np.zeros((_runs(params), len(part), STEPS), int)
    sums = np.zeros((3, _runs(params)))
    for batch, rows in _batches(numbers):
        words, *each = _score(how)(params, batch)
        real = rows >= 0
        said[:, rows[real]] = np.moveaxis(np.asarray(words), 1, 2)[:, real]
        sums += np.array(each)
    texts = [
        [text.to_text(line, corpus.target_words) for line in lines] for lines in said
    ]
    right = [pair[1] for pair in part]
    found = [text.score(said, right) for said in texts]
    scores = {name: [each[name] for each in found] for name in found[0]}
    scores["forced_nats"] = (sums[0] / sums[2]).tolist()
    scores["own_nats"] = (sums[1] / sums[2]).tolist()
    unknown = np.concatenate(numbers.target) == UNKNOWN
    return Scored(scores, texts, float(unknown.mean()))


def _batches(numbers: Numbers):
    """Yield batches of the same shape, and the indices of their sentences."""
    longest = max(map(len, numbers.source))
    to = max(map(len, numbers.target))
    whole = Bucket(longest, np.arange(len(numbers.source)))
    for bucket in all_batches([whole], min(BATCH, len(numbers.source))):
        yield text.padded(numbers, bucket, to), bucket.rows


@cache
def _score(how: How) -> Callable:
    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def scored(params, batch: Batch):
        encoded = encode(params, batch.source, batch.source_mask, None, how)
        words, _ = greedy(params, encoded, how, STEPS)
        weights = counted(batch)
        own = jnp.zeros(weights.shape, bool).at[0].set(True)
        total = lambda each: jnp.sum(jnp.where(weights, each, 0))
        forced = total(losses(params, encoded, batch, how))
        free = total(losses(params, encoded, batch, how, forced=own))
        return words, forced, free, jnp.sum(weights)

    return scored


@cache
def _greedy(how: How) -> Callable:
    @jax.jit
    def translated(params, source, mask):
        return greedy(params, encode(params, source, mask, None, how), how, STEPS)

    return translated


def translate(
    params: PyTree, sentences: Sequence[str], corpus: Corpus, how: How
) -> list[tuple[str, np.ndarray]]:
    """Translate sentences with the first seed's network.

    Returns:
      A list of pairs: a translation, and the attention at its words and END, [words +
      1, source words + 1].
    """
    first = jax.tree.map(lambda leaf: leaf[0], params)
    xs = text.to_numbers(sentences, corpus.source_words)
    source = pad(xs, Bucket(LONGEST + 1, np.arange(len(xs))))
    words, shares = map(np.asarray, _greedy(how)(first, *source))
    found = []
    for i, x in enumerate(xs):
        said = text.to_text(words[:, i], corpus.target_words)
        found.append((said, shares[: len(said.split()) + 1, : len(x), i]))
    return found


def examples(
    params: PyTree, part: Part, said: list[str], corpus: Corpus, how: How
) -> list[dict[str, Any]]:
    """Return evenly spaced sentences of a part, with translation and attention."""
    rows = np.linspace(0, len(part) - 1, min(EXAMPLES, len(part))).astype(int)
    found = translate(params, [part[row][0] for row in rows], corpus, how)
    return [
        {
            "source": part[row][0],
            "reference": part[row][1],
            "said": said[row],
            "shares": np.round(shares, 3).tolist(),
        }
        for row, (_, shares) in zip(rows, found, strict=True)
    ]


def read_sentence(text: str, option: str = "--translate") -> str:
    """Normalise a user's sentence in the same way as the training sentences.

    Args:
      text: the sentence.
      option: option by which the sentence was given, for error messages.

    Raises:
      DataError: if the sentence has no words, or too many words.
    """
    sentence = data.tutorial_form(data.as_seen(text))
    if not sentence:
        raise DataError(
            f"{option}: {text!r} has no words; give a sentence of letters from a to "
            "z, with accents or without, such as 'je suis fatigué'."
        )
    if len(sentence.split()) > LONGEST:
        raise DataError(
            f"{option}: {sentence!r} has {len(sentence.split())} words; networks "
            f"learn from sentences of up to {LONGEST}. Give a shorter one."
        )
    return sentence


def answer(
    checkpoints: Path, like: PyTree, sentence: str, corpus: Corpus, how: How
) -> tuple[str, list[str]]:
    """Translate a sentence with the first seed's network; find its unknown words.

    Raises:
      DataError: if none of the sentence's words occurs in training.
    """
    words = sentence.split()
    unknown = [word for word in words if word not in corpus.source_words[UNKNOWN + 1 :]]
    if len(unknown) == len(words):
        raise DataError(
            f"--translate: none of the words of {sentence!r} occurs in training. Give "
            "a sentence in the source language; --to is the target language."
        )
    _, params = training.read_checkpoint(checkpoints, like)
    return translate(params, [sentence], corpus, how)[0][0], unknown


def _runs(params: PyTree) -> int:
    return jax.tree.leaves(params)[0].shape[0]
