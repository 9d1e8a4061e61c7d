"""Sentences in English and French from Tatoeba, not committed here.

From the project Tatoeba, https://tatoeba.org, as https://www.manythings.org/anki had it
on 2017-09-29: CC BY 2.0, attribution to both.
"""

import hashlib
import re
import unicodedata
import zipfile
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from experiments.data._fetch import fetch, find
from experiments.data._texts import keep_apart

FILE = "tatoeba_fra_eng/fra-eng.zip"
SHA256 = "16c4f7d0df9e7c5e6c54cdb0447f3f4a18a55052ff5e2e0b27dd4a06c0e49d04"
URL = (
    "https://raw.githubusercontent.com/genimind/seq2seq/"
    "4f3f8eb0adde54fcc8b89394336b002e7961244c/fra-eng.zip"
)
SPACES = str.maketrans({"\u202f": " ", "\u00a0": " "})
OPENINGS = ("i am ", "i m ", "he is", "he s ", "she is", "she s ", "you are")
OPENINGS += ("you re ", "we are", "we re ", "they are", "they re ")
LONGEST = 10  # words, which the tutorial's sentences do not reach

Pair: TypeAlias = tuple[str, str]  # English, French


class SentencePairs(NamedTuple):
    """Pairs (English, French); no English sentence is in two parts."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


def tatoeba_fra_eng(
    normalise: Callable[[str], str] = str, keep: Callable[[Pair], bool] | None = None
) -> SentencePairs:
    """Return the pairs, split by a hash of the English side.

    A sentence has several translations, which must not come to both sides of a split.
    In file order; French spaces that do not break are plain ones. The hash makes 14,197
    pairs test, 14,091 validation and 114,499 train. From the latter two are left out 10
    and 64 whose English side differs only in capitals, or in what is no letter or
    digit, from one of a later part.

    Args:
      normalise: what is done with each sentence before all else, such as
        :func:`tutorial_form`.
      keep: which of the normalised pairs to keep, such as :func:`is_of_tutorial`.
    """
    path = find(FILE, SHA256) or fetch(URL, SHA256, FILE)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("fra.txt").decode("utf-8")
    parts: tuple[list[Pair], ...] = ([], [], [])
    for line in text.removesuffix("\n").split("\n"):
        english, french = line.split("\t")
        pair = normalise(english), normalise(french.translate(SPACES))
        if keep is None or keep(pair):
            parts[which_part(pair[0])].append(pair)
    return SentencePairs(*keep_apart(parts, lambda pair: pair[0]))


def which_part(english: str) -> int:
    """Return 0 for train, 1 for validation, 2 for test: 8, 1 and 1 of 10.

    Example:
      >>> [which_part(english) for english in ("Go.", "Run!", "Wow!")]
      [0, 0, 0]
    """
    tenth = int(hashlib.sha256(english.encode()).hexdigest(), 16) % 10
    return max(0, tenth - 7)


def tutorial_form(text: str) -> str:
    """Normalise as PyTorch's tutorial on sequence to sequence does.

    Small letters without accents, words divided by a space, ! and ? words of their own,
    all else left out.

    Example:
      >>> tutorial_form("Ça n'est pas vrai !")
      'ca n est pas vrai !'
    """
    apart = unicodedata.normalize("NFD", text.lower().strip())
    plain = re.sub(r"[\u0300-\u036f]", "", apart)
    return re.sub(r"[^a-z!?]+", " ", re.sub(r"([.!?])", r" \1", plain)).strip()


def is_of_tutorial(pair: Pair) -> bool:
    """Whether the tutorial has a pair: short, and "i am", "he is" and so on.

    In :func:`tutorial_form`: 9,390, 1,252 and 1,173 pairs, 3,028 and 4,668 words.
    """
    short = all(len(text.split(" ")) < LONGEST for text in pair)
    return short and pair[0].startswith(OPENINGS)
