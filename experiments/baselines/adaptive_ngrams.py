"""Adaptive n-gram models: predict each character, then add it to the n-gram counts."""

from itertools import pairwise

import numpy as np

MIXED = 5  # bigrams have the weight c / (c + 5) after a character that occurred c times


def adaptive_ngrams(text: np.ndarray, symbols: int) -> dict[str, np.ndarray]:
    """Return the losses of a unigram and a bigram model, in bits, for each character.

    The first character of the text is not scored. The unigram model starts with a count
    of one for each symbol. The bigram model's probability of a character is a weighted
    mean of two probabilities: by counts of bigrams, and by the unigram model.
    """
    ones, pairs, losses = np.zeros(symbols), np.zeros((symbols, symbols)), []
    for before, now in pairwise(text.tolist()):
        one = (ones[now] + 1) / (ones.sum() + symbols)
        two = (pairs[before, now] + MIXED * one) / (pairs[before].sum() + MIXED)
        losses.append((one, two))
        ones[now] += 1
        pairs[before, now] += 1
    return dict(zip(("unigram", "bigram"), -np.log2(losses).T, strict=True))
