"""Pairs of English and French sentences from Tatoeba, downloaded once.

The pairs are from the project Tatoeba, https://tatoeba.org, in the version of
https://www.manythings.org/anki of 2017-09-29. The licence is CC BY 2.0; users must
credit tatoeba.org and manythings.org.
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
LONGEST = 10  # sentences of PyTorch's tutorial have fewer words than LONGEST

Pair: TypeAlias = tuple[str, str]  # English, French


class SentencePairs(NamedTuple):
    """Pairs (English, French) of sentences; no English sentence is in two parts."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


def tatoeba_fra_eng(
    normalise: Callable[[str], str] = str, keep: Callable[[Pair], bool] | None = None
) -> SentencePairs:
    """Load the sentence pairs, split by a hash of the English sentence.

    All translations of an English sentence are in the same part. Pairs are in file
    order. Nonbreaking spaces in the French sentences become plain spaces. There are
    114,499 pairs in train, 14,091 in validation and 14,197 in test. From train, 64
    pairs are then dropped, because validation or test has nearly the same English
    sentence. From validation, 10 pairs are dropped, because test has nearly the same
    English sentence. Two sentences are nearly the same if they differ only in case, or
    in characters that are not letters or digits.

    Args:
      normalise: function that is applied to each sentence first, such as
        :func:`tutorial_form`.
      keep: function that returns whether to keep a pair of normalised sentences, such
        as :func:`is_of_tutorial`; None to keep all pairs.
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
    """Return the part of the data that a sentence is in: train 0, validation 1, test 2.

    The part of a sentence depends on a hash of the sentence. About 80 % of all
    sentences are in train, 10 % in validation and 10 % in test.

    Example:
      >>> [which_part(english) for english in ("Go.", "Run!", "Wow!")]
      [0, 0, 0]
    """
    tenth = int(hashlib.sha256(english.encode()).hexdigest(), 16) % 10
    return max(0, tenth - 7)


def tutorial_form(text: str) -> str:
    """Normalise a text as PyTorch's tutorial on sequence-to-sequence models does.

    Letters become lower case without accents, and ! and ? become separate words. All
    other characters are dropped. Words are separated by single spaces.

    Example:
      >>> tutorial_form("Ça n'est pas vrai !")
      'ca n est pas vrai !'
    """
    apart = unicodedata.normalize("NFD", text.lower().strip())
    plain = re.sub(r"[\u0300-\u036f]", "", apart)
    return re.sub(r"[^a-z!?]+", " ", re.sub(r"([.!?])", r" \1", plain)).strip()


def is_of_tutorial(pair: Pair) -> bool:
    """Return whether PyTorch's translation tutorial uses a pair of sentences.

    The tutorial uses pairs of short sentences. The English sentence begins with "i am",
    "he is" or similar words. Both sentences of the pair must be normalised by
    :func:`tutorial_form` before this function is called.
    The tutorial's pairs are 9,390 of train, 1,252 of validation and 1,173 of test. All
    of these pairs have 3,028 different words in English and 4,668 in French.
    """
    short = all(len(text.split(" ")) < LONGEST for text in pair)
    return short and pair[0].startswith(OPENINGS)
