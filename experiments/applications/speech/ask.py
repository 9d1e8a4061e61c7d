"""A trained model of `speech` that recognises the digit in a recording."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpvariants import training
from experiments import data
from experiments.applications.speech import baseline, network, wav
from experiments.applications.speech.log_mel import log_mel, num_frames
from experiments.applications.speech.trim import trim
from experiments.harness import models, novelty
from experiments.harness.jobs import Row, Way

READS = {"wav": Path}
PADDED = 4000  # recordings are padded to a multiple of this number of samples
SEGMENTS = 6  # number of segments of a recording that are compared


def make_predict(saved: models.Saved) -> Callable[[Any], models.Answer]:
    """Return a function that recognises the digit in a recording.

    The argument is the path of a WAV file with any sampling rate, or an array [N] of
    samples in −1..1, at 8000 samples per second.
    """
    cell, pooling = saved.settings["cell"], saved.settings["pooling"]

    def predict(x: Any) -> models.Answer:
        path = isinstance(x, str | Path)
        samples = wav.read_digit(Path(x)) if path else np.asarray(x, np.float32)
        loud = [_features(samples)]
        heard = [network.normalised(loud[0])]
        likely = network.say(saved.params["networks"], cell, pooling, heard)
        mean = likely[:, 0].mean(axis=0)
        digit = int(mean.argmax())
        return models.answer(saved, digit, float(mean[digit]), describe(loud))

    return predict


def _features(samples: np.ndarray) -> np.ndarray:
    """Return the log-mel features of a recording, [frames, 24].

    Silence at both ends is removed, as in training. The rest is padded to a multiple of
    a fixed length. Each padded length is compiled once.
    """
    samples = trim(samples)
    length = max(1, -(-len(samples) // PADDED)) * PADDED
    padded = np.pad(samples, (0, length - len(samples)))
    sizes = {"size": network.SIZE, "hop": network.HOP, "bands": network.BANDS}
    frames = num_frames(len(samples), network.SIZE, network.HOP)
    return np.asarray(log_mel(padded, **sizes))[:frames]


def describe(loud: Sequence[np.ndarray]) -> novelty.Views:
    """Return the vectors by which recordings are compared with training recordings.

    The vectors describe the sound: mean of each frequency band in six segments,
    standard deviation of each band, and logarithms of the mean change from frame to
    frame, of the contrast and of the duration. None depends on the loudness or on the
    network. States of the network are not compared, because they differ between known
    and unknown speakers, so most users would be told that their voice is unlike the
    training recordings.

    Args:
      loud: log-mel features of N recordings without silence at their ends, each
        [frames, 24].
    """
    return {"sound": np.stack([_description(x) for x in loud])}


def _description(loud: np.ndarray) -> np.ndarray:
    """Return the vector that describes one recording, [171]."""
    x = network.normalised(loud)
    change = np.abs(np.diff(x, axis=0)).mean() if len(x) > 1 else 0.0
    rest = np.log([change + 1e-2, loud.std() + 1e-3, len(loud)])
    return np.concatenate([baseline.segments(x, SEGMENTS), x.std(axis=0), rest])


def save(
    config: Any,
    folder: Path,
    rows: list[Row],
    loaded: tuple[data.FSDD, list[np.ndarray], network.Recordings],
    train: np.ndarray,
) -> None:
    """Save the networks of the first cell and pooling of a run, if they are trained.

    The distance is that to the nearest digit's mean. It is calibrated by speakers: 5 %
    of the digits of an unknown speaker are beyond 1.

    Args:
      config: settings of the run.
      folder: folder of the run.
      rows: rows of finished jobs.
      loaded: result of :func:`network.load`.
      train: indices of the training recordings.
    """
    cell, pooling = config.cells[0], config.pooling[0]
    job = f"{cell}-{pooling}"
    where = Way(job, folder).checkpoints
    if job not in [row["job"] for row in rows] or not where.exists():
        return
    key = jax.random.key(config.first_seed)
    like = network.init_runs(key, cell, config.units, config.seeds)
    _, params = training.read_checkpoint(where, like)
    _, loud, recordings = loaded
    views = describe([loud[row] for row in train])
    calibrated = novelty.calibrate_groups(
        views, recordings.speakers[train], recordings.digits[train]
    )
    models.save_model(
        folder,
        "speech",
        {"networks": params, "novelty": calibrated},
        {"cell": cell, "pooling": pooling},
    )
