"""Recordings: any WAV file as numbers."""

import math
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly


def read_wav(
    file: str | Path | BinaryIO, rate: int = 8000, *, lowest: int = 1
) -> np.ndarray:
    """Return the samples of a recording, [N] float32 in −1..1.

    Channels are averaged, and another sampling rate is converted to the one asked for.

    Args:
      file: a path, or an open binary file.
      rate: samples per second to return.
      lowest: samples per second that the file must have: of a sound of fewer, what is
        above half of that is missing, and nothing brings it back.

    Raises:
      ValueError: if the file is no WAV file, is cut short, holds no sound, has samples
        that are not finite, or fewer of them per second.

    Example:
      >>> import io
      >>> file = io.BytesIO()
      >>> wavfile.write(file, 8000, np.array([0, 16384, -32768], np.int16))
      >>> read_wav(file).tolist()
      [0.0, 0.5, -1.0]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of other chunks
            cut_short = "Reached EOF prematurely"
            warnings.filterwarnings("error", cut_short, wavfile.WavFileWarning)
            own_rate, samples = wavfile.read(file)
    except FileNotFoundError:
        raise
    except wavfile.WavFileWarning as error:
        raise ValueError(f"{_name(file)} is cut short: {error}") from error
    except (ValueError, struct.error, EOFError, UnboundLocalError) as error:
        raise ValueError(
            f"{_name(file)} is no WAV file, or is cut short: {error}"
        ) from error
    if not samples.size:
        raise ValueError(f"{_name(file)} holds no sound.")
    if own_rate < lowest:
        raise ValueError(
            f"{_name(file)} has {own_rate} samples per second, and must have at least "
            f"{lowest}: record it at that rate."
        )
    samples = _as_float(samples)
    if not np.all(np.isfinite(samples)):
        raise ValueError(f"{_name(file)} has samples that are not finite.")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if own_rate != rate:
        common = math.gcd(own_rate, rate)
        samples = resample_poly(samples, rate // common, own_rate // common)
    return np.asarray(samples, np.float32)


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Return samples in −1..1; integers of 24 bits come in the upper ones of 32."""
    if samples.dtype.kind == "f":
        return samples.astype(float)
    if samples.dtype == np.uint8:  # 128 is silence
        return (samples.astype(float) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)


def _name(file: str | Path | BinaryIO) -> str:
    return str(file) if isinstance(file, str | Path) else "the recording"
