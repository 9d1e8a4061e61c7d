"""Coverage of calibrated 90 % intervals on held-out parts of real series.

    python -m experiments.applications.forecast.coverage --data FOLDER

The folder has one folder for each data set, with the files of :data:`FILES`. Each
series is read like a user's CSV file. The intervals are those of simple methods:
persistence, seasonal forecasts and linear models. The table names the method that wins
on the validation part. Nothing is trained by gradients, so the whole table takes a few
minutes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import report
from experiments.applications.forecast import baselines, contest, scores, user_csv
from experiments.applications.forecast.report import name_of
from experiments.applications.forecast.series import prepare, Series

HORIZON = 12
FILES = {  # {file: columns}
    "sunspots/sunspots.csv": ("SUNACTIVITY",),
    "seattle_weather/seattle-weather.csv": (
        "temp_max", "temp_min", "wind", "precipitation",
    ),
    "shiller/data.csv": ("SP500", "Consumer Price Index", "Long Interest Rate"),
    "vix/vix-daily.csv": ("CLOSE",),
    "wall_following/sensor_readings_24.data": ("15", "20"),
}  # fmt: skip
AIRPORTS = ("EWR", "JFK", "LGA")
HOURLY = ("temp", "humid", "wind_speed", "pressure")


class Coverage(NamedTuple):
    """Coverage of the test part by the winner's 90 % intervals, all horizons together.

    Coverages are percentages.
    """

    name: str
    winner: str
    rows: int  # number of rows of the test part
    own: float  # of intervals that are not calibrated
    split: float  # of intervals that are calibrated, but not adapted in the test part
    adapted: float  # of intervals that are calibrated and adapted
    lowest: float  # the adapted coverage at the horizon where it is lowest
    highest: float


def main() -> None:
    """Print the table of coverages."""
    parser = argparse.ArgumentParser(
        description="Print the coverage of intervals on held-out parts of real series."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    show([*coverages(parser.parse_args().data)])


def show(found: list[Coverage]) -> None:
    """Print a table of coverages."""
    lines = [
        [each.name, each.winner, str(each.rows)]
        + [f"{x:.0f}" for x in (each.own, each.split, each.adapted)]
        + [f"{each.lowest:.0f} to {each.highest:.0f}"]
        for each in found
    ]
    report.show_table(
        f"Values within 90 % intervals, {HORIZON} horizons, in %",
        ["series", "method", "rows", "own", "calibrated", "and adapted", "by horizon"],
        lines,
        "Own: intervals from residuals of the steps that the method is fitted to. "
        "Calibrated: on the validation part. Adapted: also by each value of the test "
        "part as soon as it is known. By horizon: lowest and highest adapted coverage.",
    )


def coverages(folder: Path) -> Iterator[Coverage]:
    """Yield the coverage for each series of the data sets in a folder."""
    for series in all_series(folder):
        prepared, first, rows = prepare(series), series.validation - 1, []
        said = {}
        for name in baselines.names(series):
            said[name] = baselines.walk(name, series, prepared)[0][None]
            row = {"method": name} | scores.score(series, prepared, said[name], first)
            row["validation_squares"] = contest.paired(
                series, prepared, said[name], first
            )
            rows.append(row)
        winner = contest.decide(series, rows).winner
        adapted = _mean(winner["coverage"])
        split = scores.score(series, prepared, said[winner["method"]], first, step=0.0)
        by_horizon = [
            seeds[0]
            for period in winner["coverage"].values()
            for seeds in period.values()
        ]
        yield Coverage(
            series.title,
            name_of(series, winner["method"]),
            len(series.values) - series.test,
            _mean(winner["raw_coverage"]),
            _mean(split["coverage"]),
            adapted,
            min(by_horizon),
            max(by_horizon),
        )


def _mean(coverage: dict[str, dict[str, list[float]]]) -> float:
    scores = [seeds for each in coverage.values() for seeds in each.values()]
    return sum(float(np.mean(seeds)) for seeds in scores) / len(scores)


def all_series(folder: Path) -> Iterator[Series]:
    """Yield the series of the data sets in a folder."""
    for file, columns in FILES.items():
        for column in columns:
            yield user_csv.read_series(folder / file, column, HORIZON, None)
    for airport in AIRPORTS:
        for column in HOURLY:
            yield _hourly(folder, airport, column)
    for path in sorted((folder / "breathing").glob("*.csv"))[::3]:
        series = user_csv.read_series(path, "y", HORIZON, None)
        yield series._replace(title=f"y of breathing {path.name[:12]}")


def _hourly(folder: Path, airport: str, column: str) -> Series:
    """Return a column of one airport, which has a part of the rows of its file."""
    import tempfile

    text = (folder / "nyc_weather" / "weather.csv").read_text()
    head, *lines = text.splitlines(keepends=True)
    mine = [line for line in lines if line.startswith(airport)]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "weather.csv"
        path.write_text(head + "".join(mine))
        series = user_csv.read_series(path, column, HORIZON, None)
    return series._replace(title=f"{column} at {airport}")


if __name__ == "__main__":
    main()
