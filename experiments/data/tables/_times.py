"""Times of a table's rows: find the columns and the format of times, and parse them."""

import datetime
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.data.tables._numbers import is_missing, is_number

# Names of columns in which plain numbers are times, such as years or Unix time.
NAMES = re.compile(
    r"(unix|posix|utc|local)?[\W_]*(date|time|datetime|year|month|day|epoch|timestamp|"
    r"datum|zeit|zeitstempel|jahr|monat|woche|tag|jour|ann[ée]e|mois|fecha|week|ts|dt)"
    r"[\W_]*(utc|local|unix|s|ms|us|ns|sec|secs|seconds|millis|milliseconds)?\W*",
    re.IGNORECASE,
)
DAYS = (
    "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y",
    "%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y",
    "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %Y", "%B %Y", "%b-%Y", "%m/%Y", "%Y/%m",
    "%d-%m-%y", "%m-%d-%y", "%y/%m/%d", "%y-%m-%d", "%y.%m.%d",
)  # fmt: skip
HOURS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p",
    "T%H:%M", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S",
)  # fmt: skip
ISO = re.compile(r"\d{4}-\d{1,2}(-\d{1,2}([T ]\d.*)?)?")
ONLY_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M"}
UNIX = {10: "s", 13: "ms"}  # {number of digits: unit of Unix time}
QUARTER = re.compile(r"(\d{4})[- ]?Q([1-4])|Q([1-4])[-/ ]?(\d{4})")
WEEK = re.compile(r"(\d{4})-?W(\d{2})(?:-?([1-7]))?")
CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(:([0-5]\d)([.,]\d+)?)?")
HOUR = re.compile(r"([01]?\d|2[0-4])(?:\.0*)?")  # hour of the day, such as 7 or 23.0
HOUR_NAMES = re.compile(r"(hour|hr|he|stunde|heure|hora)\W*", re.IGNORECASE)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov")
MONTHS += ("dec",)
PARTS = ("year", "month", "day", "hour", "minute")  # names of columns that form a time
MOST = 0.9  # smallest fraction of a column's cells that a format must fit
SAMPLE = 500  # number of rows from which columns of times are inferred


DATES = ("day-first", "month-first")  # how a date such as 01/02/2020 can be read


class Form(NamedTuple):
    """Indices of the columns in which a table has times, and the times' format."""

    columns: tuple[int, ...]
    format: str


def find_forms(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Form]:
    """Return the forms in which a table has times; [] if no column has times.

    A form consists of the columns and the format of the times. There are two forms if
    it is not clear whether the day or the month comes first. A form has a second column
    if the time of day is separate from the date. Columns named year, month, day, hour
    and minute together make one form. If several columns have times, the column whose
    times are closest to sorted is used.

    Args:
      names: names of all columns; "" for a column that is read as numbers, not times.
      rows: first rows of the table, each with as many cells as there are names.
    """
    small = [name.casefold() for name in names]
    if {"year", "month"} <= set(small):
        parts = [part for part in PARTS if part in small]
        return [Form(tuple(map(small.index, parts)), " ".join(parts))]
    best: list[Form] = []
    ordered = -1.0
    for place, name in enumerate(names):
        cells = [row[place] for row in rows]
        if not name or all(map(is_missing, cells)):
            continue
        found = _formats(cells, bool(NAMES.fullmatch(name)))
        if found:
            columns: tuple[int, ...] = (place,)
            clock = _clock(names, rows, place)
            if clock is not None and not any(":" in cell for cell in cells):
                columns += (clock,)
            forms = [Form(columns, format) for format in found]
            given = [[row[column] for row in rows] for column in columns]
            share = max(_ordered(read_times(form, given)) for form in forms)
            if share > ordered:
                best, ordered = forms, share
    return best


