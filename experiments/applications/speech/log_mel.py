"""Log-mel features of sound: the logarithm of the energy per frequency band and frame.

x are sound samples, R for each second. A frame has N samples, and begins H samples
after the previous frame. w_n = sin²(πn / N) is Hann's window (periodic).

    S_{t,k} = |Σ_n w_n x_{tH+n} e^{−2πi kn/N}|²,    k = 0..N/2, of kR/N Hz
    L_{t,b} = ln max(ε, Σ_k S_{t,k} F_{k,b})

S is the power spectrum at frame t, and L are the log-mel features. F_{·,b} is the
filter of the frequency band b, and ε the lower bound of a band's energy (see `floor`).
As a function of frequency, each filter is a triangle: 1 at its centre, 0 at the centres
of the two neighbouring filters. The centres are equally spaced in mel, by HTK's formula
m(f) = 2595 log₁₀(1 + f/700).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@partial(jax.jit, static_argnames=("rate", "size", "hop", "bands", "low", "high"))
def log_mel(
    samples: jax.Array,
    *,
    rate: int = 8000,
    size: int = 256,
    hop: int = 80,
    bands: int = 24,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-6,
) -> jax.Array:
    """Return the log-mel features of sound samples, [*batch, frames, bands].

    Only frames that lie completely within the recording are returned. If a recording
    has fewer than N samples, zeros are appended to make one frame. If a recording is
    padded at its end, the later frames contain padding. The number of frames without
    padding is :func:`num_frames` of the length before padding.

    Args:
      samples: [*batch, samples].
      rate: samples per second.
      size: N, number of samples in a frame; 256 samples are 32 ms at 8 kHz.
      hop: H, number of samples from the start of a frame to the start of the next; 80
        samples are 10 ms at 8 kHz.
      bands: number of frequency bands, which is the number of features of a frame.
      low: lower end of the lowest band, Hz.
      high: upper end of the highest band, Hz; by default half the rate.
      floor: ε, lower bound of the energy, in units of the power spectrum S.

    Raises:
      ValueError: if an argument is out of its range, or if a band is so narrow that it
        contains no frequency of the power spectrum.

    Example:
      >>> log_mel(jnp.zeros((2, 1000)), bands=20).shape
      (2, 10, 20)

    References:
      Davis & Mermelstein, "Comparison of parametric representations for monosyllabic
      word recognition in continuously spoken sentences", IEEE Transactions on
      Acoustics, Speech, and Signal Processing 28(4), 1980,
      doi:10.1109/TASSP.1980.1163420.
    """
    if size < 2 or hop < 1:
        raise ValueError(f"size must be at least 2, hop 1; got {size} and {hop}.")
    filters = mel_filters(bands, size, rate, low, high)
    spectrum = power_spectrum(samples, size, hop)
    energies = spectrum @ jnp.asarray(filters, spectrum.dtype)
    return jnp.log(jnp.maximum(energies, jnp.asarray(floor, energies.dtype)))


def num_frames(samples: int | np.ndarray, size: int = 256, hop: int = 80) -> Any:
    """Return the number of frames from a number of samples (an integer or an array).

    Example:
      >>> num_frames(1000), num_frames(np.array([100, 336])).tolist()
      (10, [1, 2])
    """
    frames = np.maximum(0, np.asarray(samples) - size) // hop + 1
    return frames if frames.ndim else int(frames)


def power_spectrum(samples: jax.Array, size: int, hop: int) -> jax.Array:
    """Return the power spectrum of each frame, [*batch, frames, size // 2 + 1]."""
    short = max(0, size - samples.shape[-1])
    padding = [*(samples.ndim - 1) * [(0, 0)], (0, short)]
    samples = jnp.pad(samples, padding)
    count = num_frames(samples.shape[-1], size, hop)
    index = hop * np.arange(count)[:, None] + np.arange(size)[None]
    window = np.sin(np.pi * np.arange(size) / size) ** 2
    frames = samples[..., index] * jnp.asarray(window, samples.dtype)
    return jnp.abs(jnp.fft.rfft(frames)) ** 2


def mel_filters(
    bands: int, size: int, rate: int, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """Return the filters F of all frequency bands, [size // 2 + 1, bands].

    Args:
      bands: number of triangles.
      size: number of samples in a frame.
      rate: samples per second.
      low: lower end of the first triangle, Hz.
      high: upper end of the last triangle, Hz; by default half the rate.

    Raises:
      ValueError: for the same reasons as in :func:`log_mel`.
    """
    high = rate / 2 if high is None else high
    if bands < 1 or not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"bands must be at least 1 and 0 ≤ low < high ≤ rate / 2 = {rate / 2:g}; "
            f"got bands={bands}, low={low:g}, high={high:g}."
        )
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)
    corners = 700 * (10 ** (np.linspace(mel(low), mel(high), bands + 2) / 2595) - 1)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    hertz = np.arange(size // 2 + 1)[:, None] * rate / size
    rising = (hertz - left) / (middle - left)
    falling = (right - hertz) / (right - middle)
    filters = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(filters.sum(axis=0) == 0)
    if empty.size:
        raise ValueError(
            f"bands={bands} are too many for frames of size={size}: no frequency lies "
            f"in band {empty[0]}. Take fewer bands, or longer frames."
        )
    return filters
