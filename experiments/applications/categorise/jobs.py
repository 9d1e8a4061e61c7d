"""Jobs of `categorise`: train and test networks, and logistic regression."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.categorise import baselines, network, texts
from experiments.applications.categorise.units import batches, encode, Kind, of_kind
from experiments.data import LabelledTexts
from experiments.harness.jobs import Row, time_taken, Way

RUN = 10  # number of consecutive batches that have the same shape


def steps_of(config: Any, kind: Kind) -> tuple[int, int]:
    """Return the total number of updates, and the number of updates between tests."""
    steps = of_kind(config.steps, kind)
    every = max(RUN, -(-steps // config.looks) // RUN * RUN)
    return every * -(-steps // every), every


def fit_baseline(name: str, load: Callable, way: Way) -> Row:
    """Test logistic regression and the most frequent class; return a row of results."""
    classes, train, test = load(name)
    said = baselines.logistic(name, train.texts, train.labels, test.texts)
    row = {"set": name, **scores_of(classes, test.labels, said[None])}
    row["majority"] = 100 * float(np.bincount(test.labels).max() / len(test.labels))
    way.advance(1)
    return row


def train_network(
    config: Any,
    name: str,
    kind: Kind,
    load: Callable,
    way: Way,
    *,
    also: LabelledTexts | None = None,
) -> Row:
    """Train and test one kind of network from all seeds; return its row of results.

    Args:
      config: settings of the run.
      name: name of the data set.
      kind: kind of the symbols that texts are split into.
      load: function (name) -> (classes, training part, test part).
      way: files and progress bar of the job.
      also: texts for a second test after the training, "also_accuracy" in the row.
    """
    classes, train, test = load(name)
    units, longest = texts.units_of(config, kind, train)
    read = encode(units, train.texts, longest)
    tested = encode(units, test.texts, longest)

    def say(params, encoded=tested):
        return network.say(params, config.cell, config.pooling, encoded)

    def look(step, metrics):
        if step % every:
            return {}
        said = say(metrics["params"]).argmax(axis=-1)
        return {"accuracy": percent(said == test.labels)}

    steps, every = steps_of(config, kind)
    dropout = of_kind(config.dropout, kind)
    rate = of_kind(config.learning_rate, kind)
    key = jax.random.key(config.first_seed)
    params = texts.init(config, units, classes)
    draws = choices.draws(config.rule) or dropout > 0
    drawn = partial(
        batches, read, train.labels,
        batch=config.batch, run=RUN, lengths=config.lengths, rare=config.rare,
        seed=config.first_seed,
    )  # fmt: skip
    result = way.fit(
        network.make_rule(
            config.rule, config.cell, config.pooling,
            lookback=config.lookback, dropout=dropout,
        ),
        choices.make_update(config.update, rate, steps=steps),
        params,
        drawn,
        steps=steps,
        chunk=RUN,
        key=jax.random.fold_in(key, 2) if draws else None,
        runs=config.seeds,
        look=look,
        every=every,
    )  # fmt: skip
    likely = say(result.params)
    row: Row = {"set": name, "units_of": kind, "cell": config.cell}
    row |= {"pooling": config.pooling} | _scores(classes, test.labels, likely)
    if also is not None:
        said = say(result.params, encode(units, also.texts, longest)).argmax(axis=-1)
        row["also_accuracy"] = percent(said == also.labels)
    row |= {"rule": config.rule, "update": config.update, "steps": result.steps}
    row["epochs"] = result.steps * config.batch / len(train.texts)
    row["params"] = sum(leaf[0].size for leaf in jax.tree.leaves(params))
    row["nonfinite_step"] = np.asarray(result.nonfinite_step).tolist()
    return row | {"curve": way.curve()} | time_taken(result)


def _scores(classes: tuple[str, ...], labels: np.ndarray, likely: np.ndarray) -> Row:
    """Return scores of class probabilities [networks, N, C], each and averaged."""
    scores = scores_of(classes, labels, likely.argmax(axis=-1))
    together = likely.mean(axis=0).argmax(axis=-1)[None]
    return scores | {"together": scores_of(classes, labels, together)}


def scores_of(classes: tuple[str, ...], labels: np.ndarray, said: np.ndarray) -> Row:
    """Return the scores of the classes `said` [networks, N] that networks predicted."""
    scores: Row = {"accuracy": percent(said == labels)}
    if "spam" in classes:
        spam = classes.index("spam")
        scores["f1"] = [report.f1(labels, each, spam) for each in said]
    counts = report.confusion(labels, said[0], len(classes))
    return scores | {"confusion": counts.tolist(), "classes": list(classes)}


def percent(right: np.ndarray) -> list[float]:
    """Return the percentage of correct answers in each row of an array of bools."""
    return (100 * right.mean(axis=1)).tolist()
