"""Study `language`: a character model compared with n-grams, and text sampled from it.

    p(x_{t+1} | x_1 … x_t) = softmax(y_t)

y_t are the network's logits after the character x_t. The text is split into B parallel
streams of L characters, [L, B], which are read in windows. Between two windows the
state of the network is either kept or reset to zeros. A kept state can hold information
from earlier windows, although gradients are not propagated back to earlier windows.
Networks with kept states and networks with reset states read the same windows in the
same order.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from bpvariants import training
from experiments import choices, data, report
from experiments.applications.language import (
    ask,
    characters,
    report as language_report,
)
from experiments.baselines.ngrams import interpolated_ngrams
from experiments.harness.errors import DataError
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least, known, within
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import recurrent, windows

NGRAMS = "n-grams"  # name of the job that scores n-grams


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """Does a kept state improve a character model? Is the model better than n-grams?"""

    QUICK = {
        "units": 64, "embedding": 16, "steps": 150, "chunk": 50, "seeds": 1,
        "tested": 4096, "orders": 3,
    }  # fmt: skip
    CHECKS = {
        "units embedding lookback streams window steps": at_least(1),
        "chunk tested orders": at_least(1),
        "generate": at_least(0),
        "states": known(("kept", "reset")),
        "update": known(choices.UPDATES),
        "learning_rate temperature": above(0),
        "dropout": within(0, 1, ends="[)"),
    }

    FILES = ("text",)

    text: Path | None = None
    """A text file in UTF-8 to learn; by default Tiny Shakespeare, downloaded once."""
    states: tuple[Literal["kept", "reset"], ...] = ("kept", "reset")
    """What happens to the state between windows: it is kept, or reset to zeros. For
    each choice, separate networks are trained."""
    cell: Literal["gru", "lstm", "tanh"] = "gru"
    """Kind of the recurrent layer."""
    units: int = 256
    """Number of units of the recurrent layer."""
    embedding: int = 48
    """Size of the embedding of a character."""
    rule: str = "bptt"
    """Gradient rule: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 32
    """Number of steps that truncated gradient rules go back in a window."""
    update: str = "adam"
    """Update rule: adam, sgd, forgetting, rprop, …"""
    learning_rate: float = 4e-3
    """Initial learning rate; it falls to 0 along a cosine, except for update rules of
    the Rprop family."""
    dropout: float = 0.0
    """Dropout rate of units before the readout; each time step has a new mask."""
    streams: int = 32
    """Number of parts of the text, which are read in parallel."""
    window: int = 64
    """Number of characters that an update reads from each stream; gradients are
    propagated back through these characters only."""
    steps: int = 2000
    """Number of updates."""
    chunk: int = 100
    """Number of updates between two evaluations on the test text."""
    tested: int = 16_384
    """Number of test characters scored during training; after training, all test
    characters are scored."""
    seeds: int = 2
    """Number of networks of each kind, with different weights and dropout masks."""
    orders: int = 6
    """Largest n of the n-gram models."""
    generate: int = 400
    """Number of characters to sample after training. They are sampled from the first
    seed's network for the first of `states`."""
    temperature: float = 0.8
    """Temperature of sampling; at 1, characters are drawn with the probabilities that
    the network predicts."""
    prompt: str = "\n"
    """Beginning of the sampled text; the network reads it first."""


def main(config: Config) -> report.Result:
    """Train and test networks, and sample text; print and write the results."""
    free = ("generate", "temperature", "prompt")
    load = cache(read_text)  # so that the file is read only once
    jobs, finish = partial(_jobs, load=load), partial(_finish, load=load)
    return run_study("language", config, jobs, finish, free=free, check=load)


def _jobs(config: Config, load) -> list[Job]:
    text = load(config)
    jobs = [Job(NGRAMS, 1, partial(_ngrams, config, text))]
    for state in config.states:
        jobs.append(Job(state, config.steps, partial(_train, config, text, state)))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row], load) -> None:
    text, models = load(config), _models(rows)
    language_report.show(models, text.source, config, config.text is None)
    picture = language_report.draw(models, text.source, config.tested)
    report.save_picture(folder, "language", picture)
    trained = [row for row in rows if "state" in row]
    if not trained:
        return
    job = trained[0]["job"]
    ask.save(config, folder, text, _read(config, folder, text, job))
    if config.generate:
        _write(config, folder, text, job)


