"""Tiny Shakespeare: a million characters of plays, downloaded once.

The text is in the public domain; A. Karpathy compiled it for char-rnn.
"""

from experiments.data._fetch import fetch, find
from experiments.data._text_file import as_text, Text

FILE = "tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
)


def tinyshakespeare() -> Text:
    """Load the text, of 65 symbols; by convention, its last tenth is for test."""
    path = find(FILE, SHA256) or fetch(URL, SHA256, FILE)
    return as_text(path.read_text("ascii"), "Tiny Shakespeare")
