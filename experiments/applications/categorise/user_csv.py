"""A user's CSV file with a column of texts and a column of class labels."""

import csv
import hashlib
import io
from collections import Counter
from pathlib import Path

from experiments import data
from experiments.harness.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
FEWEST, MOST = 40, 100  # fewest texts to learn from, and most classes


def read_csv(path: Path, text: str, label: str) -> data.TextClasses:
    """Read texts and labels from a CSV file; 70 % train, 10 % validation, 20 % test.

    The delimiter is the one of comma, semicolon, tab and | that splits the header into
    columns with the given names. Rows with an empty text or label are left out. A hash
    of its words decides which part a text belongs to, so that texts with equal words
    are in the same part, and a text stays in its part if rows are added.

    Args:
      path: file in UTF-8, with a header.
      text: name of the column of texts.
      label: name of the column of labels.

    Raises:
      DataError: if the file cannot be read, a column is missing, or there are too few
        texts, too many classes, or only one class.
    """
    pairs = _rows(path, text, label)
    classes = tuple(sorted({kind for kind, _ in pairs}))
    if len(pairs) < FEWEST or not 2 <= len(classes) <= MOST:
        raise DataError(
            f"--csv: {path} has {len(pairs)} texts of {len(classes)} classes; needed "
            f"are at least {FEWEST} texts, and 2 to {MOST} classes. Is {label!r} the "
            "column of classes?"
        )
    parts: list[list[tuple[str, str]]] = [[], [], []]
    for pair in pairs:
        form = data.same_form(pair[1]).encode()
        part = int(hashlib.sha256(form).hexdigest(), 16) % 10
        parts[0 if part < 7 else 1 if part == 7 else 2].append(pair)
    learned = Counter(kind for kind, _ in parts[0])
    missing = [kind for kind in classes if not learned[kind]]
    if missing or not all(parts):
        raise DataError(
            f"--csv: {path} has too few texts of {', '.join(missing) or 'some part'}: "
            "no text of it is in the training part. Add texts, or merge classes."
        )
    return data.TextClasses(classes, *(data.label(classes, part) for part in parts))


def _rows(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    """Return the pairs (label, text) of all rows."""
    try:
        content = path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"--csv: {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"--csv: {path} is not text in UTF-8: {error.reason} at byte "
            f"{error.start}. Save it as UTF-8 (in a spreadsheet: CSV UTF-8)."
        ) from error
    header = content.partition("\n")[0].rstrip("\r")
    found = {mark: next(csv.reader([header], delimiter=mark)) for mark in DELIMITERS}
    marks = [mark for mark, names in found.items() if {text, label} <= {*names}]
    if not marks:
        mark = max(DELIMITERS, key=lambda mark: len(found[mark]))
        columns = ", ".join(map(repr, found[mark]))
        lost = [name for name in (text, label) if name not in found[mark]]
        raise DataError(
            f"--csv: {path} has no column {' and no column '.join(map(repr, lost))}; "
            f"its columns are {columns}. Name two of them by --text and --label."
        )
    pairs = []
    lines = csv.DictReader(io.StringIO(content, newline=""), delimiter=marks[0])
    try:
        for row in lines:
            kind, words = (row[label] or "").strip(), (row[text] or "").strip()
            if kind and data.same_form(words):
                pairs.append((kind, words))
    except csv.Error as error:
        raise DataError(f"--csv: {path}, line {lines.line_num}: {error}.") from error
    return pairs
