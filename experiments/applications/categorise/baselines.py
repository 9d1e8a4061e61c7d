"""Baseline of `categorise`: logistic regression on n-grams.

The inverse regularisation C was chosen on validation texts: for spam among 1, 10 and
100, for TREC among 1 and 10. Each C was tried with case kept, and with all letters in
lower case. Words of TREC are separated by spaces, as in the data set.
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
    """Fit logistic regression; return the predicted class of each text in `asked`.

    Args:
      name: name of the data set, in :data:`NAMES`; it decides the kind of n-grams.
      texts: training texts.
      labels: the class of each training text.
      asked: texts to classify.
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