def in_words(form: Form) -> str:
    """Return the order of day, month and year in the times of a form.

    Example:
      >>> in_words(Form((0,), "%d/%m/%Y %H:%M"))
      'day/month/year'
    """
    words = {"d": "day", "m": "month", "Y": "year", "y": "year"}
    format = form.format.split(" %H")[0].split(" %I")[0].split("T%")[0].rstrip(",")
    return re.sub(r"%(\w)", lambda found: words.get(found[1], found[1]), format)


def agreeing(
    forms: Sequence[Form], dates: str | None, rows: Sequence[Sequence[str]]
) -> list[Form]:
    """Return the forms in which the day, or the month, comes first, as in `dates`.

    Forms without numbers of a day and a month, such as ISO dates, are returned too.

    Args:
      forms: forms in which a table may have times.
      dates: one of :data:`DATES`, or None for all forms.
      rows: first rows of the table.

    Raises:
      ValueError: if no form agrees with `dates`.
    """
    if dates is None:
        return [*forms]
    if dates not in DATES:
        raise ValueError(f"dates must be one of {', '.join(DATES)}; got {dates!r}.")

    def agrees(form):
        day, month = form.format.find("%d"), form.format.find("%m")
        return min(day, month) < 0 or (day < month) == (dates == DATES[0])

    found = [form for form in forms if agrees(form)]
    if forms and not found:
        raise ValueError(
            f"dates such as {rows[0][forms[0].columns[0]].strip()!r} are not {dates}: "
            f"they are {in_words(forms[0])}. Leave out --dates."
        )
    return found


def _ordered(times: np.ndarray) -> float:
    """Return the fraction of time differences that have the more frequent sign."""
    forwards, backwards, _ = directions(times)
    return max(forwards, backwards) / max(1, len(times) - 1)


def directions(times: np.ndarray) -> tuple[int, int, int]:
    """Count the rows that are later than, earlier than, or equal to the row before."""
    steps = np.diff(times[known(times)])
    nothing = np.zeros(1, steps.dtype)
    forwards, backwards = int(np.sum(steps > nothing)), int(np.sum(steps < nothing))
    return forwards, backwards, len(steps) - forwards - backwards


def known(times: np.ndarray) -> np.ndarray:
    return ~np.isnat(times) if times.dtype.kind == "M" else np.isfinite(times)


def _clock(names: Sequence[str], rows: Sequence[Sequence[str]], but: int) -> int | None:
    for place, name in enumerate(names):
        cells = [row[place].strip() for row in rows if not is_missing(row[place])]
        clocks = [CLOCK.fullmatch]
        clocks += [HOUR.fullmatch] if HOUR_NAMES.fullmatch(name) else []
        found = name and place != but and cells
        if found and any(all(map(clock, cells)) for clock in clocks):
            return place
    return None


def _formats(cells: list[str], named: bool) -> list[str]:
    """Return the time formats that fit nearly all cells of a column."""
    texts = [cell.strip() for cell in cells if not is_missing(cell)]
    if all(text.isascii() and text.isdigit() for text in texts):
        if not named:
            return []
        (size, *more) = {*map(len, texts)}
        tables = [] if more else [UNIX, ONLY_DIGITS]
        tried = [table[size] for table in tables if size in table]
        return [next((each for each in tried if _fits(texts, each)), "number")]
    if all(map(is_number, texts)) and not all(text.count(".") == 2 for text in texts):
        return ["number"] if named else []
    if not any(map(str.isdigit, texts[0])):
        return []
    for each in ("iso", "quarter", "week"):
        if _fits(texts, each):
            return [each]
    tried = [day + hour for day in DAYS for hour in HOURS]
    tried = [each for each in tried if _marks(each) <= set(texts[0])]
    fits = [each for each in tried if _fits(texts, each)]
    most = max((_share(texts, each) for each in fits), default=0)
    return [each for each in fits if _share(texts, each) == most]


def _marks(format: str) -> set[str]:
    """Return the literal characters of a time format, such as : and /."""
    return set(re.sub(r"%\w", "", format))


def _share(texts: list[str], format: str) -> float:
    return float(np.mean(~np.isnat(_parse(texts, format))))


