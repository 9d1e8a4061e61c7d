"""Interpolated n-gram models: weighted means of the probabilities of all orders.

    p_n(x | c) = w · N(c, x) / N(c) + (1 − w) · p_{n−1}(x | c′),
    w = N(c) / (N(c) + 5)

The context c consists of the n − 1 symbols before the symbol x, and c′ is c without its
first symbol. p_0 is the uniform distribution. N(…) is the number of occurrences in the
training text.
"""

import numpy as np


def interpolated_ngrams(
    train: np.ndarray, given: np.ndarray, symbols: int, order: int
) -> list[float]:
    """Return the mean loss in nats per symbol on a text, for orders 1 to `order`.

    Args:
      train: [N] symbol indices of the text in which n-grams are counted.
      given: [M] symbol indices of the text to score; nothing precedes its first symbol.
      symbols: number of symbols in the alphabet.
      order: largest n.

    Example:
      >>> train = np.array([0, 1] * 500)
      >>> nats = interpolated_ngrams(train, train[:100], 2, 2)
      >>> [round(each, 3) for each in nats]
      [0.693, 0.056]
    """
    known, here = np.zeros(len(train), np.int64), np.zeros(len(given), np.int64)
    probability, nats = np.full(len(given), 1 / symbols), []
    for _ in range(order):
        totals = _count(known, here)
        pairs = _count(known * symbols + train, here * symbols + given)
        weight = totals / (totals + 5)
        found = pairs / np.maximum(totals, 1)
        probability = weight * found + (1 - weight) * probability
        nats.append(float(-np.mean(np.log(probability))))
        known, here = _longer(known, here, train, given, symbols)
    return nats


def _count(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the number of times that each element of `asked` occurs in `known`."""
    values, counts = np.unique(known, return_counts=True)
    place = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    return np.where(values[place] == asked, counts[place], 0)


def _longer(known, here, train, given, symbols) -> tuple[np.ndarray, np.ndarray]:
    """Extend each context by one symbol; equal contexts have equal indices."""
    codes = [
        np.concatenate([[0], (contexts * symbols + text)[:-1]])
        for contexts, text in ((known, train), (here, given))
    ]
    ids = np.unique(np.concatenate(codes), return_inverse=True)[1]
    return ids[: len(train)], ids[len(train) :]
