"""Recognition of the spoken digit in a user's WAV file, by the networks of a run."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from experiments import data, report
from experiments.harness import models
from experiments.harness.errors import DataError

RATE, LONGEST = 8000, 5.0  # samples per second; longest allowed recording in s
LOWEST = 2000  # a lower sampling rate, in Hz, has hardly any speech


def read_digit(path: Path) -> np.ndarray:
    """Read the samples of a user's recording, at 8000 samples per second.

    The recording may have any sampling rate from 2000 Hz on. If the rate is below 8000
    Hz, the frequencies above half the rate are missing, and words are harder to
    recognise.

    Raises:
      DataError: if the file cannot be read, or the recording is too long, is silent, or
        has too few samples per second.
    """
    try:
        samples = data.read_wav(path, RATE, lowest=LOWEST)
    except (OSError, ValueError) as error:
        raise DataError(f"--wav: {error}") from error
    seconds = len(samples) / RATE
    if seconds > LONGEST:
        raise DataError(
            f"--wav: {path} is {seconds:.1f} s long; it must be at most {LONGEST:g} s. "
            "Cut it to the word."
        )
    if not np.ptp(samples):
        raise DataError(f"--wav: {path} is silent: every sample is {samples[0]:g}.")
    return samples


def answer(
    config: Any, folder: Path, rows: list[dict[str, Any]], samples: np.ndarray
) -> None:
    """Print the digit that the networks of a run recognise in a recording.

    Raises:
      DataError: if the networks with the first of `config.cells` and the first of
        `config.pooling` have not been trained yet.
    """
    name = f"{config.cells[0]}-{config.pooling[0]}"
    if name not in [row["job"] for row in rows]:
        raise DataError(f"--wav: {name} is not trained yet; continue with --resume.")
    found = models.load(folder).predict(samples)
    digit = f"[bold]{found.value}[/bold] ({100 * (found.probability or 0):.0f} %)"
    report.say(f"{escape(str(config.wav))}: {digit}{found.warning}")
