"""WAV files as arrays of samples."""

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

    Channels are averaged, and the sampling rate is converted to `rate`.

    Args:
      file: a path, or an open binary file.
      rate: samples per second to return.
      lowest: the lowest sampling rate that a file may have. A file has no frequencies
        above half its rate, and a conversion cannot restore them.

    Raises:
      ValueError: if the file is no WAV file, is cut short, has no sound, has samples
        that are not finite, or has a sampling rate below `lowest`.

    Example:
      >>> import io
      >>> file = io.BytesIO()
      >>> wavfile.write(file, 8000, np.array([0, 16384, -32768], np.int16))
      >>> read_wav(file).tolist()
      [0.0, 0.5, -1.0]
    """
    try:
        with warnings.catch_warnings():
            # Ignore warnings about unknown chunks, but not about a file cut short.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
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
    """Convert samples to floats in −1..1.

    24-bit samples need no special case: scipy stores them in the upper 24 of 32 bits.
    """
    if samples.dtype.kind == "f":
        return samples.astype(float)
    if samples.dtype == np.uint8:  # 128 is silence
        return (samples.astype(float) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)


def _name(file: str | Path | BinaryIO) -> str:
    return str(file) if isinstance(file, str | Path) else "the recording"
