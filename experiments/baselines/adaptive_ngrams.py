"""Adaptive n-grams: they predict each character of a text before they count it."""

from itertools import pairwise

import numpy as np

MIXED = 5  # a bigram counts c / (c + 5), c how often its context was seen


def adaptive_ngrams(text: np.ndarray, symbols: int) -> dict[str, np.ndarray]:
    """Return what unigram and bigram pay for each character but the first, in bits.

    The unigram begins with one of each symbol, the bigram is mixed with the unigram.
    """
    ones, pairs, losses = np.zeros(symbols), np.zeros((symbols, symbols)), []
    for before, now in pairwise(text.tolist()):
        one = (ones[now] + 1) / (ones.sum() + symbols)
        two = (pairs[before, now] + MIXED * one) / (pairs[before].sum() + MIXED)
        losses.append((one, two))
        ones[now] += 1
        pairs[before, now] += 1
    return dict(zip(("unigram", "bigram"), -np.log2(losses).T, strict=True))
