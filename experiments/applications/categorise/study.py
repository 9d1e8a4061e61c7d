"""Study `categorise`: is an SMS message spam, and what does a question ask for?

A recurrent network reads a text by words or by windows of characters, and predicts the
class at the end. The baselines are logistic regression on n-grams of the same texts,
and the most frequent class.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import choices, data, report
from experiments.applications.categorise import (
    ask,
    baselines,
    network,
    report as categorise_report,
    texts,
)
from experiments.applications.categorise.units import (
    batches,
    encode,
    Kind,
    KINDS,
    of_kind,
)
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import all_of, at_least, given, known, within
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import pooled
from experiments.networks.cells import DENSE

RUN = 10  # number of consecutive batches that have the same shape


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How well do recurrent networks classify short texts, compared with n-grams?"""

    QUICK = {
        "sets": ("trec",), "units_of": ("words",), "units": 32, "embedding": 32,
        "hashed": 1024, "steps": (150, 300), "lengths": 1, "looks": 2, "seeds": 1,
    }  # fmt: skip
    CHECKS = {
        "units embedding width stride lookback batch lengths looks": at_least(1),
        "longest steps": at_least(1),
        "hashed rare": at_least(0),
        "sets": all_of(given, known(texts.SETS)),
        "units_of": all_of(given, known(KINDS)),
        "cell": known(DENSE),
        "pooling": known(pooled.POOLINGS),
        "update": known(choices.UPDATES),
        "dropout": within(0, 1, ends="[)"),
    }

    FILES = ("csv",)

    sets: tuple[Literal["sms_spam", "trec"], ...] = ("sms_spam", "trec")
    """Data sets: sms_spam (is a message spam?), trec (what does a question ask?)."""
    csv: Path | None = None
    """A CSV file in UTF-8 with texts and their classes, used in place of `sets`."""
    text: str = "text"
    """Name of the column of texts in `csv`."""
    label: str = "label"
    """Name of the column of classes in `csv`."""
    units_of: tuple[Kind, ...] = ("words", "characters")
    """Kinds of symbols to split texts into: words, characters. The option --say uses
    the networks of the first kind."""
    cell: Literal["gru", "lstm", "tanh"] = "gru"
    """Kind of the recurrent layer."""
    pooling: pooled.Pooling = "max"
    """Input of the readout: mean or max of all states, or the last state."""
    units: int = 64
    """Number of units of the recurrent layer."""
    embedding: int = 64
    """Size of the embedding of a word, or of a window of characters."""
    hashed: int = 4096
    """Number of hash buckets for parts of words (three letters each); if 0, parts have
    no embeddings."""
    width: int = 4
    """Number of characters in a window."""
    stride: int = 2
    """Number of characters from the start of a window to the start of the next."""
    longest: tuple[int, int] = (60, 160)
    """Largest number of words read from a text, for networks on words, and largest
    number of characters, for networks on characters. Longer texts are cut off."""
    rule: str = "bptt"
    """Gradient rule: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 20
    """Number of time steps that truncated gradient rules go back."""
    update: str = "adam"
    """Update rule: adam, sgd, forgetting, …"""
    learning_rate: tuple[float, float] = (5e-3, 1e-2)
    """Initial learning rate of networks on words, and of networks on characters; it
    falls to 0 along a cosine, except for update rules of the Rprop family."""
    dropout: tuple[float, float] = (0.3, 0.0)
    """Dropout rate of networks on words, and of networks on characters; it is applied
    to the embeddings and to the units that the readout sees."""
    rare: float = 0.5
    """Number that decides how often rare symbols are replaced by the unknown symbol in
    training: with probability rare / (rare + c) if they occur c times."""
    steps: tuple[int, int] = (500, 900)
    """Number of updates of networks on words, and of networks on characters; each is
    rounded up to a multiple of the number of updates between two tests."""
    batch: int = 64
    """Number of texts in a mini-batch; they have about the same length."""
    lengths: int = 2
    """Largest number of different lengths that texts are padded to; the step is
    compiled once for each length."""
    tune: bool = False
    """Test on the validation part after training without it, to choose settings."""
    looks: int = 10
    """Approximate number of tests during training; the last test is the result."""
    seeds: int = 2
    """Number of networks of each kind, which differ in their initial weights; they
    train under vmap."""
    say: str | None = None
    """A text to classify by the networks of each data set. With --out and --resume, the
    networks of a finished run are used without further training."""


def main(config: Config) -> report.Result:
    """Train and test networks; write and print their scores and published scores."""
    if config.say is not None and not data.as_seen(config.say).strip():
        raise DataError("--say: the text is empty; give at least one word.")
    jobs = partial(_jobs, load=cache(texts.load))
    return run_study(
        "categorise", config, jobs, _finish, free=("say",), check=texts.check
    )


def _jobs(config: Config, load: Callable) -> list[Job]:
    load, jobs = partial(load, config), []
    for name in texts.sets_of(config):
        jobs.append(Job(f"{name}-logistic", 1, partial(_baselines, name, load)))
        for kind in config.units_of:
            train = partial(_train, config, name, kind, load)
            jobs.append(Job(f"{name}-{kind}", _steps(config, kind)[0], train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    categorise_report.show(rows, config)
    categorise_report.save_pictures(folder, rows)
    ask.save(config, folder, rows)
    if config.say is not None:
        for name in texts.sets_of(config):
            texts.answer(config, folder, name, rows)


def _steps(config: Config, kind: Kind) -> tuple[int, int]:
    """Return the total number of updates, and the number of updates between tests."""
    steps = of_kind(config.steps, kind)
    every = max(RUN, -(-steps // config.looks) // RUN * RUN)
    return every * -(-steps // every), every


def _baselines(name: str, load, way: Way) -> Row:
    """Test logistic regression and the most frequent class; return a row of results."""
    classes, train, test = load(name)
    said = baselines.logistic(name, train.texts, train.labels, test.texts)
    row = {"set": name, **_scores(classes, test.labels, said[None])}
    row["majority"] = 100 * float(np.bincount(test.labels).max() / len(test.labels))
    way.advance(1)
    return row


def _train(config: Config, name: str, kind: Kind, load, way: Way) -> Row:
    """Train and test one kind of network from all seeds; return its row of results."""
    classes, train, test = load(name)
    units, longest = texts.units_of(config, kind, train)
    read = encode(units, train.texts, longest)
    tested = encode(units, test.texts, longest)

    def say(params):
        return network.say(params, config.cell, config.pooling, tested)

    def look(step, metrics):
        if step % every:
            return {}
        said = say(metrics["params"]).argmax(axis=-1)
        return {"accuracy": _percent(said == test.labels)}

    steps, every = _steps(config, kind)
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
    row: Row = {"set": name, "units_of": kind}
    row |= {"cell": config.cell, "pooling": config.pooling}
    row |= _scores(classes, test.labels, likely.argmax(axis=-1))
    together = likely.mean(axis=0).argmax(axis=-1)[None]
    row["together"] = _scores(classes, test.labels, together)
    row |= {"rule": config.rule, "update": config.update, "steps": result.steps}
    row["epochs"] = result.steps * config.batch / len(train.texts)
    row["params"] = sum(leaf[0].size for leaf in jax.tree.leaves(params))
    row["nonfinite_step"] = np.asarray(result.nonfinite_step).tolist()
    row["curve"] = way.curve()
    return row | time_taken(result)


def _scores(classes: tuple[str, ...], labels: np.ndarray, said: np.ndarray) -> Row:
    """Return the scores of the classes `said` [networks, N] that networks predicted."""
    scores: Row = {"accuracy": _percent(said == labels)}
    if "spam" in classes:
        spam = classes.index("spam")
        scores["f1"] = [report.f1(labels, each, spam) for each in said]
    counts = report.confusion(labels, said[0], len(classes))
    return scores | {"confusion": counts.tolist(), "classes": list(classes)}


def _percent(right: np.ndarray) -> list[float]:
    return (100 * right.mean(axis=1)).tolist()
