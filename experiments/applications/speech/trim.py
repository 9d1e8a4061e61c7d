"""The part of a recording that holds the word: silence at both ends is removed.

    E_t = mean of x² over frame t,    keep frames first..last with E_t ≥ r max_t E_t

x are the samples, and a frame has :data:`FRAME` samples. r is a ratio of energies, so
the result does not depend on the loudness. Frames between the first and the last frame
that is loud enough are kept, however silent they are.
"""

import numpy as np

FRAME = 160  # samples in a frame: 20 ms at 8 kHz
BELOW = 35.0  # frames at the ends that are so many dB below the loudest are removed


def trim(samples: np.ndarray) -> np.ndarray:
    """Return the samples without the silence at the beginning and at the end.

    Training recordings and recordings of users are trimmed by this function. If the
    background noise is less than 35 dB below the word, nothing is removed.

    Example:
      >>> silence = np.zeros(1600)
      >>> sound = np.sin(np.arange(800))
      >>> len(trim(np.concatenate([silence, sound, silence])))
      800
    """
    pad = -len(samples) % FRAME
    frames = np.pad(np.asarray(samples, float), (0, pad)).reshape(-1, FRAME)
    energies = (frames**2).mean(axis=1)
    loud = np.flatnonzero(energies >= 10 ** (-BELOW / 10) * energies.max(initial=0))
    if not loud.size:
        return samples
    return samples[loud[0] * FRAME : (loud[-1] + 1) * FRAME]
