"""Logistic regression on n-grams of texts, to compare networks with.

Settings are the best on validation texts of a few: for spam C of 1, 10 and 100, for
TREC C of 1 and 10 with words as they are divided there; each with and without capitals.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

NAMES = {
    "sms_spam": "logistic, tf-idf of 1–4 characters",
    "trec": "logistic, counts of 1–2 words",
}


def logistic(
    name: str, texts: Sequence[str], labels: np.ndarray, asked: Sequence[str]
) -> np.ndarray:
    """Return the class of each text that is asked for.

    Args:
      name: of the set, one of :data:`NAMES`, which says what n-grams are.
      texts: to learn from.
      labels: the class of each of them.
      asked: the others.
    """
    if name == "sms_spam":
        grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 4))
        model = make_pipeline(grams, LogisticRegression(C=100, max_iter=2000))
    else:
        given = {"token_pattern": r"\S+", "lowercase": False}
        grams = CountVectorizer(ngram_range=(1, 2), **given)
        model = make_pipeline(grams, LogisticRegression(C=10, max_iter=300, tol=1e-3))
    model.fit(texts, labels)
    return np.asarray(model.predict(asked))
