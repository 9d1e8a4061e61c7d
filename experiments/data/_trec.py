"""TREC: questions in six classes, by the kind of answer; downloaded once.

X. Li, D. Roth, "Learning question classifiers", COLING 2002,
https://cogcomp.seas.upenn.edu/Data/QA/QC/. No licence is stated.
"""

from experiments.data._fetch import fetch, find
from experiments.data._texts import keep_apart, label, TextClasses

FILES = {  # {name of a file in the cache: (official name, sha256)}
    "TREC.train": (
        "train_5500.label",
        "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
    ),
    "TREC.test": (
        "TREC_10.label",
        "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
    ),
}
URL = "https://cogcomp.seas.upenn.edu/Data/QA/QC/"
MIRROR = (
    "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/"
    "d61ded09c99c0199d8c5bca946cd65864de2b296/data/raw/"
)
CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
VALIDATION = 545


def trec() -> TextClasses:
    """Load the questions; the words of a question are separated by spaces.

    The test part is the official one, with 500 questions. Of the 5,452 official
    training questions, 10 are dropped because the test part has exactly the same
    question. Of the remaining 5,442 questions, the last 545 are for validation, and the
    first 4,897 for training. Then 13 questions are dropped from training, because
    validation or test has nearly the same question. Two questions are nearly the same
    if they differ only in case, or in characters that are not letters or digits.
    """
    train = read_lines(_text("TREC.train"))
    test = read_lines(_text("TREC.test"))
    asked = {question for _, question in test}
    train = [item for item in train if item[1] not in asked]
    parts = keep_apart(
        [train[:-VALIDATION], train[-VALIDATION:], test], lambda item: item[1]
    )
    return TextClasses(CLASSES, *(label(CLASSES, part) for part in parts))


def read_lines(text: str) -> list[tuple[str, str]]:
    """Parse lines "COARSE:fine question"; return pairs (coarse class, question)."""
    items = []
    for line in text.removesuffix("\n").split("\n"):
        name, _, question = line.partition(" ")
        coarse, colon, _ = name.partition(":")
        if coarse not in CLASSES or not colon:
            raise ValueError(f"expected COARSE:fine, space, question; got {line!r}.")
        items.append((coarse, question))
    return items


def _text(name: str) -> str:
    official, sha256 = FILES[name]
    path = find(f"trec/{name}", sha256)
    path = path or fetch((URL + official, MIRROR + name), sha256, f"trec/{name}")
    return path.read_bytes().decode("latin-1")
