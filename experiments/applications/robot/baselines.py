"""Baseline classifiers of `robot`, which see one or several sensor frames."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.applications.robot.networks import Frames

PAST = 9


def majority(frames: Frames) -> np.ndarray:
    """Predict the most common action of the training part for every test frame."""
    most = np.bincount(frames.actions[: frames.first]).argmax()
    return np.full(len(frames.actions) - frames.first, most)


def logistic(frames: Frames) -> np.ndarray:
    """Predict each action by logistic regression on the current frame."""
    return _fitted(frames.xs, frames)


def logistic_with_past(frames: Frames) -> np.ndarray:
    """Predict by logistic regression on the current frame and nine frames before."""
    return _fitted(with_past(frames.xs, PAST), frames)


def with_past(xs: np.ndarray, past: int) -> np.ndarray:
    """Append the `past` previous rows to each row; before row 0, repeat row 0.

    Example:
      >>> with_past(np.array([[1], [2], [3]]), 1).tolist()
      [[1, 1], [2, 1], [3, 2]]
    """
    times = np.maximum(np.arange(len(xs))[:, None] - np.arange(past + 1), 0)
    return xs[times].reshape(len(xs), -1)


def _fitted(xs: np.ndarray, frames: Frames) -> np.ndarray:
    model = LogisticRegression(solver="newton-cholesky")
    model.fit(xs[: frames.first], frames.actions[: frames.first])
    return np.asarray(model.predict(xs[frames.first :]))


BASELINES = {
    "majority": majority,
    "logistic": logistic,
    "logistic, 9 past frames": logistic_with_past,
}
