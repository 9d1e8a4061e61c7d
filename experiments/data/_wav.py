"""Reading of WAV files as arrays of samples."""

import io
import math
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

STREAMED = 0x7FFF0000  # a size in a header that is at least this large means "unknown"
UNREADABLE = (ValueError, ArithmeticError, struct.error, EOFError, UnboundLocalError)
HIGHEST = 1_000_000  # a higher sampling rate, in Hz, means that the header is damaged
ROUNDING = 1e-6  # amount by which a float sample may exceed ±1, due to rounding


def read_wav(
    file: str | Path | BinaryIO, rate: int = 8000, *, lowest: int = 1
) -> np.ndarray:
    """Read a recording as an array of samples, [N] float32 in −1..1.

    Channels are averaged, and the sampling rate is converted to `rate`. Samples beyond
    ±1 after the conversion are clipped. A program that writes a recording to a pipe
    cannot state the number of samples in the header. If the header does not state this
    number, the samples are read to the end of the file.

    Args:
      file: path of the recording, or a binary file that is open for reading.
      rate: sampling rate of the result, in samples per second.
      lowest: lowest sampling rate that the file may have. A recording has no
        frequencies above half its sampling rate, and no conversion can restore them.

    Raises:
      ValueError: if the file is not a WAV file, is truncated, has no samples, has
        samples that are not finite or beyond ±1, or has a sampling rate below `lowest`.

    Example:
      >>> import io
      >>> file = io.BytesIO()
      >>> wavfile.write(file, 8000, np.array([0, 16384, -32768], np.int16))
      >>> read_wav(file).tolist()
      [0.0, 0.5, -1.0]
    """
    content = Path(file).read_bytes() if isinstance(file, str | Path) else file.read()
    name = str(file) if isinstance(file, str | Path) else "the recording"
    content = _sized(content, name)
    try:
        with warnings.catch_warnings():
            # Ignore warnings about unknown chunks; a warning about a truncated file is
            # an error.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            cut_short = "Reached EOF prematurely"
            warnings.filterwarnings("error", cut_short, wavfile.WavFileWarning)
            own_rate, samples = wavfile.read(io.BytesIO(content))
    except wavfile.WavFileWarning as error:
        raise ValueError(f"{name} is cut short: {error}") from error
    except UNREADABLE as error:
        # scipy ends in an UnboundLocalError if the chunk "fmt " or "data" is missing.
        lost = isinstance(error, UnboundLocalError)
        why = 'it has no chunk "fmt " or "data"' if lost else error
        raise ValueError(
            f"{name} is no WAV file of PCM or float samples, or is cut short: {why}"
        ) from error
    if not samples.size:
        raise ValueError(f"{name} holds no sound.")
    if own_rate < lowest:
        raise ValueError(
            f"{name} has {own_rate} samples per second, and must have at least "
            f"{lowest}: record it at that rate."
        )
    if own_rate > HIGHEST:
        raise ValueError(
            f"{name} has {own_rate} samples per second by its header, which must be "
            f"wrong, as the highest rate to be read is {HIGHEST}."
        )
    samples = _as_float(samples)
    if not np.all(np.isfinite(samples)):
        raise ValueError(f"{name} has samples that are not finite.")
    loudest = np.max(np.abs(samples))
    if loudest > 1 + ROUNDING:
        raise ValueError(
            f"{name} has float samples up to ±{loudest:g}, and they must lie in −1..1: "
            "divide them by full scale, which is 32768 for samples of 16 bits."
        )
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if own_rate != rate:
        common = math.gcd(own_rate, rate)
        samples = resample_poly(samples, rate // common, own_rate // common)
    return np.clip(samples, -1, 1).astype(np.float32)


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Convert samples to floats in −1..1.

    Samples of 24 bits need no special case, because scipy stores each of them in the
    upper 24 bits of a 32-bit integer.
    """
    if samples.dtype.kind == "f":
        return samples.astype(float)
    if samples.dtype == np.uint8:  # 8-bit samples are unsigned; 128 is zero
        return (samples.astype(float) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)


def _sized(content: bytes, name: str) -> bytes:
    """Return a RIFF file; if its header has no sizes, write the true sizes into it."""
    if content[:4] not in (b"RIFF", b"RIFX") or content[8:12] != b"WAVE":
        return content
    number, short = ("<I", "<H") if content[:4] == b"RIFF" else (">I", ">H")
    header, at, block = bytearray(content), 12, 1
    while at + 8 <= len(content):
        kind, start = content[at : at + 4], at + 8
        (size,) = struct.unpack_from(number, content, at + 4)
        if kind == b"fmt " and start + 16 <= len(content):
            (channels,) = struct.unpack_from(short, content, start + 2)
            (block,) = struct.unpack_from(short, content, start + 12)
            if not channels:
                raise ValueError(f"{name} has 0 channels, so it holds no sound.")
        if kind == b"data":
            left = len(content) - start
            unknown = size == 0 and left and not _are_chunks(content[start:], number)
            if unknown or size >= STREAMED:
                size = left - left % max(1, block)
                struct.pack_into(number, header, at + 4, size)
                header = header[: start + size]
            elif size - left >= max(1, block):
                raise ValueError(
                    f"{name} is cut short: its header promises {size} bytes of "
                    f"samples, and {left} are there."
                )
            break
        at = start + size + size % 2
    (whole,) = struct.unpack_from(number, content, 4)
    if whole >= STREAMED or len(header) < len(content) or whole < at:
        struct.pack_into(number, header, 4, len(header) - 8)
    return bytes(header)


def _are_chunks(content: bytes, number: str) -> bool:
    """Return whether bytes consist of complete RIFF chunks (name, size and data)."""
    at = 0
    while at + 8 <= len(content):
        if not all(32 <= byte < 127 for byte in content[at : at + 4]):
            return False
        (size,) = struct.unpack_from(number, content, at + 4)
        at += 8 + size + size % 2
    return at in (len(content), len(content) + 1)
