"""Layout of a table in a text file: delimiter, header, and lines to skip."""

import csv
import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from experiments.data.tables._numbers import is_missing, is_number
from experiments.data.tables._source import Source
from experiments.data.tables._times import SAMPLE
from experiments.harness.options import did_you_mean, listed

DELIMITERS = ",;\t|"
FEW = 60  # number of lines from which the delimiter is inferred
# Delimiter for files with one column: it never occurs in text, so no line is split.
SINGLE = "\x1f"
SPELLED = {"tab": "\t", "\\t": "\t"}
SEP = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
DATE = re.compile(r"\d{1,4}[-/.:]\d{1,2}([-/.: T].*)?")
# A text that begins like a number is no unit, except units such as 1/s and 10^6 m.
NO_UNIT = re.compile(r"\W*(?!1/|10\W)(\d|inf(inity)?\b)", re.IGNORECASE)


class Layout(NamedTuple):
    """Layout of a table; a record is a row of the table, on one line or several."""

    delimiter: str
    names: list[str]  # names of the columns
    lines: int  # number of lines to skip at the beginning of the file
    records: int  # number of records to skip after these lines: names and units
    sample: list[list[str]]  # first records of data
    notes: tuple[str, ...]


def is_comment(cell: str) -> bool:
    """Return whether a row whose first cell is `cell` is a comment."""
    return cell.lstrip().startswith("#") and not is_missing(cell)


def find_layout(
    source: Source,
    wanted: Sequence[str],
    delimiter: str | None = None,
    header: int | None = None,
) -> Layout:
    """Infer the layout of a table from its first lines.

    Args:
      source: the file.
      wanted: names of the columns to read; in a file without a header, their positions,
        counted from 1.
      delimiter: character between the cells of a row; None to infer it.
      header: number of rows that have names of columns, 0 if there are none; None to
        infer it. The names in several rows are joined by spaces.

    Raises:
      ValueError: if the file is empty, or if a wanted column is missing or occurs
        twice.
    """
    with source.open() as file:
        lines = list(islice(file, SAMPLE))
    skipped, comments = 0, []
    delimiter = _checked(delimiter)
    for line in lines:
        told = SEP.fullmatch(line.strip())
        if told and not skipped:
            delimiter = delimiter or told[1]
        elif is_comment(line.split(delimiter or ",")[0]):
            comments.append(line)
        elif line.strip():
            break
        skipped += 1
    if skipped == len(lines):
        raise ValueError(f"{source.path} is empty: it has no names of columns.")
    try:
        delimiter = delimiter or _delimiter(lines[skipped : skipped + FEW])
        records = _records(lines[skipped:], delimiter)
    except csv.Error as error:
        raise ValueError(
            f"{source.path} is no CSV file: {error}. Look for a quote that is not "
            "closed."
        ) from None
    if header is None:
        names, count, notes = _header(
            source, records[0], records[1:], comments, delimiter, wanted
        )
    else:
        names, count, notes = _given_header(source, records, header)
    rows = records[count:]
    for name in wanted:
        find_column(source, names, name)
    if len(rows) > 1 and _are_units(*rows[:2]):
        units = ", ".join(cell for cell in rows[0] if cell.strip())
        notes.append(f"the first row of {source.path.name} is read as units: {units}.")
        count, rows = count + 1, rows[1:]
    return Layout(delimiter, names, skipped, count, rows, tuple(notes))


def find_column(source: Source, names: Sequence[str], name: str) -> int:
    """Return the index of a column; in names, several spaces count as one."""
    plain = [_plain(each) for each in names]
    count = plain.count(_plain(name))
    if count != 1:
        what = "twice or more in it" if count else "not in it"
        remedy = did_you_mean(name, plain)
        if count:
            remedy = (
                " Make the names different; if they have several rows, give the number "
                "of these rows, such as --header 2."
            )
        raise ValueError(
            f"column {name!r} of {source.path} is {what}; there are: "
            f"{listed(plain)}.{remedy}"
        )
    return plain.index(_plain(name))


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _checked(delimiter: str | None) -> str | None:
    if delimiter is None:
        return None
    found = SPELLED.get(delimiter, delimiter)
    if len(found) != 1 or found.isalnum() or found in '"\r\n.':
        raise ValueError(
            f"delimiter must be one character, such as ; or tab, got {delimiter!r}."
        )
    return found


