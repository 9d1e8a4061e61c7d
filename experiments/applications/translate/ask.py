"""A trained model of `translate` that translates a sentence."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants import training
from experiments.applications.translate import network, runs, text
from experiments.harness import models, novelty
from experiments.harness.jobs import Row, Way
from experiments.networks.batches import Bucket, pad

READS = {"text": str}
LEARNED = 2000  # number of training sentences that a new sentence is compared with


def make_predict(saved: models.Saved) -> Callable[[str], models.Answer]:
    """Return a function that translates a sentence, given as a string.

    The sentence may have at most 9 words, as in the training.
    """
    how = network.How(*saved.settings["how"])
    words = saved.settings["source_words"], saved.settings["target_words"]
    corpus = text.Corpus([], [], [], *words)
    params = jax.tree.map(jnp.asarray, saved.params["networks"])

    def predict(sentence: str) -> models.Answer:
        source = runs.read_sentence(sentence, "--text")
        ((said, _),) = runs.translate(params, [source], corpus, how)
        views = _views(params, [source], corpus, how)
        return models.answer(saved, said, None, views)

    return predict


def _views(
    params: Any, sources: Sequence[str], corpus: text.Corpus, how: network.How
) -> novelty.Views:
    """Return the vectors by which sentences are compared with training sentences.

    The vectors are the encoder's summary of a sentence in the first network, and the
    share of unknown words with the logarithm of the number of words.
    """
    first = jax.tree.map(lambda leaf: leaf[0], params)
    xs = text.to_numbers(sources, corpus.source_words)
    given = pad(xs, Bucket(runs.LONGEST + 1, np.arange(len(xs))))
    state = np.asarray(_encode(how)(first, *given))
    unknown = [np.mean(x[:-1] == network.UNKNOWN) for x in xs]
    lengths = [np.log(len(x)) for x in xs]
    return {"state": state, "words": np.stack([unknown, lengths], axis=1)}


@cache
def _encode(how: network.How) -> Callable:
    encode = lambda params, x, mask: network.encode(params, x, mask, None, how)[1]
    return jax.jit(encode)


def save(
    config: Any, folder: Path, rows: list[Row], corpus: text.Corpus, job: str, like: Any
) -> None:
    """Save the networks of a job, if they are trained.

    Args:
      config: settings of the run.
      folder: folder of the run.
      rows: rows of finished jobs.
      corpus: sentences, and vocabularies.
      job: name of the job.
      like: params of the networks before the training.
    """
    where = Way(job, folder).checkpoints
    if job not in [row["job"] for row in rows] or not where.exists():
        return
    _, params = training.read_checkpoint(where, like)
    chosen = np.linspace(0, len(corpus.train) - 1, min(LEARNED, len(corpus.train)))
    parts = [corpus.train[int(i)] for i in chosen], corpus.validation
    views = [
        _views(params, [pair[0] for pair in part], corpus, config.how) for part in parts
    ]
    models.save_model(
        folder,
        "translate",
        {"networks": params, "novelty": novelty.calibrate(*views)},
        {
            "how": list(config.how),
            "source_words": corpus.source_words,
            "target_words": corpus.target_words,
        },
    )
