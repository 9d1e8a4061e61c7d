"""Positions of markers on the chest and abdomen of breathing people, downloaded once.

The data are from T. Krilavičius et al. (2013, 2015); the files are those of M. Pohl et
al. (2022), licence CC BY 4.0. There are nine sequences of one to five minutes, with
about ten positions a second of three markers. The time stamps have gaps and errors, so
rows are taken as equally spaced.
"""

import csv
from pathlib import Path

import numpy as np

from experiments.data._fetch import fetch, find

SUMS = Path(__file__).with_name("breathing.sha256")
FOLDER = "breathing"
URL = (
    "https://raw.githubusercontent.com/pohl-michel/"
    "time-series-forecasting-with-UORO-RTRL-LMS-and-linear-regression/"
    "051dc384964ede156128cb6127c4fe9a75b85d79/Original%20data/"
)
HEADER = ["Frame", "Timestamp", "x", "y", "z"]


def breathing() -> dict[str, np.ndarray]:
    """Return the positions of all sequences in mm, {name: [T, 9]}.

    Columns are x, y and z of the first marker, then of the second and of the third.
    """
    markers: dict[str, list[np.ndarray]] = {}
    for line in SUMS.read_text(encoding="ascii").splitlines():
        sha256, name = line.split()
        path = find(f"{FOLDER}/{name}", sha256)
        path = path or fetch(URL + name, sha256, f"{FOLDER}/{name}")
        markers.setdefault(name.split("-")[0], []).append(_positions(path))
    return {name: np.concatenate(each, axis=1) for name, each in markers.items()}


def _positions(path: Path) -> np.ndarray:
    """Return the positions of one marker, [T, 3], without a last row of zeros."""
    with path.open(encoding="ascii", newline="") as file:
        header, *rows = csv.reader(file, delimiter=";")
    if header != HEADER:
        raise ValueError(f"{path}: unexpected columns {header}.")
    number = lambda text: float(text.replace(",", "."))
    table = np.array([[number(each) for each in row[2:]] for row in rows])
    return table if table[-1].any() else table[:-1]
