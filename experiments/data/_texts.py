"""Texts with class labels, and removal of texts that occur in several parts."""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")


class LabelledTexts(NamedTuple):
    """Texts, and the class of each."""

    texts: list[str]
    labels: np.ndarray  # [N] index of the class of each text


class TextClasses(NamedTuple):
    """Texts with class labels; no text is in two parts (see :func:`same_form`)."""

    classes: tuple[str, ...]
    train: LabelledTexts
    validation: LabelledTexts
    test: LabelledTexts


def as_seen(text: str) -> str:
    """Normalise a text: compose accented letters (NFC), drop invisible characters.

    Unicode's format characters are dropped, such as zero-width spaces and joiners, soft
    hyphens, byte order marks and marks of direction.

    Example:
      >>> as_seen("cafe\u0301 fr\u200bee") == "caf\u00e9 free"
      True
    """
    if text.isascii():
        return text
    seen = "".join(each for each in text if unicodedata.category(each) != "Cf")
    return unicodedata.normalize("NFC", seen)


def same_form(text: str) -> str:
    """Return the words of a text in lower case; texts with equal words count as equal.

    Example:
      >>> same_form("It's  FREE!!") == same_form("it s free")
      True
    """
    return " ".join(re.findall(r"\w+", as_seen(as_seen(text).casefold())))


def keep_apart(
    parts: Sequence[Collection[Item]], text: Callable[[Item], str]
) -> list[list[Item]]:
    """Drop each item whose text is also in a later part of the data set.

    Args:
      parts: parts of a data set, such as train, validation and test.
      text: function that returns the text of an item. Texts count as equal if their
        results of :func:`same_form` are equal.
    """
    later: set[str] = set()
    kept = []
    for part in reversed(parts):
        forms = [same_form(text(item)) for item in part]
        apart = zip(part, forms, strict=True)
        kept.append([item for item, form in apart if form not in later])
        later.update(forms)
    return kept[::-1]


def label(classes: tuple[str, ...], items: list[tuple[str, str]]) -> LabelledTexts:
    """Split pairs (class, text) into texts and labels, which are indices of classes."""
    labels = np.array([classes.index(name) for name, _ in items], np.int32)
    return LabelledTexts([text for _, text in items], labels)
