"""Study `translate`: French to English or the reverse, by an encoder and a decoder.

The encoder and the decoder consist of GRUs. Both are trained together by `jax.grad`.
The decoder attends to the states of the encoder. Gradients are propagated back through
the decoder, through the attention at each word, and through the encoder. In training,
the decoder reads the reference's words (teacher forcing), or some of its own
predictions. In the test, the decoder translates greedily, and reads only its own
predictions.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import choices, report
from experiments.applications.translate import (
    ask,
    losses,
    network,
    report as translate_report,
    runs,
    text,
)
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import at_least, known, within
from experiments.harness.study import run_study, TrainingStudy

RUN = 10  # number of consecutive batches that have the same shape
BASELINES = "baselines"


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How well do recurrent networks translate short sentences?"""

    QUICK = {
        "forcing": (1.0,), "units": 64, "embedding": 64, "steps": 300, "batch": 32,
        "learning_rate": 1e-2, "dropout": 0.1, "lengths": 1, "seeds": 1, "looks": 2,
    }  # fmt: skip
    CHECKS = {
        "units embedding lookback steps batch lengths looks": at_least(1),
        "to": known(("english", "french")),
        "attention": known(("additive", "dot")),
        "update": known(choices.UPDATES),
        "dropout forget": within(0, 1, ends="[)"),
    }

    to: Literal["english", "french"] = "english"
    """The language to translate to; the other language is the source."""
    forcing: tuple[float, ...] = (1.0, 0.5)
    """Probability that the decoder reads the reference's word in training, instead of
    its own prediction; 1 is teacher forcing. Each value trains a separate network."""
    attention: network.Attention = "additive"
    """Score of attention: additive (Bahdanau) or dot (Luong)."""
    units: int = 128
    """Number of units of the decoder, and of each direction of the encoder."""
    embedding: int = 128
    """Size of the embedding of a word."""
    dropout: float = 0.3
    """Dropout rate of embeddings, and of the decoder's output before the logits."""
    forget: float = 0.1
    """Fraction of source words that are replaced by the unknown word in training."""
    rule: str = "bptt"
    """Gradient rule: bptt, bptt_step (BPTT that stores only states, and recomputes all
    other values), truncated_bptt (gradients stop every `lookback` words)."""
    lookback: int = 4
    """Number of words from one stop of gradients to the next, for truncated_bptt."""
    update: str = "adam"
    """Update rule: adam, sgd, forgetting, …"""
    learning_rate: float | None = 4e-3
    """Initial learning rate; it falls to 0 along a cosine, except for update rules of
    the Rprop family."""
    steps: int = 1200
    """Number of updates; it is rounded up to a multiple of the number of updates
    between two tests."""
    batch: int = 64
    """Number of sentences in a mini-batch; they have about the same length."""
    lengths: int = 2
    """Largest number of different lengths that sentences are padded to; the step is
    compiled once for each length."""
    looks: int = 5
    """Approximate number of times to translate the validation part during training."""
    seeds: int = 2
    """Number of networks of each kind, which differ in their initial weights; they
    train under vmap."""
    tune: bool = False
    """Test on the validation part instead of the test part, to choose settings."""
    translate: str | None = None
    """A sentence to translate. With --out and --resume, the networks of a finished run
    are used without further training."""

    def check(self) -> None:
        """Check the gradient rule, and the probabilities of teacher forcing."""
        network.check_rule(self.rule)
        wrong = [each for each in self.forcing if not 0 <= each <= 1]
        if wrong or not self.forcing or len(set(self.forcing)) < len(self.forcing):
            raise ValueError(
                "forcing must be one or more different probabilities in [0, 1], got "
                f"{', '.join(map(str, self.forcing)) or 'none'}."
            )

    @property
    def how(self) -> network.How:
        """Settings of the network and of its gradient rule, which are not learned."""
        return network.How(self.attention, self.rule, self.lookback)


def main(config: Config) -> report.Result:
    """Train networks, and score their translations; write and print the scores."""
    asked, load = None, cache(text.load)
    if config.translate is not None:
        asked = runs.read_sentence(config.translate)
    jobs, finish = partial(_jobs, load=load), partial(_finish, load=load, asked=asked)
    check = lambda run: load(run.to)
    return run_study(
        "translate", config, jobs, finish, free=("translate",), check=check
    )


