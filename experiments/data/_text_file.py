"""Texts, such as a user's file, converted to indices of characters in an alphabet."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Text(NamedTuple):
    """Indices of a text's characters in its alphabet; the last tenth is for test."""

    alphabet: str
    train: np.ndarray
    test: np.ndarray
    source: str


def text_file(path: Path) -> Text:
    """Read a text file in UTF-8; the last tenth of the text is for test.

    Raises:
      ValueError: if there is no such file, or if the file is not text in UTF-8 or has
        fewer than two different characters.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8: {error.reason} at byte {error.start}. Save "
            "it as UTF-8."
        ) from None
    return as_text(text, str(path))


def as_text(text: str, source: str) -> Text:
    """Convert a text to indices of its characters; its last tenth is for test.

    Example:
      >>> as_text("abracadabra", "a spell").alphabet
      'abcdr'
    """
    alphabet = "".join(sorted(set(text)))
    if len(alphabet) < 2:
        found = "empty" if not text else f"{len(text)} times {text[0]!r}"
        raise ValueError(
            f"{source} is {found}: a text needs two different characters at least."
        )
    characters = np.array(list(text))
    indices = np.searchsorted(list(alphabet), characters).astype(np.int32)
    cut = len(indices) * 9 // 10
    return Text(alphabet, indices[:cut], indices[cut:], source)