def _records(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Split lines into rows of equally many cells; drop comments and blank lines."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows = [row for row in reader if row and not is_comment(row[0])]
    width = len(rows[0])
    return [(row + [""] * width)[:width] for row in rows]


def _delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter that best splits lines into rows with equal cell counts."""

    def score(delimiter: str) -> float:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        head, *rows = [row for row in reader if row and not is_comment(row[0])]
        if len(head) < 2:
            return -1
        if not rows:
            return len(head)
        same = sum(not any(map(str.strip, row[len(head) :])) for row in rows)
        same -= sum(len(row) < len(head) for row in rows)
        cells = [cell for row in rows for cell in row]
        return same / len(rows) * (0.1 + sum(map(_is_value, cells)) / len(cells))

    scores = {each: score(each) for each in DELIMITERS}
    best = max(DELIMITERS, key=lambda each: scores[each])
    return best if scores[best] >= 0 else SINGLE


def _is_value(cell: str) -> bool:
    return is_missing(cell) or is_number(cell) or _is_date(cell)


def _is_date(cell: str) -> bool:
    return bool(DATE.fullmatch(cell.strip()))


def _header(
    source: Source,
    head: list[str],
    rows: list[list[str]],
    comments: list[str],
    delimiter: str,
    wanted: Sequence[str],
) -> tuple[list[str], int, list[str]]:
    """Return the names of columns, the number of header rows, and notes for the user.

    The first row is the header in each of four cases:

    - no cell of the row is a number or a date;
    - a cell of the row is a word, and the cell below is a number or a date;
    - the cells of the row are the column numbers, counted from 0 or from 1;
    - the row has the names of all wanted columns.
    """
    width, name = len(head), source.path.name
    below = rows[0] if rows else head
    words = any(
        not _is_value(one) and _is_value(other) and not is_missing(other)
        for one, other in zip(head, below, strict=True)
    )
    values = any(_is_value(cell) and not is_missing(cell) for cell in head)
    counts = width > 1 and head in (
        [str(i) for i in range(width)],
        [str(i + 1) for i in range(width)],
    )
    if words or not values or counts:
        note = f"the first row of {name} is read as names: {', '.join(head)}."
        return head, 1, [note] if counts and not words else []
    if comments:  # the last comment may have the names of columns
        last = next(csv.reader([comments[-1].lstrip(" #")], delimiter=delimiter))
        if len(last) == width and {*map(_plain, wanted)} <= {*map(_plain, last)}:
            return last, 0, []
    positions = [str(i + 1) for i in range(width)]
    if set(wanted) <= set(positions):
        note = f"{name} has no names of columns: they are numbered from 1."
        return positions, 0, [note]
    if set(wanted) <= set(head):
        return head, 1, []
    raise ValueError(
        f"{source.path} has no names of columns, as its first row is "
        f"{', '.join(head)}: give the position of a column, from 1 to {width}, "
        f"got {', '.join(map(repr, wanted))}. If this row has the names, give "
        "--header 1."
    )


def _given_header(
    source: Source, records: list[list[str]], header: int
) -> tuple[list[str], int, list[str]]:
    """Return what :func:`_header` does, for a known number of header rows."""
    if header < 0 or header >= len(records):
        raise ValueError(
            f"header must be the number of rows with names of columns, in 0.."
            f"{len(records) - 1} for {source.path}, got {header}."
        )
    if not header:
        return [str(i + 1) for i in range(len(records[0]))], 0, []
    cells = zip(*records[:header], strict=True)
    return [_plain(" ".join(parts)) for parts in cells], header, []


def _are_units(row: list[str], after: list[str]) -> bool:
    """Return whether a row has the units of columns.

    A row of units has no number, date or missing value, but has a word above a number
    or a date.
    """
    values = (is_number, _is_date, NO_UNIT.match)
    if any(is_value(cell) for cell in row for is_value in values):
        return False
    pairs = zip(row, after, strict=True)
    return any(
        not is_missing(one) and (is_number(other) or _is_date(other))
        for one, other in pairs
    )
