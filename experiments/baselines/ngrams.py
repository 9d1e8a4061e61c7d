"""Interpolated n-gram models, which mix the predictions of all orders from 0 to n.

    p_n(x | c) = w · N(c, x) / N(c) + (1 − w) · p_{n−1}(x | c′),
    w = N(c) / (N(c) + 5)

p_n(x | c) is the probability of the symbol x after the context c, by the model of order
n; p_0 is the uniform distribution. The context c consists of the n − 1 symbols before
x, and the context c′ is c without its first symbol. N(c) is the number of occurrences
of c in the training text. N(c, x) is the number of occurrences of c that are followed
by x. The weight w grows with N(c).
"""

import numpy as np


def interpolated_ngrams(
    train: np.ndarray, given: np.ndarray, symbols: int, order: int
) -> list[float]:
    """Return the mean losses on a text, in nats per symbol, of n-gram models.

    The list has the mean loss of each n-gram model, for n from 1 to `order`.

    Args:
      train: text in which n-grams are counted, as indices of its symbols, [N].
      given: text to score, as indices of its symbols, [M]; its first symbol is scored
        without a context.
      symbols: number of symbols in the alphabet.
      order: largest order n of the n-gram models.

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
    """Extend each context by a symbol; return integers, equal for equal contexts."""
    codes = [
        np.concatenate([[0], (contexts * symbols + text)[:-1]])
        for contexts, text in ((known, train), (here, given))
    ]
    ids = np.unique(np.concatenate(codes), return_inverse=True)[1]
    return ids[: len(train)], ids[len(train) :]
