"""The text of Python's own language reference, which every CPython carries."""

import sys
from pydoc_data.topics import topics
from typing import NamedTuple

import numpy as np


class Text(NamedTuple):
    """A text as indices into its alphabet, [characters]; the last tenth is for test."""

    alphabet: str
    train: np.ndarray
    test: np.ndarray
    source: str


def python_reference() -> Text:
    """Return the help topics of the running Python, in the order of their names.

    Each version of Python has its own, so that numbers differ a little between them.
    Characters outside ASCII, a few dozen in half a million, become "?".
    """
    text = "\n".join(topics[name] for name in sorted(topics))
    text = text.encode("ascii", "replace").decode()
    alphabet = "".join(sorted(set(text)))
    indices = np.searchsorted(list(alphabet), list(text)).astype(np.int32)
    cut = len(indices) * 9 // 10
    source = f"pydoc_data.topics of Python {sys.version.split()[0]}"
    return Text(alphabet, indices[:cut], indices[cut:], source)