def _jobs(config: Config, load) -> list[Job]:
    corpus = load(config.to)
    jobs = [Job(BASELINES, 1, partial(_baselines, config, corpus))]
    for forcing in config.forcing:
        train = partial(_train, config, forcing, corpus)
        jobs.append(Job(name_of(forcing), _steps(config)[0], train))
    return jobs


def _finish(
    folder: Path, config: Config, rows: list[Row], load, asked: str | None
) -> None:
    translate_report.show(rows, config)
    translate_report.save_pictures(folder, rows)
    corpus = load(config.to)
    job, like = name_of(config.forcing[0]), _init(config, corpus)
    ask.save(config, folder, rows, corpus, job, like)
    if asked is not None:
        _answer(config, folder, rows, corpus, asked)


def name_of(forcing: float) -> str:
    """Return the name of the job that trains with this value of `forcing`."""
    return f"forcing-{forcing:g}"


def _steps(config: Config) -> tuple[int, int]:
    """Return the total number of updates, and the number of updates between tests."""
    every = max(RUN, -(-config.steps // config.looks) // RUN * RUN)
    return every * -(-config.steps // every), every


def _tested(config: Config, corpus: text.Corpus) -> text.Part:
    return corpus.validation if config.tune else corpus.test


def _baselines(config: Config, corpus: text.Corpus, way: Way) -> Row:
    """Score the baselines; return their row of results."""
    sources, right = zip(*_tested(config, corpus), strict=True)
    row = {}
    for name in ("most_common", "nearest"):
        said = getattr(text, name)(corpus.train, sources)
        row[name] = text.score(said, right)
    way.advance(1)
    return row


def _sizes(config: Config, corpus: text.Corpus) -> network.Sizes:
    words = len(corpus.source_words), len(corpus.target_words)
    return network.Sizes(*words, config.embedding, config.units, config.attention)


def _init(config: Config, corpus: text.Corpus):
    """Draw the parameters of the networks of all seeds."""
    seed = jax.random.key(config.first_seed)
    return runs.init(seed, _sizes(config, corpus), config.seeds)


def _train(config: Config, forcing: float, corpus: text.Corpus, way: Way) -> Row:
    """Train the networks of all seeds with one value of `forcing`; return their row."""
    steps, every = _steps(config)
    seed = jax.random.key(config.first_seed)
    params = _init(config, corpus)
    scored = partial(runs.score, corpus=corpus, how=config.how)

    def look(step, metrics):
        if step % every:
            return {}
        found = scored(metrics["params"], part=corpus.validation)
        return {"validation": found.scores}

    drawn = partial(
        text.batches,
        text.part_to_numbers(corpus.train, corpus),
        batch=config.batch, run=RUN, lengths=config.lengths, forget=config.forget,
        seed=config.first_seed,
    )  # fmt: skip
    result = way.fit(
        losses.make_rule(config.how, forcing=forcing, dropout=config.dropout),
        choices.make_update(config.update, config.learning_rate, steps=steps),
        params,
        drawn,
        steps=steps,
        chunk=RUN,
        key=jax.random.fold_in(seed, 2),
        runs=config.seeds,
        look=look,
        every=every,
    )
    test = _tested(config, corpus)
    found = scored(result.params, part=test)
    row: Row = {"forcing": forcing, **found.scores}
    row |= {"unknown_share": found.unknown_share}
    row |= {"rule": config.rule, "update": config.update, "steps": result.steps}
    row["epochs"] = result.steps * config.batch / len(corpus.train)
    row["params"] = sum(leaf[0].size for leaf in jax.tree.leaves(params))
    row["nonfinite_step"] = np.asarray(result.nonfinite_step).tolist()
    row["examples"] = runs.examples(
        result.params, test, found.said[0], corpus, config.how
    )
    row["curve"] = way.curve()
    return row | time_taken(result)


def _answer(config: Config, folder: Path, rows, corpus, asked: str) -> None:
    """Translate the user's sentence with the run's first network, and print it."""
    name = name_of(config.forcing[0])
    if name not in [row["job"] for row in rows]:
        raise DataError(
            f"--translate: {name} is not trained yet; continue with --resume."
        )
    like = _init(config, corpus)
    found = runs.answer(folder / "checkpoints" / name, like, asked, corpus, config.how)
    translate_report.show_answer(asked, *found)