def _fits(texts: list[str], format: str) -> bool:
    return _share(texts, format) >= MOST


def _parse(cells: Sequence[str], format: str) -> np.ndarray:
    """Parse cells as times [N]; cells that do not fit the format become NaT."""
    text: Any = pd.Series([cell.strip() for cell in cells], dtype=object)
    given: dict[str, Any]
    if format == "iso":
        text = text.where(text.map(lambda cell: bool(ISO.fullmatch(cell))), None)
        given = {"format": "ISO8601", "utc": True}
    elif format == "quarter":
        text, given = text.map(_as_month), {"format": "%Y-%m"}
    elif format == "week":
        text, given = text.map(_as_monday), {"format": "%Y-%m-%d"}
    elif format in UNIX.values():
        text, given = pd.to_numeric(text, errors="coerce"), {"unit": format}
    else:
        given = {"format": format}
    found: Any = pd.to_datetime(text, errors="coerce", **given)
    if found.dt.tz is not None:
        found = found.dt.tz_localize(None)
    return found.to_numpy("datetime64[us]")


def _as_month(cell: str) -> str:
    """Return the first month of a quarter such as 2020-Q3."""
    found = QUARTER.fullmatch(cell)
    if not found:
        return ""
    return f"{found[1] or found[4]}-{3 * int(found[2] or found[3]) - 2:02}"


def _as_monday(cell: str) -> str:
    """Parse a week such as 2020-W03 as its Monday, or a day such as 2020-W03-4."""
    found = WEEK.fullmatch(cell)
    if not found:
        return ""
    year, week, day = (int(part or 1) for part in found.groups())
    try:
        return datetime.date.fromisocalendar(year, week, day).isoformat()
    except ValueError:
        return ""


def unknown_times(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return notes on columns with names of times, but with times of unknown format."""
    return [
        f"times such as {rows[0][place].strip()!r} in {name!r} have no known form: the "
        "order of rows is not checked."
        for place, name in enumerate(names)
        if rows and name and NAMES.fullmatch(name) and not is_missing(rows[0][place])
    ]


def read_times(form: Form, columns: Sequence[Sequence[str]]) -> np.ndarray:
    """Parse the times [N] of a table's rows; plain numbers, such as years, stay as is.

    Args:
      form: columns and format of the times.
      columns: cells [N] of each column that the form names.
    """
    if form.format.startswith("year"):
        parts = zip(form.format.split(), columns, strict=True)
        numbers: Any = pd.DataFrame(
            {part: _plain([*map(_month_number, cells)]) for part, cells in parts}
        )
        numbers = numbers.assign(day=numbers.get("day", 1))
        return pd.to_datetime(numbers, errors="coerce").to_numpy("datetime64[us]")
    if form.format == "number":
        return _plain(columns[0])
    times = _parse(columns[0], form.format)
    for cells in columns[1:]:
        times = times + np.array([_since_midnight(cell) for cell in cells])
    return times


def _since_midnight(cell: str) -> np.timedelta64:
    if hour := HOUR.fullmatch(cell.strip()):
        return np.timedelta64(int(hour[1]), "h")
    found = CLOCK.fullmatch(cell.strip())
    if not found:
        return np.timedelta64("NaT", "us")
    hours, minutes, seconds = (int(found[i] or 0) for i in (1, 2, 4))
    return np.timedelta64(3600 * hours + 60 * minutes + seconds, "s")


def _month_number(cell: str) -> str:
    """Return the number of a month that is given by its English name."""
    begin = cell.strip()[:3].casefold()
    return str(MONTHS.index(begin) + 1) if begin in MONTHS else cell


def _plain(cells: Sequence[str]) -> np.ndarray:
    """Convert cells to numbers; a cell that is not a number becomes NaN."""
    text = pd.Series([cell.strip().replace(",", ".") for cell in cells], dtype=object)
    return np.asarray(pd.to_numeric(text, errors="coerce"), float)
