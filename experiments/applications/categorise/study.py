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

from experiments import choices, data, report
from experiments.applications.categorise import (
    ablation,
    ask,
    jobs,
    report as categorise_report,
    texts,
)
from experiments.applications.categorise.units import Kind, KINDS
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row
from experiments.harness.options import all_of, at_least, given, known, within
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import pooled
from experiments.networks.cells import DENSE


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How well do recurrent networks classify short texts, compared with n-grams?"""

    QUICK = {
        "sets": ("trec",), "units_of": ("words",), "units": 32, "embedding": 32,
        "hashed": 1024, "pairs": 4096, "steps": (150, 300), "lengths": 1, "looks": 2,
        "seeds": 1,
    }  # fmt: skip
    CHECKS = {
        "units embedding width stride lookback batch lengths looks": at_least(1),
        "longest steps": at_least(1),
        "hashed pairs rare scale": at_least(0),
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
    pairs: int = 16384
    """Number of hash buckets for pairs of neighbouring words; if 0, pairs have no
    embeddings."""
    shortcut: tuple[bool, bool] = (True, False)
    """Whether the output also depends linearly on the sum of all inputs, for networks
    on words, and for networks on characters."""
    scale: tuple[float, float] = (0.03, 0.3)
    """Standard deviation of the initial embeddings of networks on words, and of
    networks on characters."""
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
    steps: tuple[int, int] = (300, 900)
    """Number of updates of networks on words, and of networks on characters; each is
    rounded up to a multiple of the number of updates between two tests."""
    batch: int = 64
    """Number of texts in a mini-batch; they have about the same length."""
    lengths: int = 2
    """Largest number of different lengths that texts are padded to; the step is
    compiled once for each length."""
    ablation: bool = False
    """Ablation, in place of the usual training: networks on words are trained without
    the validation part, each with one of their features removed, and are tested on the
    validation part and on the test part."""
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

    def check(self):
        """Check that an ablation is not asked to classify a text."""
        if self.ablation and self.say is not None:
            raise ValueError(
                "ablation and say exclude each other: an ablation keeps no network."
            )


def main(config: Config) -> report.Result:
    """Train and test networks; write and print their scores and published scores."""
    if config.say is not None and not data.as_seen(config.say).strip():
        raise DataError("--say: the text is empty; give at least one word.")
    make_jobs = partial(_jobs, load=cache(texts.load))
    return run_study(
        "categorise", config, make_jobs, _finish, free=("say",), check=texts.check
    )


def _jobs(config: Config, load: Callable) -> list[Job]:
    if config.ablation:
        return ablation.make_jobs(config, load)
    load, found = partial(load, config), []
    for name in texts.sets_of(config):
        found.append(Job(f"{name}-logistic", 1, partial(jobs.fit_baseline, name, load)))
        for kind in config.units_of:
            train = partial(jobs.train_network, config, name, kind, load)
            found.append(Job(f"{name}-{kind}", jobs.steps_of(config, kind)[0], train))
    return found


def _finish(folder: Path, config: Config, rows: list[Row]) -> None:
    if config.ablation:
        ablation.show(folder, rows)
        return
    categorise_report.show(rows, config)
    categorise_report.save_pictures(folder, rows)
    ask.save(config, folder, rows)
    if config.say is not None:
        for name in texts.sets_of(config):
            texts.answer(config, folder, name, rows)
