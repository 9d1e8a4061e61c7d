"""Baseline of `speech`: logistic regression on five segments of a recording."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEGMENTS = 5


def score(
    loud: Sequence[np.ndarray], digits: np.ndarray, train: np.ndarray, test: np.ndarray
) -> float:
    """Return the test accuracy of logistic regression, in percent.

    Args:
      loud: log-mel features of each recording, [number of frames, bands].
      digits: [N], digit spoken in each recording.
      train: indices of the training recordings.
      test: indices of the test recordings.
    """
    inputs = np.stack([summary(each) for each in loud])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(inputs[train], digits[train])
    return 100 * float(model.score(inputs[test], digits[test]))


def summary(loud: np.ndarray) -> np.ndarray:
    """Return mean features of five segments of a recording, and a standard deviation.

    The mean over the whole recording is subtracted from the features. The standard
    deviation is that of all features of the whole recording.

    Example:
      >>> summary(np.arange(10.0)[:, None]).tolist()[:5]
      [-4.0, -2.0, 0.0, 2.0, 4.0]
    """
    return np.append(segments(loud - loud.mean(), SEGMENTS), loud.std())


def segments(x: np.ndarray, count: int) -> np.ndarray:
    """Return the means of equally long segments of features, [count · bands].

    Args:
      x: features, [frames, bands], with one frame at least.
      count: number of segments.
    """
    ends = np.linspace(0, len(x), count + 1)
    means = [
        x[int(low) : max(int(low) + 1, int(high))].mean(axis=0)
        for low, high in pairwise(ends)
    ]
    return np.concatenate(means)
