"""Adaptive n-gram models: each character is predicted, then added to the counts."""

from itertools import pairwise

import numpy as np

MIXED = 5  # bigram's weight: c / (c + 5), if the previous character occurred c times


def adaptive_ngrams(text: np.ndarray, symbols: int) -> dict[str, np.ndarray]:
    """Return the mean losses of a unigram and a bigram model, in bits per character.

    The first character of the text is not scored. The unigram model starts with a count
    of one for each symbol. The bigram model's probability is a weighted mean of the
    bigram's and the unigram's.
    """
    ones, pairs, losses = np.zeros(symbols), np.zeros((symbols, symbols)), []
    for before, now in pairwise(text.tolist()):
        one = (ones[now] + 1) / (ones.sum() + symbols)
        two = (pairs[before, now] + MIXED * one) / (pairs[before].sum() + MIXED)
        losses.append((one, two))
        ones[now] += 1
        pairs[before, now] += 1
    return dict(zip(("unigram", "bigram"), -np.log2(losses).T, strict=True))
