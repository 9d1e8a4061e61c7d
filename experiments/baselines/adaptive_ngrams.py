"""Adaptive n-gram models, which predict each character before they count it."""

from itertools import pairwise

import numpy as np

MIXED = 5  # the bigram's weight is c / (c + 5); c counts the previous character


def adaptive_ngrams(text: np.ndarray, symbols: int) -> dict[str, np.ndarray]:
    """Return the losses of a unigram and a bigram model, in bits per character.

    The first character of the text is not scored. The unigram model starts with a count
    of one for each symbol. The bigram model is mixed with the unigram model.
    """
    ones, pairs, losses = np.zeros(symbols), np.zeros((symbols, symbols)), []
    for before, now in pairwise(text.tolist()):
        one = (ones[now] + 1) / (ones.sum() + symbols)
        two = (pairs[before, now] + MIXED * one) / (pairs[before].sum() + MIXED)
        losses.append((one, two))
        ones[now] += 1
        pairs[before, now] += 1
    return dict(zip(("unigram", "bigram"), -np.log2(losses).T, strict=True))