def read_text(config: Config) -> data.Text:
    """Load the text; check its length, and that it has the prompt's characters.

    Raises:
      DataError: if the text cannot be read, is too short for the streams and windows,
        or does not contain all characters of the prompt.
    """
    try:
        text = data.text_file(config.text) if config.text else data.tinyshakespeare()
    except ValueError as error:
        raise DataError(f"--text: {error}") from None
    needed, at_least = config.streams * (2 * config.window + 1), characters.SCORED
    if len(text.train) < needed or len(text.test) < at_least:
        raise DataError(
            f"--text: {text.source} is too short: it has {len(text.train)} characters "
            f"for training, and streams={config.streams} with window={config.window} "
            f"need {needed}; it has {len(text.test)} for test, which needs {at_least}. "
            "Take fewer streams and shorter windows, or a longer text."
        )
    strange = sorted(set(config.prompt) - set(text.alphabet))
    if config.generate and (strange or not config.prompt):
        raise DataError(
            "--prompt must be characters of the text, at least one; those that are not "
            f"in the text: {''.join(strange)!r}."
        )
    return text


def _ngrams(config: Config, text: data.Text, way: Way) -> Row:
    """Score n-gram models for n = 1, 2, …; return their row of results."""
    symbols = len(text.alphabet)
    nats = interpolated_ngrams(text.train, text.test, symbols, config.orders)
    way.advance(1)
    return {"nats": list(nats)}


def _models(rows: list[Row]) -> list[Row]:
    """Return rows of results, for each kind of network, and for each n of n-grams."""
    models = []
    for row in rows:
        if row["job"] == NGRAMS:
            grams = enumerate(row["nats"], 1)
            models += [{"model": f"{n}-gram", "nats": nats} for n, nats in grams]
        else:
            models.append(row)
    return models


def _train(config: Config, text: data.Text, state: str, way: Way) -> Row:
    """Train networks from all seeds; return their row of results.

    If `state` is "kept", the networks keep their state between windows. If `state` is
    "reset", the state is reset to zeros before each window.
    """
    network = _make_network(config, text)
    xs, targets = text.train[:-1], text.train[1:]
    given = (
        xs,
        targets,
        config.streams,
        config.window,
        state == "kept",
        config.first_seed,
    )
    some = characters.score_window(text, config.tested)
    whole = characters.score_window(text)
    params, trained = windows.train(
        config,
        way,
        network,
        windows.Windows(*given),
        windows.Scores(network, some),
        best=False,
    )
    row = {"model": f"{config.cell} {config.units}, state {state}", "state": state}
    row |= trained
    row |= {"epochs": config.steps * config.streams * config.window / len(text.train)}
    row |= {"nats": windows.Scores(network, whole)(params)}
    often = characters.reset_often(whole, config.window)
    return row | {"nats_reset": windows.Scores(network, often)(params)}


def _make_network(config: Config, text: data.Text) -> recurrent.Network:
    sizes = config.units, config.embedding, len(text.alphabet)
    return characters.make_network(config.cell, *sizes)


def _read(config: Config, folder: Path, text: data.Text, job: str):
    """Return the trained parameters of the first seed's network."""
    like = windows.init(config, _make_network(config, text))
    _, params = training.read_checkpoint(Way(job, folder).checkpoints, like)
    return jax.tree.map(lambda leaf: leaf[0], params)


def _write(config: Config, folder: Path, text: data.Text, job: str) -> None:
    """Sample a text that begins with the prompt; print it, and write it to a file."""
    network = _make_network(config, text)
    written = characters.generate(
        network,
        _read(config, folder, text, job),
        np.searchsorted(list(text.alphabet), list(config.prompt)),
        config.generate,
        jax.random.key(config.first_seed),
        config.temperature,
    )
    sample = config.prompt + "".join(text.alphabet[i] for i in written)
    report.write_atomically(folder / "sample.txt", sample)
    language_report.show_sample(sample, config.temperature)
