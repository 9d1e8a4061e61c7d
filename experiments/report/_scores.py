"""Scores: intervals, corrected p values, F1, bits, and confusion matrices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report._studies import show_table


def wilson(correct: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval for the proportion `correct` / `of`.

    `level` is the confidence level.

    Example:
      >>> [round(end, 4) for end in wilson(9, 10)]
      [0.5958, 0.9821]

    References:
      Wilson, "Probable inference, the law of succession, and statistical inference",
      Journal of the American Statistical Association 22, 1927, doi:10.2307/2276774.
    """
    if not 0 <= correct <= of or of < 1:
        raise ValueError(
            f"correct must be in 0..of, and of must be at least 1; got correct="
            f"{correct} and of={of}."
        )
    from scipy.stats import binomtest

    low, high = binomtest(correct, of).proportion_ci(level, method="wilson")
    return float(low), float(high)


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p values for the number of tests, by Holm's method.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]

    References:
      Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
      Journal of Statistics 6(2), 1979.
    """
    order = np.argsort(ps)
    raised = np.asarray(ps, float)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raised))
    return adjusted.round(12).tolist()


def percent(correct: int, of: int) -> str:
    """Format a proportion and its 95 % confidence interval, both in percent.

    Example:
      >>> percent(9, 10)
      '90.0 % (59.6–98.2)'
    """
    low, high = wilson(correct, of)
    return f"{100 * correct / of:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def f1(targets: np.ndarray, predictions: np.ndarray, positive: int = 1) -> float:
    """Return the F1 score of a class: 2 · precision · recall / (precision + recall).

    Example:
      >>> round(f1(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 1])), 3)
      0.5
    """
    from sklearn.metrics import f1_score

    given = targets == positive, predictions == positive
    none: Any = 0.0  # score if no label and no prediction is positive
    return float(f1_score(*given, zero_division=none))


def bits(nats: float) -> float:
    """Convert a loss from nats to bits.

    Example:
      >>> round(bits(1.677), 3)
      2.419
    """
    return nats / math.log(2)


def confusion(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix: rows are true classes, columns predictions.

    Example:
      >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 3).tolist()
      [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(targets, predictions, labels=np.arange(classes))
    return np.asarray(counts)


def show_confusion(title: str, classes: Sequence[str], counts: np.ndarray) -> None:
    """Print a confusion matrix: rows are true classes, columns predictions."""
    rows = [
        [name, *(str(count) if count else "·" for count in row), _recall(row, i)]
        for i, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]
    note = "Rows: true classes. Columns: predictions. Last column: correct, %."
    show_table(title, ["", *classes, "%"], rows, note)


def draw_confusion(title: str, classes: Sequence[str], counts: np.ndarray) -> Figure:
    """Draw a confusion matrix; darker cells have a larger share of their row."""
    counts = np.asarray(counts)
    size = 1.8 + 0.45 * len(classes)
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, label="% of the row")
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.5 else "black"
        if count:
            axis.text(j, i, str(count), ha="center", va="center", color=colour)
    axis.set_xticks(range(len(classes)), classes)
    axis.set_yticks(range(len(classes)), classes)
    if max(map(len, classes)) > 3:
        for label in axis.get_xticklabels():  # rotated labels end at their columns
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axis.set(title=title, xlabel="predicted class", ylabel="true class")
    return figure


def _recall(row: np.ndarray, i: int) -> str:
    return f"{100 * row[i] / row.sum():.0f}" if row.sum() else "–"
