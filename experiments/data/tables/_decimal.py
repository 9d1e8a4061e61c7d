"""Decimal mark of a column of numbers, from the column itself or from other columns."""

import re

import numpy as np

from experiments.data.tables._layout import Layout
from experiments.data.tables._numbers import (
    Cell,
    DECIMALS,
    is_missing,
    is_number,
    Numbers,
    to_number,
)
from experiments.data.tables._source import Source


def decided(
    numbers: Numbers, name: str, source: Source, layout: Layout
) -> tuple[np.ndarray, list[str]]:
    """Return the numbers of a column, and notes; ambiguous numbers are an error."""
    if not numbers.read:
        raise ValueError(
            f"column {name!r} must hold numbers; {_fault(numbers, source)}"
        )
    _check_units(numbers.units, name, source)
    if len(numbers.read) == 1 or numbers.differs is None:
        return _joined(next(iter(numbers.read.values()))), []
    (line, cell), meanings = numbers.differs
    way, why = _told(layout, name)
    if way is None:
        a, b = (f"{meanings[each]:.15g}" for each in DECIMALS)
        raise ValueError(
            f"column {name!r} of {source.path} is not clear: {cell!r} in line {line} "
            f"can be {a} or {b}. Give --decimal . or "
            "--decimal , to say which."
        )
    note = f"{cell!r} in column {name!r} is read as {meanings[way]:.15g}: {why}"
    return _joined(numbers.read[way]), [note + f" (else give --decimal {_other(way)})."]


def _fault(numbers: Numbers, source: Source) -> str:
    """Describe a cell that is no number, or two cells with different decimal marks."""
    first, last = min(numbers.failed.values()), max(numbers.failed.values())
    told = f"line {last.line} of {source.path} has {last.cell.strip()!r}"
    if is_number(last.cell) and is_number(first.cell):
        return (
            f"{told}, and line {first.line} has {first.cell.strip()!r}, with another "
            "decimal mark. Write all numbers with one mark."
        )
    return f"{told}. Leave the field empty if a value is missing."


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _other(decimal: str) -> str:
    return DECIMALS[1 - DECIMALS.index(decimal)]


def _check_units(units: dict[str, Cell], name: str, source: Source) -> None:
    signs = [unit for unit in units if unit]
    if len(signs) > 1 or (set(signs) & {"%", "‰"} and "" in units):
        told = " and ".join(
            f"{each.cell.strip()!r} in line {each.line}"
            for each in [*units.values()][:2]
        )
        raise ValueError(
            f"column {name!r} of {source.path} has several units: {told}. Convert its "
            "numbers to one unit."
        )


def _told(layout: Layout, name: str) -> tuple[str | None, str]:
    """Infer the decimal mark from other columns; return it or None, and the reason."""
    found: dict[str, str] = {}
    for i, other in enumerate(layout.names):
        cells = [row[i] for row in layout.sample if not is_missing(row[i])]
        for way in DECIMALS:
            if other == name or not cells:
                continue
            if any(to_number(cell, way) is None for cell in cells):
                continue
            sure = [cell for cell in cells if _only(cell, way)]
            if sure:
                found[way] = f"column {other!r} has {sure[0].strip()!r}"
    if len(found) == 1:
        return next(iter(found.items()))
    if not found and layout.delimiter == ",":
        return ".", "commas are between the fields"
    return None, ""


def _only(cell: str, way: str) -> bool:
    """Return whether a number can only be read with `way` as its decimal mark.

    The result is False for a number that may be a time of day, such as 12.30.
    """
    if to_number(cell, _other(way)) is not None:
        return False
    return way == "," or not re.fullmatch(r"\d{1,2}\.[0-5]\d", cell.strip())
