"""Sorting of a table's rows by time, and notes on gaps and repeated times."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data.tables._times import DATES, directions, Form, in_words, known

# A column of plain numbers counts as times if at least this fraction of the differences
# between successive rows has the same sign.
SURE = 0.9


class Order(NamedTuple):
    """Order of a table's rows, their times in this order, and notes for the user."""

    rows: np.ndarray | None  # [N] indices of rows; None to keep the order of the file
    times: np.ndarray  # [N]
    notes: list[str]


def choose(
    forms: Sequence[Form], ways: Sequence[np.ndarray], name: str, file: str
) -> tuple[np.ndarray, list[str]]:
    """Return the most plausible of several readings of a column of times, and notes.

    There are several readings if it is not clear whether day or month comes first. The
    most plausible reading has the most valid times, in the most regular order. If
    another reading has as many valid times, a note names the choice and its reason.

    Args:
      forms: the forms of the times, one for each reading.
      ways: the times [N] in each reading.
      name: name of the column that has the times, for messages.
      file: name of the file, for messages.

    Raises:
      ValueError: if two readings are equally plausible, but order rows differently.
    """
    valid = [int(known(times).sum()) for times in ways]
    places = [i for i, count in enumerate(valid) if count == max(valid)]
    regular = {i: _regular(ways[i]) for i in places}
    best = max(places, key=lambda i: regular[i])
    others = [i for i in places if i != best]
    if not others:
        return ways[best], []
    told = f"the times in {name!r} of {file} can be"
    words = " or ".join(in_words(forms[i]) for i in places)
    options = " or ".join(DATES)
    order = np.argsort(ways[best], kind="stable")
    for i in others:
        same = np.array_equal(order, np.argsort(ways[i], kind="stable"))
        if regular[i] == regular[best] and not same:
            raise ValueError(f"{told} {words}: give --dates {options} to say which.")
    note = (
        f"{told} {words}. They are read as {in_words(forms[best])}, which makes the "
        f"steps between rows more regular (else give --dates {options})."
    )
    return ways[best], [note]


def _regular(times: np.ndarray) -> tuple[int, int]:
    """Count the steps that have the most frequent sign, and the most frequent size.

    A step is the difference of the times of two successive rows. If steps are about a
    month long, months are counted, because their lengths differ.
    """
    times = times[known(times)]
    forwards, backwards, _ = directions(times)
    times = times[::-1] if backwards > forwards else times
    steps = steps_of(times)[0] if times.dtype.kind == "M" else np.diff(times)
    _, counts = np.unique(np.abs(steps), return_counts=True)
    return max(directions(times)[:2]), int(max(counts, default=0))


def put_in_order(times: np.ndarray, name: str, file: str) -> Order:
    """Return the order of rows from the oldest to the newest, with notes for the user.

    A table that begins with its newest row is reversed. Rows in any other order are
    sorted only if all times are known dates and no two are equal, because the correct
    order of rows with equal times is unknown. Plain numbers, such as years, count as
    times only if nearly all of them increase, or nearly all decrease, from row to row.

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
        twice = values[counts > 1]
        why = "Was a clock set back, or are there several series in the file?"
        if np.all(_clock_changes(twice)):
            why = "This is as at the end of daylight-saving time; both rows are kept."
        notes.append(
            f"{name!r} repeats {_count(again, 'time')}, first {text_of(twice[0])}. "
            f"{why} Rows count as equal steps."
        )
    if len(back):
        one, other = times[back[0]], times[back[0] + 1]
        notes.append(
            f"{name!r} goes back {_count(len(back), 'time')}, first from "
            f"{text_of(one)} to {text_of(other)}. Rows are taken in the order of the "
            "file."
        )
    if times.dtype.kind == "M":
        notes += _gaps(times, name)
    return notes


def _count(number: float, what: str) -> str:
    return f"{number:.6g} {what}" + ("" if number == 1 else "s")


def _gaps(times: np.ndarray, name: str) -> list[str]:
    steps, unit = steps_of(times)
    usual = usual_step(steps)
    long = steps > 1.5 * usual
    seconds = np.diff(times) / np.timedelta64(1, "s")
    forward = long & _clock_changes(times[:-1]) & (seconds > 3600)
    forward &= seconds <= usual_step(seconds) + 3600
    missing, notes = np.flatnonzero(long & ~forward), []
    ends = lambda at: f"from {text_of(times[at])} to {text_of(times[at + 1])}"
    if len(missing):
        longest = missing[int(np.argmax(steps[missing]))]
        more = "" if len(missing) == 1 else f"; the longest is {ends(longest)}"
        notes.append(
            f"{name!r} has {_count(len(missing), 'gap')}, where the usual step is "
            f"{_count(usual, unit)}: the first is {ends(missing[0])}{more}. Rows count "
            "as equal steps; add rows with an empty value for times that are missing."
        )
    if forward.any():
        notes.append(
            f"{name!r} leaves out an hour {_count(int(forward.sum()), 'time')}, first "
            f"{ends(int(np.argmax(forward)))}. This is as at the start of "
            "daylight-saving time, so no row is missing."
        )
    return notes


def _clock_changes(times: np.ndarray) -> np.ndarray:
    """Return whether each time is one at which clocks are changed in many countries.

    This is before 4 a.m. on a Sunday of March, April, September, October or November.
    """
    if times.dtype.kind != "M":
        return np.zeros(len(times), bool)
    days = times.astype("datetime64[D]")
    months = times.astype("datetime64[M]").astype(int) % 12 + 1
    sunday = (days.astype(int) + 3) % 7 == 6  # 1970-01-01 was a Thursday
    return (
        sunday
        & np.isin(months, (3, 4, 9, 10, 11))
        & (times - days < np.timedelta64(4, "h"))
    )


def steps_of(times: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the N − 1 time differences of successive rows, and their unit's name."""
    steps = np.diff(times) / np.timedelta64(1, "s")
    days = times.astype("datetime64[D]")
    usual = usual_step(steps)
    if 27 * 86400 <= usual < np.inf:  # count months, because their lengths differ
        months = times.astype("datetime64[M]").astype(int)
        return np.diff(months).astype(float), "month"
    if usual == 86400 and (days == times).all() and np.is_busday(days).all():
        return np.busday_count(days[:-1], days[1:]).astype(float), "working day"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if usual >= size:
            return steps / size, unit
    return steps, "second"


def usual_step(steps: np.ndarray) -> float:
    """Return the median of positive time differences; infinity if there are none."""
    forwards = np.sort(steps[steps > 0])
    return float(forwards[(len(forwards) - 1) // 2]) if len(forwards) else np.inf


def text_of(time: Any) -> str:
    """Format a time without the parts that are zero: milliseconds, seconds, hours."""
    if not isinstance(time, np.datetime64):
        return f"{time:.15g}"
    text = str(time.astype("datetime64[ms]")).replace("T", " ")
    return text.removesuffix(".000").removesuffix(":00").removesuffix(" 00:00")


def texts_of(times: np.ndarray) -> list[str]:
    """Format times alike; parts that are zero in all times are left out.

    Example:
      >>> texts_of(np.array(["2020-01-01T23", "2020-01-02T00"], "datetime64[h]"))
      ['2020-01-01 23:00', '2020-01-02 00:00']
    """
    if times.dtype.kind != "M":
        return [*map(text_of, times)]
    texts = [str(time).replace("T", " ") for time in times.astype("datetime64[ms]")]
    for part in (".000", ":00", " 00:00"):
        if all(text.endswith(part) for text in texts):
            texts = [text.removesuffix(part) for text in texts]
    return texts
