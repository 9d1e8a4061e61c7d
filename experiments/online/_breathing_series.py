"""Series of breathing markers, at three rates, and the error of forecasts.

Times are numbers of samples. A forecast made at time t has the horizon h if it is for
time t + h. The first minute is for training and for the choice of settings; forecasts
are scored on all samples after it.
"""

from typing import NamedTuple

import numpy as np

from experiments import data

MEASURED = 10.0  # samples per second of the files
LAST = 2.1  # the longest horizon, in seconds
MINUTE = 60.0
COORDINATES = 9
WINDOW = 5  # samples in the mean of the smoothed series
# {name: number of samples before and after the current one that its mean contains}
SMOOTHING = {
    "none": (0, 0),
    "causal": (WINDOW - 1, 0),
    "centred": (WINDOW // 2, WINDOW // 2),  # the mean contains later samples
}


class Series(NamedTuple):
    """All sequences at one rate, scaled to mean 0 and variance 1 in the first minute.

    S is the number of sequences, T the length of the longest. Shorter sequences are
    followed by zeros.
    """

    names: tuple[str, ...]
    values: np.ndarray  # [S, T, 9], scaled coordinates
    scales: np.ndarray  # [S, 9], standard deviations in mm
    lengths: np.ndarray  # [S]
    minute: int  # number of samples in the first minute
    rate: float  # samples per second

    @property
    def validation(self) -> tuple[int, np.ndarray]:
        """The part on which settings are chosen: second half of the first minute."""
        return self.minute // 2, np.full_like(self.lengths, self.minute)

    @property
    def test(self) -> tuple[int, np.ndarray]:
        """The part on which forecasts are scored: everything after the minute."""
        return self.minute, self.lengths


def series(rate: float, smoothing: str = "none", sequences: int = 9) -> Series:
    """Return the sequences with `rate` samples per second, the shortest ones first.

    The files have 10 samples per second. For 5 samples per second, every second sample
    is taken, and so on. For a higher rate, values are interpolated between two samples.
    Such a value depends on the later of the two, which is up to 0.1 s ahead.

    Args:
      rate: samples per second, such as 10/3, 10 or 30.
      smoothing: "none"; "causal", the mean of the current sample and four earlier ones;
        or "centred", the mean of the current sample, two earlier and two later ones.
        A centred mean contains samples of the future, so its errors are too low.
      sequences: number of sequences, at most nine.
    """
    found = sorted(data.breathing().items(), key=lambda item: len(item[1]))
    chosen = sorted(found[:sequences])  # by name
    names, raw = zip(*chosen, strict=True)
    made = [resampled(smoothed(each, smoothing), rate) for each in raw]
    minute, longest = round(MINUTE * rate), max(map(len, made))
    values = np.zeros((len(made), longest, COORDINATES))
    scales = np.stack([each[:minute].std(axis=0) for each in made])
    for i, each in enumerate(made):
        values[i, : len(each)] = (each - each[:minute].mean(axis=0)) / scales[i]
    lengths = np.array([len(each) for each in made])
    return Series(names, values, scales, lengths, minute, rate)


def smoothed(values: np.ndarray, smoothing: str) -> np.ndarray:
    """Return means over neighbouring samples; the ends are continued by repetition."""
    before, after = SMOOTHING[smoothing]
    longer = np.pad(values, ((before, after), (0, 0)), mode="edge")
    shifts = range(before + after + 1)
    return np.mean([longer[i : i + len(values)] for i in shifts], axis=0)


def resampled(values: np.ndarray, rate: float) -> np.ndarray:
    """Return values at `rate` samples per second, by linear interpolation."""
    count = int((len(values) - 1) * rate / MEASURED + 1e-6) + 1
    at = np.round(np.arange(count) * MEASURED / rate, 6)
    columns = [np.interp(at, np.arange(len(values)), each) for each in values.T]
    return np.stack(columns, axis=1)


def horizons(rate: float, count: int) -> np.ndarray:
    """Return the middles of `count` equal parts of all horizons up to 2.1 s.

    All horizons are 0.1, 0.2, …, 2.1 s, or the multiples of the time between samples if
    this time is longer. The mean error over the middles is nearly the mean over all
    horizons. If there are at most `count` horizons, all of them are returned.

    Example:
      >>> horizons(10, 7).tolist(), horizons(10 / 3, 7).tolist()
      ([2, 5, 8, 11, 14, 17, 20], [1, 2, 3, 4, 5, 6, 7])
      >>> horizons(30, 7).tolist()
      [6, 15, 24, 33, 42, 51, 60]
    """
    every = spacing(rate)
    total = round(LAST * rate / every)
    count = min(count, total)
    size = total // count
    return every * (size * np.arange(count) + (size + 1) // 2)


def spacing(rate: float) -> int:
    """Return the number of samples in 0.1 s, at least 1.

    It is the distance of horizons, and of the samples that a method reads.
    """
    return max(1, round(rate / MEASURED))


def windows(values: np.ndarray, lags: int, every: int = 1) -> np.ndarray:
    """Return the inputs of all methods, [..., T, 1 + 9·lags]: a one, then samples.

    The inputs at time t are the samples at t, t − every, t − 2·every and so on. Before
    the first sample, it is repeated.
    """
    length = values.shape[-2]
    at = np.arange(length)[:, None] - every * np.arange(lags)
    inputs = values[..., np.maximum(at, 0), :]
    inputs = inputs.reshape(*values.shape[:-1], -1)
    return np.concatenate([np.ones_like(inputs[..., :1]), inputs], axis=-1)


def nrmse(
    errors: np.ndarray, found: Series, part: tuple[int, np.ndarray]
) -> np.ndarray:
    """Return the nRMSE of each sequence, from squared errors in mm².

        nRMSE = sqrt(Σ_t ‖p_t − p̂_t‖² / Σ_t ‖p_t − p̄‖²)

    p̄ is the mean position in the part, and the sums are over the part and all three
    markers.

    Args:
      errors: squared errors of the forecasts for each time, [S, T, *others].
      found: the series.
      part: first time of the part, and its end in each sequence.
    """
    start, ends = part
    scores = []
    for i, end in enumerate(ends):
        truth = (found.values[i, start:end] * found.scales[i]).astype(float)
        spread = ((truth - truth.mean(axis=0)) ** 2).sum()
        total = errors[i, start:end].sum(axis=0, dtype=float)
        scores.append(np.sqrt(total / spread))
    return np.stack(scores)
