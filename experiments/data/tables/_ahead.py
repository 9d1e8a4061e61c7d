"""Times after the end of a table, and the season that their step suggests."""

import numpy as np

from experiments.data.tables._order import steps_of, usual_step
from experiments.data.tables._times import known

# {step of times: number of rows in the season that is usual for this step}
SEASONS: dict[tuple[float, str], int] = {
    (1, "hour"): 24, (1, "day"): 7, (1, "working day"): 5, (7, "day"): 52,
    (1, "month"): 12, (3, "month"): 4, (30, "minute"): 48, (15, "minute"): 96,
    (10, "minute"): 144,
}  # fmt: skip


def season_of(times: np.ndarray) -> tuple[int, str] | None:
    """Return the rows in a season, and the step of times in words; None if not known.

    Example:
      >>> season_of(np.arange("2020-01", "2021-01", dtype="datetime64[M]"))
      (12, '1 month')
    """
    times = times[known(times)]
    if times.dtype.kind != "M" or len(times) < 3:
        return None
    steps, unit = steps_of(times.astype("datetime64[us]"))
    usual = usual_step(steps)
    season = SEASONS.get((usual, unit))
    return None if season is None else (season, f"{usual:g} {unit}")


def phases(times: np.ndarray | None, rows: int, season: int) -> np.ndarray:
    """Return the phase [N] of each row within the season, from 0 to `season` − 1.

    If `season` is the usual season of the step of times, the phase is that of the
    calendar, such as the hour of the day. Gaps in the times then do not shift the
    season. Otherwise, rows are counted from the first row.

    Example:
      >>> phases(np.arange("2020-03", "2020-06", dtype="datetime64[M]"), 3, 12).tolist()
      [2, 3, 4]
    """
    counted = np.arange(rows) % season
    found = None if times is None else season_of(times)
    if times is None or found is None or found[0] != season or not known(times).all():
        return counted
    number, unit = found[1].split(" ", 1)
    days = times.astype("datetime64[D]")
    if unit == "month":
        return times.astype("datetime64[M]").astype(int) // int(number) % season
    if unit == "day" and number == "7":
        return days.astype(int) // 7 % season
    if unit in ("day", "working day"):
        weekday = (days.astype(int) + 3) % 7  # 1970-01-01 was a Thursday
        return weekday % season
    since_midnight = (times - days) / np.timedelta64(1, "D")
    return np.floor(since_midnight * season + 1e-9).astype(int) % season


def times_after(times: np.ndarray, count: int) -> np.ndarray:
    """Return the times of `count` rows after the end of a table, in its usual step.

    The usual step is the median difference of successive times. Months, quarters and
    years keep the day of the month, and days without weekends are working days.

    Example:
      >>> days = np.array(["2020-01-02", "2020-01-03", "2020-01-06"], "datetime64[D]")
      >>> times_after(days, 2).astype("datetime64[D]").tolist()
      [datetime.date(2020, 1, 7), datetime.date(2020, 1, 8)]
    """
    times, ahead = times[known(times)], np.arange(1, count + 1)
    if times.dtype.kind != "M":
        return times[-1] + usual_step(np.diff(times)) * ahead
    times = times.astype("datetime64[us]")
    steps, unit = steps_of(times)
    usual, last = usual_step(steps), times[-1]
    if unit == "working day":
        days = np.busday_offset(last.astype("datetime64[D]"), int(usual) * ahead)
        return days.astype("datetime64[us]")
    if unit == "month":
        month, one = last.astype("datetime64[M]"), np.timedelta64(1, "M")
        months = month + int(usual) * ahead * one
        longest = (months + one).astype("datetime64[D]") - months.astype(
            "datetime64[D]"
        )
        at_end = longest.astype("timedelta64[us]") - np.timedelta64(1, "D")
        day = np.minimum(last - month.astype("datetime64[us]"), at_end)
        if (last + np.timedelta64(1, "D")).astype("datetime64[M]") != month:
            day = at_end  # the times are the last days of months
        return months.astype("datetime64[us]") + day
    size = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}[unit]
    step = np.timedelta64(round(usual * size * 1e6), "us")
    return last + step * ahead
