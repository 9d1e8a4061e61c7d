"""The file benchmarks.json of a run, and the comparison of two runs.

Absolute times depend on the load of a machine, and on the machine. Therefore runs are
compared by ratios: the time of each implementation divided by the time of the first
implementation of its group, which was timed in the same rounds.
"""

import json
import math
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from experiments import report
from experiments.harness.errors import DataError
from experiments.harness.jobs import Row

NAME = "benchmarks.json"
PEERS = ("torch", "jaxopt", "optimistix", "lineax", "braintrace")


class Change(NamedTuple):
    """A ratio that two runs measured, with the 95 % interval of each run."""

    group: str
    name: str  # implementation whose time was divided by that of the first one
    old: tuple[float, float, float]  # ratio, and the ends of its interval
    new: tuple[float, float, float]

    @property
    def lost(self) -> bool:
        """Whether the first implementation is slower than before, beyond noise."""
        return self.new[2] < self.old[1]

    @property
    def gained(self) -> bool:
        """Whether the first implementation is faster than before, beyond noise."""
        return self.new[1] > self.old[2]


def write(folder: Path, rows: list[Row]) -> Path:
    """Write the rows of a run, the versions of all packages and the commit."""
    path = folder / NAME
    if report.writes():
        content = {"versions": versions(), "rows": rows}
        report.write_atomically(path, json.dumps(content, indent=1) + "\n")
    return path


def versions() -> dict[str, str]:
    """Return the versions that times depend on, and the commit of this repository."""
    found = report.versions() | {"commit": commit()}
    for name in PEERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of this repository; "+ changes" if files differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + " + changes" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read(path: Path) -> list[Row]:
    """Return the rows of a file benchmarks.json, or of the file in a run's folder."""
    path = path / NAME if path.is_dir() else path
    try:
        rows = json.loads(path.read_text())["rows"]
        _ = [(row["group"], row["name"], row["ratio"]) for row in rows]
    except FileNotFoundError as error:
        raise DataError(
            f"--compare: there is no {path}; give the {NAME} of an earlier run."
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(
            f"--compare: {path} is not the {NAME} of a run ({error!r})."
        ) from error
    return rows


def changes(old: Iterable[Row], new: Iterable[Row]) -> list[Change]:
    """Return the ratios that both runs measured; first rows, of ratio 1, are left out.

    Rows without an interval are left out too, because noise cannot be told from change.
    """
    before = {(row["group"], row["name"]): _ratio(row) for row in old}
    found = []
    for row in new:
        at = row["group"], row["name"]
        if at not in before:
            continue
        pair = before[at], _ratio(row)
        told = not any(math.isnan(end) for each in pair for end in each)
        if told and pair[1] != (1.0, 1.0, 1.0):
            found.append(Change(*at, *pair))
    return found


def show_changes(found: list[Change], old: Path) -> None:
    """Print the ratios that changed beyond noise, losses first."""
    beyond = sorted(
        (change for change in found if change.lost or change.gained),
        key=lambda change: change.new[0] / change.old[0],
    )
    words = lambda three: "{:.3g} [{:.3g}, {:.3g}]".format(*three)
    lines = [
        [
            "loss" if change.lost else "gain",
            f"{change.group}: {change.name}",
            words(change.old),
            words(change.new),
        ]
        for change in beyond
    ]
    lost = sum(change.lost for change in beyond)
    report.show_table(
        f"Changes since {old}",
        ["", "time relative to the first row of the group", "before", "now"],
        lines or [["none beyond noise", "", "", ""]],
        f"{len(found)} ratios compared: {lost} losses, {len(beyond) - lost} gains. A "
        "change is beyond noise if the two 95 % intervals do not overlap. In a loss, "
        "the first row of the group became slower relative to this row.",
        marked=range(lost),
    )


def _ratio(row: Any) -> tuple[float, float, float]:
    nan = float("nan")
    values = (row.get(name) for name in ("ratio", "low", "high"))
    ratio, low, high = (nan if value is None else float(value) for value in values)
    return ratio, low, high
