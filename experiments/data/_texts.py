"""Texts in classes, and what it is that two texts are the same."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")


class LabelledTexts(NamedTuple):
    """Texts, and the class of each."""

    texts: list[str]
    labels: np.ndarray  # [N] indices into the classes


class TextClasses(NamedTuple):
    """A set of texts in classes; no text of one part is the same as one of another."""

    classes: tuple[str, ...]
    train: LabelledTexts
    validation: LabelledTexts
    test: LabelledTexts


def same_form(text: str) -> str:
    """Return a text as it is compared with others: words alone, in small letters.

    Example:
      >>> same_form("It's  FREE!!") == same_form("it s free")
      True
    """
    return " ".join(re.findall(r"\w+", text.casefold()))


def keep_apart(
    parts: Sequence[Collection[Item]], text: Callable[[Item], str]
) -> list[list[Item]]:
    """Return the parts, without what a later one has too; the last one stays whole.

    Args:
      parts: such as train, validation and test.
      text: the text of an item, which is compared by :func:`same_form`.
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
    """Return pairs (class, text) as texts and indices into the classes."""
    labels = np.array([classes.index(name) for name, _ in items], np.int32)
    return LabelledTexts([text for _, text in items], labels)
