"""Order of a table's rows in time, and notes on gaps and repeated times."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data.tables._times import directions, known

SURE = 0.9  # numbers are times if at least this share of steps has one direction


class Order(NamedTuple):
    """Order of a table's rows by time, the times in this order, and notes for users."""

    rows: np.ndarray | None  # [N] indices; None to leave rows as they are
    times: np.ndarray  # [N]
    notes: list[str]


def choose(ways: Sequence[np.ndarray]) -> np.ndarray:
    """Return the best ordered of several readings of the same times [N].

    Readings of a time differ if day and month can be exchanged.
    """
    return max(ways, key=lambda times: (known(times).sum(), *_regular(times)))


def _regular(times: np.ndarray) -> tuple[int, int]:
    """Return how many steps have the commonest direction, and the commonest size."""
    steps = np.diff(times[known(times)])
    _, counts = np.unique(np.abs(steps), return_counts=True)
    return max(directions(times)[:2]), int(max(counts, default=0))


def put_in_order(times: np.ndarray, name: str, file: str) -> Order:
    """Return the order of rows from old to new, with notes on unusual times.

    A table with its newest row first is reversed. Rows in any other order are sorted
    only if all times differ, because sorting would mix up rows with equal times. Plain
    numbers count as times only if nearly all steps between them have one direction.

    Args:
      times: times or numbers [N]; some may be NaT or NaN.
      name: name of the column of times.
      file: name of the file.
    """
    forwards, backwards, equal = directions(times)
    dates = times.dtype.kind == "M"
    if not dates and max(forwards, backwards) < SURE * (forwards + backwards + equal):
        return Order(None, times, [])
    rows, notes = None, []
    if lost := int(np.sum(~known(times))):
        notes.append(f"{name!r} has no time that can be read in {_count(lost, 'row')}.")
    if backwards > forwards and (dates or not forwards):
        rows = np.arange(len(times))[::-1]
        notes.append(f"{file} has its newest row first: its rows are turned round.")
        times = times[rows]
    differ = len(np.unique(times)) == len(times) and not lost
    if directions(times)[1] and dates and differ:
        order = np.argsort(times, kind="stable")
        moved = int(np.sum(order != np.arange(len(order))))
        notes.append(
            f"the rows of {file} are not in order of {name!r}: {_count(moved, 'row')} "
            "moved, so that times increase."
        )
        rows = order if rows is None else rows[order]
        times = times[order]
    return Order(rows, times, notes + _unusual(times[known(times)], name))


def _unusual(times: np.ndarray, name: str) -> list[str]:
    """Return notes on gaps, and on times that repeat or go back."""
    notes, steps = [], np.diff(times)
    back = np.flatnonzero(steps < np.zeros(1, steps.dtype))
    values, counts = np.unique(times, return_counts=True)
    if again := len(times) - len(values):
        first = _text(values[counts > 1][0])
        notes.append(
            f"{name!r} repeats {_count(again, 'time')}, first {first}. Was a clock set "
            "back, or are there several series in the file? Rows count as equal steps."
        )
    if len(back):
        one, other = times[back[0]], times[back[0] + 1]
        notes.append(
            f"{name!r} goes back {_count(len(back), 'time')}, first from {_text(one)} "
            f"to {_text(other)}. Rows are taken in the order of the file."
        )
    if times.dtype.kind == "M":
        notes += _gaps(times, name)
    return notes


def _count(number: float, what: str) -> str:
    return f"{number:.6g} {what}" + ("" if number == 1 else "s")


def _gaps(times: np.ndarray, name: str) -> list[str]:
    steps, unit = _steps(times)
    usual = _usual(steps)
    missing = np.flatnonzero(steps > 1.5 * usual)
    if not len(missing):
        return []
    first, longest = missing[0], int(np.argmax(steps))
    ends = lambda at: f"from {_text(times[at])} to {_text(times[at + 1])}"
    more = "" if len(missing) == 1 else f"; the longest is {ends(longest)}"
    count = _count(len(missing), "gap")
    return [
        f"{name!r} has {count}, where the usual step is {_count(usual, unit)}: the "
        f"first is {ends(first)}{more}. Rows count as equal steps; add rows with an "
        "empty value for times that are missing."
    ]


def _steps(times: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the steps [N − 1] between times in a fitting unit, and the unit's name."""
    steps = np.diff(times) / np.timedelta64(1, "s")
    days = times.astype("datetime64[D]")
    usual = _usual(steps)
    if 27 * 86400 <= usual < np.inf:  # count months, which differ in length
        months = times.astype("datetime64[M]").astype(int)
        return np.diff(months).astype(float), "month"
    if usual == 86400 and (days == times).all() and np.is_busday(days).all():
        return np.busday_count(days[:-1], days[1:]).astype(float), "working day"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if usual >= size:
            return steps / size, unit
    return steps, "second"


def _usual(steps: np.ndarray) -> float:
    """Return the median of the positive steps, or infinity if no step is positive."""
    forwards = np.sort(steps[steps > 0])
    return float(forwards[(len(forwards) - 1) // 2]) if len(forwards) else np.inf


def _text(time: Any) -> str:
    """Return a time as text, without trailing zeros."""
    if not isinstance(time, np.datetime64):
        return f"{time:.15g}"
    text = str(time.astype("datetime64[ms]")).replace("T", " ")
    return text.removesuffix(".000").removesuffix(":00").removesuffix(" 00:00")
