"""Spoken digits: the Free Spoken Digit Dataset v1.0.10, not committed here.

Z. Jackson and contributors, https://github.com/Jakobovski/free-spoken-digit-dataset, CC
BY-SA 4.0. Six people say each of the ten digits fifty times; the sampling rate is 8
kHz. GitHub does not guarantee that the bytes of a source archive stay the same. The
recordings are therefore repacked into a zip archive with fixed bytes, whose sha256 is
checked.
"""

import io
import re
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from experiments.data._fetch import fetch, find, make
from experiments.data._wav import read_wav
from experiments.harness.errors import DataError

FILE = "fsdd/recordings.zip"
SHA256 = "86e175a3193b1ebc02f591a2fd0e1745c0a3c1cc90443bfee3ae41110c2eb1b2"
URL = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/"
    "v1.0.10.tar.gz"
)
TARBALL = "fsdd/free-spoken-digit-dataset-1.0.10.tar.gz"
NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE = 8000  # samples per second


class FSDD(NamedTuple):
    """All 3000 recordings, and the indices of the recordings in each part of the data.

    The part `test` is the official test part. The parts `train` and `validation`
    together are the official training part. All six speakers are in each part.
    """

    samples: list[np.ndarray]  # each [N] float32 in −1..1, with N from 1,148 to 18,262
    digits: np.ndarray  # [3000] digit spoken in each recording
    speakers: np.ndarray  # [3000] speaker, an index into SPEAKERS
    train: np.ndarray  # [2400] indices of recordings
    validation: np.ndarray  # [300]
    test: np.ndarray  # [300]


def fsdd() -> FSDD:
    """Load all recordings, in the order of their file names."""
    path = find(FILE, SHA256) or make(FILE, SHA256, _repacked)
    samples, digits, speakers, takes = [], [], [], []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            digit, speaker, take = _parse(name)
            samples.append(read_wav(io.BytesIO(archive.read(name)), RATE))
            digits.append(int(digit))
            speakers.append(SPEAKERS.index(speaker))
            takes.append(int(take))
    take = np.array(takes)
    test, validation = take < 5, (take >= 5) & (take < 10)
    parts = [np.flatnonzero(part) for part in (take >= 10, validation, test)]
    return FSDD(
        samples, np.array(digits, np.int32), np.array(speakers, np.int32), *parts
    )


def without_speaker(recordings: FSDD, speaker: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of all other speakers' recordings, and of this speaker's."""
    if speaker not in SPEAKERS:
        raise ValueError(f"speaker must be one of {SPEAKERS}, got {speaker!r}.")
    mine = recordings.speakers == SPEAKERS.index(speaker)
    return np.flatnonzero(~mine), np.flatnonzero(mine)


def _parse(name: str) -> tuple[str, str, str]:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"expected digit_speaker_number.wav, got {name!r}.")
    digit, speaker, take = match.groups()
    return digit, speaker, take


def _repacked() -> bytes:
    """Download the original archive; return its recordings as a zip archive."""
    path = fetch(URL, None, TARBALL)
    try:
        with tarfile.open(path) as archive:
            wavs = {
                PurePosixPath(member.name).name: archive.extractfile(member)
                for member in archive.getmembers()
                if PurePosixPath(member.name).match("*/recordings/*.wav")
            }
            return repack({name: file.read() for name, file in wavs.items() if file})
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}, downloaded from {URL}, is no archive, or is cut short: {error}. "
            "Remove it, and try again."
        ) from error


def repack(files: dict[str, bytes]) -> bytes:
    """Pack files into an uncompressed zip archive; return its bytes.

    The bytes of the archive depend only on the names and the contents of the files.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o100644 << 16
            archive.writestr(member, files[name])
    return packed.getvalue()
