"""Parsing of numbers as people and programs write them, with decimal point or comma."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

MISSING = {
    "", ".", "..", "...", "-", "--", "–", "—", "−", "?", "na", "n/a", "nan", "-nan",
    "null", "none", "nil", "<na>", "#n/a", "#na", "#nv", "#null!", "#div/0!",
    "#value!", "#ref!", "#num!", "#name?", "#wert!", "#zahl!", "1.#qnan", "1.#ind",
    "-1.#ind", "-1.#qnan",
}  # fmt: skip
DECIMALS = (".", ",")
SPACES = " \u00a0\u2009\u202f"  # plain, no-break, thin, narrow no-break space
UNITS = "%‰€$£¥"
MINUS = "−–-"  # minus, en dash and hyphen; in [ ] of a regex, the hyphen must be last
WRITTEN = re.compile(
    rf"(?P<sign>[+{MINUS}]?)[{SPACES}]?(?P<before>[€$£¥]?)[{SPACES}]?"
    rf"(?P<second>[+{MINUS}]?)(?P<body>[0-9.,'’{SPACES}]*[0-9.,])"
    rf"(?P<power>[eE][+{MINUS}]?[0-9]+)?[{SPACES}]?(?P<after>[{UNITS}]?)"
)
# A number has groups of three digits; or, as in India, a last group of three digits and
# groups of two digits before it.
GROUPED = r"[1-9]\d{{0,2}}(?:{0}\d{{3}})+|[1-9]\d?(?:{0}\d{{2}})+{0}\d{{3}}"
SPACED = re.compile(
    rf"[1-9]\d{{0,2}}([{SPACES}'’])\d{{3}}(?:\1\d{{3}})*(?:[.,]\d*)?", re.ASCII
)
PLAIN = {
    decimal: re.compile(rf"\d+{re.escape(decimal)}?\d*|{re.escape(decimal)}\d+", re.A)
    for decimal in DECIMALS
}
WITH_GROUPS = {
    decimal: re.compile(
        rf"(?:{GROUPED.format(re.escape(other))})(?:{re.escape(decimal)}\d*)?", re.A
    )
    for decimal, other in zip(DECIMALS, reversed(DECIMALS), strict=True)
}


class Cell(NamedTuple):
    """A cell of a table, and the number of its line in the file."""

    line: int
    cell: str


@lru_cache(4096)
def is_missing(cell: str) -> bool:
    """Return whether a cell is empty, or is a mark of a missing value, such as NA."""
    return cell.strip().casefold() in MISSING


def unit_of(cell: str) -> str:
    """Return the unit before or after a number, such as € or %; "" without a unit."""
    found = WRITTEN.fullmatch(cell.strip())
    return found["before"] or found["after"] if found else ""


@lru_cache(4096)
def to_number(cell: str, decimal: str) -> float | None:
    """Parse a cell as a number; return NaN for a missing value, None for other text.

    Groups of digits may be separated by spaces or apostrophes. If the decimal mark
    `decimal` is a point, commas may also separate the groups; if the decimal mark is a
    comma, points may. A percent or currency sign is ignored.

    Example:
      >>> to_number("1.234,5", ","), to_number("−$1,234", "."), to_number("12 %", ".")
      (1234.5, -1234.0, 12.0)
      >>> to_number("1_5", "."), to_number("1,5", ".")
      (None, None)
    """
    if is_missing(cell):
        return math.nan
    found = WRITTEN.fullmatch(cell.strip())
    if found is None or (found["sign"] and found["second"]):
        return None
    if found["before"] and found["after"]:
        return None
    body, power = found["body"], found["power"] or ""
    if SPACED.fullmatch(body):
        body = re.sub(rf"[{SPACES}'’]", "", body)
        grouped = False
    else:
        grouped = bool(WITH_GROUPS[decimal].fullmatch(body)) and not power
    if grouped:
        body = body.replace("," if decimal == "." else ".", "")
    elif not PLAIN[decimal].fullmatch(body):
        return None
    sign = "-" if (found["sign"] or found["second"] or "+") in MINUS else ""
    power = re.sub(f"[{MINUS}]", "-", power)
    number = float(sign + body.replace(",", ".") + power)
    return number if math.isfinite(number) else None


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, with a decimal point or a decimal comma."""
    return not is_missing(cell) and any(
        to_number(cell, d) is not None for d in DECIMALS
    )


class Numbers:
    """A column of numbers, parsed twice: with a decimal point and a decimal comma.

    If a cell is not a number with one of these decimal marks, all values that were
    parsed with this mark are dropped.
    """

    def __init__(self, decimal: str | None):
        """Begin a column; `decimal` is its decimal mark, or None to try both marks."""
        ways = DECIMALS if decimal is None else (decimal,)
        self.read: dict[str, list[np.ndarray]] = {way: [] for way in ways}
        self.failed: dict[str, Cell] = {}
        self.differs: tuple[Cell, dict[str, float]] | None = None
        self.units: dict[str, Cell] = {}  # {unit: first cell with this unit}

    def add(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        """Parse N more cells; `lines` are the line numbers of the cells in the file."""
        texts: Any
        codes, texts = pd.factorize(np.array(cells, object))
        first = np.full(len(texts), len(codes))
        np.minimum.at(first, codes, np.arange(len(codes)))
        where = lambda code: Cell(lines[int(first[code])], str(texts[code]))
        values: dict[str, np.ndarray] = {}
        for way in list(self.read):
            found = [to_number(text, way) for text in texts]
            wrong = next((i for i, each in enumerate(found) if each is None), None)
            if wrong is not None:  # the first wrong cell: `texts` are in file order
                self.failed[way] = where(wrong)
                del self.read[way]
                continue
            values[way] = np.array(found, float)
            self.read[way].append(values[way][codes])
        self._note_units(texts, values, where)
        if len(values) == 2 and self.differs is None:
            point, comma = values["."], values[","]
            unlike = np.flatnonzero((point != comma) & ~np.isnan(point))
            if len(unlike):
                both = {way: float(values[way][unlike[0]]) for way in values}
                self.differs = where(unlike[0]), both

    def _note_units(self, texts, values: dict[str, np.ndarray], where) -> None:
        numbers = next(iter(values.values()), None)
        if numbers is None:
            return
        for code, text in enumerate(texts):
            unit = unit_of(text)
            told = unit or numbers[code]  # a zero may be written without a unit
            if unit not in self.units and told and not math.isnan(numbers[code]):
                self.units[unit] = where(code)
