"""Reading of columns of numbers from a user's file, with the times of rows."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.tables import _order
from experiments.data.tables._decimal import decided
from experiments.data.tables._layout import (
    find_column,
    find_layout,
    is_comment,
    Layout,
)
from experiments.data.tables._numbers import DECIMALS, is_missing, is_number, Numbers
from experiments.data.tables._source import find_source, Source
from experiments.data.tables._times import (
    agreeing,
    find_forms,
    NAMES as TIMES,
    read_times,
    unknown_times,
)

CHUNK = 4000  # number of rows to hold in memory as text at a time


class Table(NamedTuple):
    """Columns of numbers from a file, and the times of its rows, if it has times."""

    columns: dict[str, np.ndarray]  # {name: values [N]}; NaN is a missing value
    times: np.ndarray | None  # [N] datetime64 or numbers; None: no times
    notes: tuple[str, ...]  # notes to the user about the file


class _Rows(NamedTuple):
    """Some rows of a table, and the line number of each row in the file."""

    cells: list[list[str]]
    lines: list[int]


def read_columns(
    path: Path,
    names: Sequence[str],
    *,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    header: int | None = None,
    dates: str | None = None,
) -> Table:
    """Read columns of numbers from a text file; rows are put in order of time.

    Delimiter, header, encoding and decimal mark are inferred from the file. A number
    can be ambiguous: without a known decimal mark, 1.234 can mean 1.234 or 1234.
    If no cell of the table shows the decimal mark, an error asks for `decimal`. Empty
    cells, and texts such as NA, become NaN. Percent and currency signs are ignored, so
    5 % becomes 5. A table that begins with its newest row is reversed. Notes tell the
    user about gaps in the times and about repeated times. Only a few thousand rows at a
    time are in memory as text.

    Args:
      path: a text file, possibly compressed by gzip, bzip2 or xz.
      names: names of the columns to read; in a file without a header, their positions,
        counted from "1".
      delimiter: character between the cells of a row; None to infer it.
      decimal: decimal mark, "." or ","; None to infer it.
      encoding: encoding of the text; None to infer it.
      header: number of rows with names of columns, 0 if there are none; None to infer
        it.
      dates: "day-first" or "month-first", for dates such as 01/02/2020; None to infer
        it.

    Raises:
      ValueError: if the file or a column does not exist, if the file is not a text
        table, if a cell is neither a number nor missing, or if a number or a date is
        ambiguous.
    """
    if decimal not in (None, *DECIMALS):
        raise ValueError(f"decimal must be '.' or ',', got {decimal!r}.")
    source = find_source(Path(path), encoding)
    layout = find_layout(source, names, delimiter, header)
    places = {name: find_column(source, layout.names, name) for name in names}
    others = ["" if i in places.values() else n for i, n in enumerate(layout.names)]
    forms = agreeing(find_forms(others, layout.sample), dates, layout.sample)
    columns = {name: Numbers(decimal) for name in names}
    times: list[list[np.ndarray]] = [[] for _ in forms]
    notes = [*source.notes, *layout.notes]
    for rows in _chunks(source, layout, [*places.values()], notes):
        for name, place in places.items():
            columns[name].add([row[place] for row in rows.cells], rows.lines)
        for form, kept in zip(forms, times, strict=True):
            given = [[_cell(row, i) for row in rows.cells] for i in form.columns]
            kept.append(read_times(form, given))
    read = _values(columns, source, layout, notes)
    if not forms or not times[0]:
        notes += [] if forms else unknown_times(others, layout.sample)
        return Table(read, None, tuple(notes))
    label = ", ".join(layout.names[i] for i in forms[0].columns)
    ways = [np.concatenate(each) for each in times]
    del times, columns  # a long file takes memory for a few columns only
    at, told = _order.choose(forms, ways, label, path.name)
    del ways
    notes += told
    order = _order.put_in_order(at, label, path.name)
    if order.rows is not None:
        read = {name: values[order.rows] for name, values in read.items()}
    return Table(read, order.times, (*notes, *order.notes))


def number_columns(
    path: Path,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    header: int | None = None,
) -> list[str]:
    """Return the names of the columns that have numbers but no times.

    Only the first rows of the file are read. The arguments are as in
    :func:`read_columns`.
    """
    layout = find_layout(find_source(Path(path), encoding), (), delimiter, header)
    forms = find_forms(layout.names, layout.sample)
    times = {place for form in forms for place in form.columns}
    found = []
    for i, name in enumerate(layout.names):
        cells = [row[i] for row in layout.sample if not is_missing(row[i])]
        named = name.strip() and not TIMES.fullmatch(name.strip())
        if named and i not in times and cells and all(map(is_number, cells)):
            found.append(name)
    return found


def _cell(row: list[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _values(
    columns: dict[str, Numbers], source: Source, layout: Layout, notes: list[str]
) -> dict[str, np.ndarray]:
    """Return the values of columns, and append what the user must know to `notes`."""
    read = {}
    for name, numbers in columns.items():
        read[name], more = decided(numbers, name, source, layout)
        notes += more
    return read


def _chunks(
    source: Source, layout: Layout, places: list[int], notes: list[str]
) -> Iterator[_Rows]:
    """Yield the rows of a table in chunks, without comments and blank lines.

    In a file with a single column, a blank line is a missing value, except at the end
    of the file. If the file has comments, a note about them is appended to `notes`.
    """
    width, rows, blank, comments = len(layout.names), _Rows([], []), 0, 0
    for line, row in _records(source, layout):
        if not row:
            blank += width == 1
            continue
        if is_comment(row[0]):
            comments += 1
            _check_comment(source, layout, places, line, row)
            continue
        if len(row) != width:
            _check_length(source, layout, places, line, row)
        if blank:
            rows.cells.extend([[""]] * blank)
            rows.lines.extend([line] * blank)
            blank = 0
        rows.cells.append(row)
        rows.lines.append(line)
        if len(rows.cells) >= CHUNK:
            yield rows
            rows = _Rows([], [])
    if rows.cells:
        yield rows
    if comments:
        notes.append(
            f"{comments} lines of {source.path.name} begin with # and are left out."
        )


def _records(source: Source, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield each row below the header, as a pair (number of its last line, cells)."""
    line = layout.lines
    try:
        with source.open() as file:
            for _ in range(layout.lines):
                next(file)
            reader = csv.reader(
                file, delimiter=layout.delimiter, skipinitialspace=True, strict=True
            )
            head = layout.records
            while head:  # skip the rows with the names and the units of columns
                row = next(reader)
                line = layout.lines + reader.line_num
                head -= bool(row) and not is_comment(row[0])
            for row in reader:
                line = layout.lines + reader.line_num
                yield line, row
    except csv.Error as error:
        raise ValueError(
            f"{source.path} is no CSV file after line {line}: {error}. Look for a "
            "quote that is not closed, or is within a field."
        ) from None


def _check_comment(
    source: Source, layout: Layout, places: list[int], line: int, row: list[str]
) -> None:
    """Check that a row that looks like a comment has no number in a wanted column."""
    for place in places:
        if is_number(_cell(row, place)):
            raise ValueError(
                f"line {line} of {source.path} begins with #, like a comment, but has "
                f"a number in column {layout.names[place]!r}: remove the # or the line."
            )


def _check_length(
    source: Source, layout: Layout, places: list[int], line: int, row: list[str]
) -> None:
    """Check that a row has all wanted columns, and no text beyond the last column."""
    width = len(layout.names)
    if any(map(str.strip, row[width:])):
        raise ValueError(
            f"line {line} of {source.path} has {len(row)} fields, and its header has "
            f"{width}: {layout.delimiter.join(row)!r}. Put a field that holds "
            f"{layout.delimiter!r} in quotes, or give another --delimiter."
        )
    for place in places:
        if place >= len(row):
            raise ValueError(
                f"line {line} of {source.path} has {len(row)} fields, and so no "
                f"{layout.names[place]!r}; leave the field empty if a value is missing."
            )
