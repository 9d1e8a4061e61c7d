"""Recognition of the spoken digit in a user's WAV file, by the networks of a run."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from bpvariants import training
from experiments import data
from experiments.applications.speech import network
from experiments.harness.errors import DataError

RATE, LONGEST = 8000, 5.0  # samples per second; longest allowed recording in s


def read_digit(path: Path) -> np.ndarray:
    """Read the samples of a user's recording.

    Raises:
      DataError: if the file cannot be read, or the recording is too long, is silent, or
        has too few samples per second.
    """
    try:
        samples = data.read_wav(path, RATE, lowest=RATE)
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


def recognise(config: Any, folder: Path, samples: np.ndarray) -> np.ndarray:
    """Return the digit probabilities of a recording, by the networks of a run.

    Args:
      config: settings of the run.
      folder: folder of the run.
      samples: samples [N] of the recording, at 8000 per second.

    Returns:
      Probabilities [10], averaged over the networks of all seeds that have the first of
      `config.cells` and the first of `config.pooling`.
    """
    cell, pooling = config.cells[0], config.pooling[0]
    where = folder / "checkpoints" / f"{cell}-{pooling}"
    key = jax.random.key(config.first_seed)
    like = network.init_runs(key, cell, config.units, config.seeds)
    _, params = training.read_checkpoint(where, like)
    heard = [network.normalised(network.features([samples])[0])]
    return network.say(params, cell, pooling, heard)[:, 0].mean(axis=0)


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
    likely = recognise(config, folder, samples)
    first, second = np.argsort(-likely)[:2]
    Console().print(
        f"{config.wav}: [bold]{first}[/bold] ({100 * likely[first]:.0f} %; else "
        f"{second}, {100 * likely[second]:.0f} %)"
    )
