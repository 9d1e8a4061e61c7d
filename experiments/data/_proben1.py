"""Prechelt's Proben1: 14 problems, each in three orders of its examples.

L. Prechelt, "PROBEN1: a set of neural network benchmark problems and benchmarking
rules", Technical Report 21/94, Universität Karlsruhe, 1994. The files are downloaded
once. Notes in the collection name the many people who collected the data. The notes of
the heart problems ask to credit A. Janosi, W. Steinbrunn, M. Pfisterer and R. Detrano.
The notes of the cancer problems ask to credit W. H. Wolberg. proben1.sha256 has the
sha256 of each data file.
"""

import io
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find

ARCHIVE = "proben1/proben1.zip"
ARCHIVE_SHA256 = "c140c9e91242660a632e8b8a1cbcfaa33bc5bfce81358677b5d3f70f99c0b3fe"
URL = (
    "https://raw.githubusercontent.com/jeffheaton/proben1/"
    "1c63a400c5811fdd924510e08ccdba631d118c96/{member}"
)
SUMS = pathlib.Path(__file__).with_name("proben1.sha256")


class Part(NamedTuple):
    """Inputs [P, inputs] and targets [P, outputs] of P examples, float32 in 0..1."""

    x: np.ndarray
    target: np.ndarray


class Proben1(NamedTuple):
    """One problem, with half of its examples for training.

    A quarter of the examples is for validation, and a quarter for test.
    """

    name: str
    classes: bool  # whether targets are one-hot
    train: Part
    validation: Part
    test: Part


def proben1(name: str) -> Proben1:
    """Load a problem by its name, such as "cancer1"."""
    return parse_proben1(name, _text(name))


def parse_proben1(name: str, text: str) -> Proben1:
    """Parse a file of Proben1: seven lines of "key=count", then the examples."""
    lines = text.splitlines()
    counts = {key: int(count) for key, count in (line.split("=") for line in lines[:7])}
    table = np.loadtxt(io.StringIO("\n".join(lines[7:])), dtype=np.float32, ndmin=2)
    inputs = counts["bool_in"] + counts["real_in"]
    width = inputs + counts["bool_out"] + counts["real_out"]
    sizes = [counts[f"{part}_examples"] for part in ("training", "validation", "test")]
    if table.shape != (sum(sizes), width):
        raise ValueError(f"{name}: expected {(sum(sizes), width)}, got {table.shape}.")
    ends = np.cumsum(sizes)[:-1]
    parts = [Part(part[:, :inputs], part[:, inputs:]) for part in np.split(table, ends)]
    return Proben1(name, counts["bool_out"] > 0, *parts)


def _text(name: str) -> str:
    lines = [line.split() for line in SUMS.read_text().splitlines()]
    members = {pathlib.Path(member).stem: (member, sha256) for sha256, member in lines}
    if name not in members:
        known = ", ".join(sorted(members))
        raise ValueError(f"unknown problem {name!r}; there are: {known}.")
    member, sha256 = members[name]
    archive = find(ARCHIVE, ARCHIVE_SHA256)
    if archive is not None:
        with zipfile.ZipFile(archive) as files:
            return files.read(member).decode("ascii")
    url = URL.format(member=member)
    return fetch(url, sha256, f"proben1/{name}.dt").read_text("ascii")
