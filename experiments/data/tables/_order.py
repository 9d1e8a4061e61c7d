"""Sorting of a table's rows by time, and notes on gaps and repeated times."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data.tables._times import directions, known

SURE = 0.9  # numbers are times if this share of their changes has the same sign


class Order(NamedTuple):
    """Order of a table's rows, their times in this order, and notes for the user."""

    rows: np.ndarray | None  # [N] indices of rows; None to keep the order of the file
    times: np.ndarray  # [N]
    notes: list[str]


def choose(ways: Sequence[np.ndarray]) -> np.ndarray:
    """Return the most plausible of several interpretations of a column of times [N].

    There are two interpretations if it is not clear whether day or month comes first.
    The most plausible interpretation has the most valid times, in the most regular
    order.
    """
    return max(ways, key=lambda times: (known(times).sum(), *_regular(times)))


def _regular(times: np.ndarray) -> tuple[int, int]:
    """Return the number of steps in the main direction, and of steps of usual size."""
    steps = np.diff(times[known(times)])
    _, counts = np.unique(np.abs(steps), return_counts=True)
    return max(directions(times)[:2]), int(max(counts, default=0))


def put_in_order(times: np.ndarray, name: str, file: str) -> Order:
    """Return the order of rows from the oldest to the newest, with notes for the user.

    A table that begins with its newest row is reversed. Rows in any other order are
    sorted only if all times are known dates and no two are equal. The order of rows
    with equal times would be unknown. Plain numbers, such as years, count as times only
    if nearly all of them increase, or nearly all decrease, from row to row.

    Args:
      times: times of the rows [N], as dates or plain numbers; NaT or NaN if unknown.
      name: name of the column that has the times, for the notes.
      file: name of the file, for the notes.
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
    """Return notes on gaps, repeated times, and rows earlier than the row before."""
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
    """Return the N − 1 time differences of successive rows, and their unit's name."""
    steps = np.diff(times) / np.timedelta64(1, "s")
    days = times.astype("datetime64[D]")
    usual = _usual(steps)
    if 27 * 86400 <= usual < np.inf:  # count months, because their lengths differ
        months = times.astype("datetime64[M]").astype(int)
        return np.diff(months).astype(float), "month"
    if usual == 86400 and (days == times).all() and np.is_busday(days).all():
        return np.busday_count(days[:-1], days[1:]).astype(float), "working day"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if usual >= size:
            return steps / size, unit
    return steps, "second"


def _usual(steps: np.ndarray) -> float:
    """Return the median of the positive time differences; infinity if none is."""
    forwards = np.sort(steps[steps > 0])
    return float(forwards[(len(forwards) - 1) // 2]) if len(forwards) else np.inf


def _text(time: Any) -> str:
    if not isinstance(time, np.datetime64):
        return f"{time:.15g}"
    text = str(time.astype("datetime64[ms]")).replace("T", " ")
    return text.removesuffix(".000").removesuffix(":00").removesuffix(" 00:00")
