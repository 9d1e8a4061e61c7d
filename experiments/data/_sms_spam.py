"""SMS messages in the classes spam and ham, downloaded once.

T. A. Almeida, J. M. Gómez Hidalgo, "SMS Spam Collection", UCI Machine Learning
Repository 2012, CC BY 4.0, https://archive.ics.uci.edu/dataset/228.
"""

import zipfile

from experiments.data._fetch import fetch, find
from experiments.data._texts import keep_apart, label, TextClasses

FILE = "sms_spam/SMSSpamCollection"
SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
ARCHIVE = "sms_spam/sms+spam+collection.zip"
ARCHIVE_SHA256 = "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3"
URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"
CLASSES = ("ham", "spam")
ENDS = 3722, 4136  # index of the first text for validation, and of the first for test


def sms_spam() -> TextClasses:
    """Load the messages in the order of the file; a repeated text is loaded once.

    The 5,574 lines of the file have 5,171 different texts: 3,722 for training, 414 for
    validation, 1,035 for test. From training, 11 texts are dropped, because validation
    or test has nearly the same text. From validation, 3 texts are dropped, because test
    has nearly the same text. Two texts are nearly the same if they differ only in case,
    or in characters that are not letters or digits.
    """
    path = find(FILE, SHA256)
    content = path.read_bytes() if path else _from_archive()
    items = first_of_each(read_lines(content.decode("utf-8")))
    begin, end = ENDS
    parts = keep_apart(
        [items[:begin], items[begin:end], items[end:]], lambda item: item[1]
    )
    return TextClasses(CLASSES, *(label(CLASSES, part) for part in parts))


def read_lines(text: str) -> list[tuple[str, str]]:
    """Parse lines "class, tab, message"; return a pair (class, message) for each."""
    items = []
    for line in text.removesuffix("\n").split("\n"):
        name, tab, message = line.partition("\t")
        if name not in CLASSES or not tab:
            raise ValueError(f"expected ham or spam, a tab and a text; got {line!r}.")
        items.append((name, message))
    return items


def first_of_each(items: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pairs (class, text), without later pairs that have the same text."""
    once: dict[str, str] = {}
    for name, message in items:
        once.setdefault(message, name)
    return [(name, message) for message, name in once.items()]


def _from_archive() -> bytes:
    with zipfile.ZipFile(fetch(URL, ARCHIVE_SHA256, ARCHIVE)) as archive:
        return archive.read("SMSSpamCollection")
