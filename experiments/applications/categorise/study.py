"""Study `categorise`: spam among SMS messages, and classes of questions.

A recurrent network reads a text word by word, or by windows of characters, and says
after the last what class it is of. Logistic regression on n-grams of the same texts is
beside it, and the most frequent class.
"""

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.categorise import (
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
from experiments.harness import options
from experiments.harness.jobs import (
    check_resume,
    Job,
    open_run,
    run_jobs,
    time_taken,
    Way,
)
from experiments.networks import pooled
from experiments.networks.cells import DENSE

RUN = 10  # batches of one shape after another


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks to say what class a text is of, beside logistic regression."""

    sets: tuple[Literal["sms_spam", "trec"], ...] = ("sms_spam", "trec")
    """What to learn: which messages are spam, what questions ask for."""
    units_of: tuple[Kind, ...] = ("words", "characters")
    """What texts are read as; with --say the first of them says what a text is."""
    cell: Literal["gru", "lstm", "tanh"] = "gru"
    """Of the recurrent layer."""
    pooling: pooled.Pooling = "max"
    """What is read at the end: mean or maximum of all states, or the last one."""
    units: int = 64
    """Of the recurrent layer."""
    embedding: int = 64
    """Numbers that a word, or a window of characters, becomes."""
    hashed: int = 4096
    """Places for parts of words, of three letters; some share one. 0 for no parts."""
    width: int = 4
    """Characters that are read together,"""
    stride: int = 2
    """and how many further on the next ones begin."""
    longest: tuple[int, int] = (60, 160)
    """Words and characters that are read of a text; what follows is not."""
    rule: str = "bptt"
    """Where gradients come from: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 20
    """How many steps errors travel back, by rules that truncate."""
    update: str = "adam"
    """What is done with gradients: adam, sgd, forgetting, …"""
    learning_rate: tuple[float, float] = (5e-3, 1e-2)
    """At first, for words and for characters; it falls to 0 along a cosine, but for the
    Rprop family."""
    dropout: tuple[float, float] = (0.3, 0.0)
    """Share of what words, or characters, became, and of units, that is not seen."""
    rare: float = 0.5
    """A symbol that there are c of is unknown in rare / (rare + c) of batches."""
    steps: tuple[int, int] = (500, 900)
    """Updates for words and for characters, multiples of 10 at least."""
    batch: int = 64
    """Texts of a batch, of about the same length."""
    lengths: int = 2
    """How many lengths batches are padded to, at most; each is a program to compile."""
    tune: bool = False
    """Learn from the training part without the validation part, and test on that: to
    choose settings without a look at the test part."""
    looks: int = 10
    """How often to test on the way, about; the last look is the result."""
    seeds: int = 2
    """Networks of each kind, of different weights, under vmap."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    say: str | None = None
    """A text: what class is it of, in each of sets? With --out and --resume the
    networks of a run that is finished say so at once."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again."""
    out: Path | None = None
    """Folder to write to; by default runs/categorise-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("units", "embedding", "width", "stride", "lookback", "batch")
        options.check_at_least_one(self, *sizes, "lengths", "looks", "seeds")
        options.check_known("sets", self.sets, texts.SETS)
        options.check_known("units_of", self.units_of, KINDS)
        options.check_known("cell", self.cell, DENSE)
        options.check_known("pooling", self.pooling, pooled.POOLINGS)
        options.check_known("update", self.update, choices.UPDATES)
        if not self.sets or not self.units_of:
            raise ValueError("sets and units_of must each name at least one.")
        for name in ("longest", "steps"):
            if min(getattr(self, name)) < 1:
                raise ValueError(
                    f"{name} must be at least 1 each, got {getattr(self, name)}."
                )
        if not 0 <= min(self.dropout) <= max(self.dropout) < 1:
            raise ValueError(f"dropout must be in [0, 1) each, got {self.dropout}.")
        for name in ("hashed", "rare"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} must not be negative, got {getattr(self, name)}."
                )
        check_resume(self)


def main(config: Config) -> report.Result:
    """Train, test, show it beside published figures, and write it."""
    if config.say is not None and not config.say.strip():
        raise SystemExit("--say: the text is empty, it must have a word at least.")
    small: dict[str, Any] = {"sets": ("trec",), "units_of": ("words",)}
    small |= {"units": 32, "embedding": 32, "hashed": 1024, "steps": (150, 300)}
    small |= {"lengths": 1, "looks": 2, "seeds": 1}
    config = options.at_quick_size(config, **small)
    config, folder = open_run("categorise", config, ("say",), texts.check)
    start, load = (
        time.perf_counter(),
        cache(partial(texts.load, config.tune)),
    )
    jobs = []
    for name in config.sets:
        jobs.append(Job(f"{name}-logistic", 1, partial(_baselines, name, load)))
        for kind in config.units_of:
            train = partial(_train, config, name, kind, load)
            jobs.append(Job(f"{name}-{kind}", _steps(config, kind)[0], train))
    rows, interrupted = run_jobs(folder, jobs)
    categorise_report.show(rows, config)
    categorise_report.save_pictures(folder, rows)
    if config.say is not None:
        for name in config.sets:
            texts.answer(config, folder, name, rows)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _steps(config: Config, kind: Kind) -> tuple[int, int]:
    """Return how many updates there are, and after how many to look."""
    steps = of_kind(config.steps, kind)
    every = max(RUN, -(-steps // config.looks) // RUN * RUN)
    return every * -(-steps // every), every


def _baselines(name: str, load, way: Way) -> dict[str, Any]:
    """Test logistic regression, and the class that most texts are of."""
    classes, train, test = load(name)
    said = baselines.logistic(name, train.texts, train.labels, test.texts)
    row = {"set": name, **_scores(classes, test.labels, said[None])}
    row["majority"] = 100 * float(np.bincount(test.labels).max() / len(test.labels))
    way.advance(1)
    return row


def _train(config: Config, name: str, kind: Kind, load, way: Way) -> dict[str, Any]:
    """Train one kind of network from all seeds, and test it."""
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
        draws=draws,
        key=jax.random.fold_in(key, 2) if draws else None,
        runs=config.seeds,
        look=look,
        every=every,
    )  # fmt: skip
    likely = say(result.params)
    row: dict[str, Any] = {"set": name, "units_of": kind}
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


def _scores(
    classes: tuple[str, ...], labels: np.ndarray, said: np.ndarray
) -> dict[str, Any]:
    """Return the scores of what each network said, [runs, N]."""
    scores: dict[str, Any] = {"accuracy": _percent(said == labels)}
    if "spam" in classes:
        spam = classes.index("spam")
        scores["f1"] = [report.f1(labels, each, spam) for each in said]
    counts = report.confusion(labels, said[0], len(classes))
    return scores | {"confusion": counts.tolist(), "classes": list(classes)}


def _percent(right: np.ndarray) -> list[float]:
    return (100 * right.mean(axis=1)).tolist()
