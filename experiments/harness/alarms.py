"""False alarms of trained models: how often a held-out input is called unlike.

    python -m experiments.harness.alarms FOLDER …

prints the rates of the models in the folders of finished runs. A rate is measured when
a model is saved, on held-out inputs that did not calibrate the distance. By chance, a
rate of 5 % that is measured on n inputs differs from 5 % by about √(0.0475 (1/n + 1/m))
where m inputs calibrated the distance. The column "expected" has twice that range.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import report
from experiments.harness import models, novelty
from experiments.harness.errors import DataError


def rates(params: Any, name: str = "") -> Iterator[tuple[str, float, int]]:
    """Yield (part, rate, number of inputs) for each calibrated distance of a model.

    Args:
      params: parameters of a saved model; nested dicts and lists of arrays.
      name: name of the part of the model, for a model with several distances.
    """
    if not isinstance(params, dict):
        return
    if "false_alarms" in params:
        yield name, float(params["false_alarms"]), int(params.get("measured", 0))
        return
    for key, part in params.items():
        inner = name if key == "novelty" else f"{name} {key}".strip()
        yield from rates(part, inner)


def lines(folders: list[Path]) -> list[list[str]]:
    """Return one line of the table for each calibrated distance of the models."""
    found = []
    for folder in folders:
        saved = models.read_model(folder)
        of_model = [*rates(saved.params)] or [("", math.nan, 0)]
        for part, rate, count in of_model:
            title = f"{saved.study}, {part}" if part else saved.study
            if not count:  # too few inputs, or a model that an older version saved
                found.append([title, "not measured", "", ""])
                continue
            # About as many inputs calibrated the distance.
            deviation = math.sqrt(novelty.ALARMS * (1 - novelty.ALARMS) * 2 / count)
            low, high = (novelty.ALARMS + sign * 2 * deviation for sign in (-1, 1))
            limits = f"{100 * max(low, 0):.1f} to {100 * high:.1f}"
            found.append([title, f"{100 * rate:.1f}", str(count), limits])
    return found


def main(arguments: list[str]) -> int:
    """Print the table; return the exit code of the process."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("Usage: python -m experiments.harness.alarms FOLDER …\n")
        print(
            "Prints how often the models of finished runs call held-out inputs unlike."
        )
        return 0 if arguments else 2
    try:
        found = lines([*map(Path, arguments)])
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    report.show_table(
        "Held-out inputs that are called unlike, in %",
        ["model", "unlike", "inputs", "expected"],
        found,
        "These inputs were neither learned nor used to calibrate the distance. "
        f"Expected: {100 * novelty.ALARMS:g} % ± two standard deviations.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
