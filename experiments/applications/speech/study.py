"""Study `speech`: spoken digits, by speakers known and unknown.

A recurrent network reads a recording frame by frame, each as long as it is, and says
after the last which digit it was. The official split has all six people in both parts;
so each of them is also left out, and heard by a network that never heard that one.
"""

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.speech import (
    baseline,
    network,
    report as speech_report,
    wav,
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
from experiments.networks.cells import DENSE

RUN = 10  # batches of one shape after another
LEFT_OUT, BASELINE = "speakers", "logistic"


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks to say which digit was spoken, and test them on two splits."""

    cells: tuple[str, ...] = ("gru", "lstm")
    """Of tanh, gru, lstm. The first is tested on unknown speakers too."""
    pooling: tuple[network.Pooling, ...] = ("mean", "last")
    """What is read at the end, the mean of all states or the last one; as of cells."""
    units: int = 64
    """Of each cell."""
    rule: str = "bptt"
    """Where gradients come from: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 20
    """How many frames errors travel back, by rules that truncate."""
    update: str = "adam"
    """What is done with gradients: adam, sgd, forgetting, …"""
    learning_rate: float | None = 5e-3
    """At first; it falls to 0 along a cosine, but for the Rprop family."""
    steps: int = 1600
    """Updates, a multiple of 10 at least."""
    batch: int = 64
    """Recordings of a batch, of about the same length."""
    lengths: int = 4
    """How many lengths batches are padded to, at most; each is a program to compile."""
    hidden: int = 6
    """Up to so many neighbouring bands, of 24, are hidden in training."""
    speakers: tuple[str, ...] = data.SPEAKERS
    """Who is left out, one at a time."""
    tune: bool = False
    """Test on takes 5 to 9, the validation part, and learn from 10 to 49: to choose
    settings without a look at the test part."""
    looks: int = 10
    """How often to test on the way, about; the last look is the result."""
    seeds: int = 2
    """Networks of each kind, of different weights, under vmap."""
    first_seed: int = 0
    """The seed that all random numbers follow from."""
    wav: Path | None = None
    """A recording of one digit: what is it? With --out and --resume the networks of a
    run that is finished say so at once."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again."""
    out: Path | None = None
    """Folder to write to; by default runs/speech-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("units", "lookback", "steps", "batch", "lengths", "looks", "seeds")
        options.check_at_least_one(self, *sizes)
        options.check_known("cells", self.cells, DENSE)
        options.check_known("pooling", self.pooling, ("mean", "last"))
        options.check_known("speakers", self.speakers, data.SPEAKERS)
        options.check_known("update", self.update, choices.UPDATES)
        if not self.cells or not self.pooling:
            raise ValueError("cells and pooling must each name at least one.")
        if not 0 <= self.hidden < network.BANDS:
            raise ValueError(f"hidden must be in 0..23, got {self.hidden}.")
        check_resume(self)


def main(config: Config) -> report.Result:
    """Train, test on both splits, show it beside published figures, and write it."""
    sound = None if config.wav is None else wav.read_digit(config.wav)
    small = {"cells": ("gru",), "pooling": ("mean",), "speakers": (), "steps": 250}
    small |= {"units": 48, "lengths": 2, "seeds": 1, "looks": 2}
    config = options.at_quick_size(config, **small)
    config, folder = open_run("speech", config, ("wav",), lambda _: data.fsdd())
    start, load = time.perf_counter(), cache(network.load)
    jobs = [Job(BASELINE, 1, partial(_baseline, config, load))]
    for cell in config.cells:
        for pooling in config.pooling:
            train = partial(_official, config, cell, pooling, load)
            jobs.append(Job(f"{cell}-{pooling}", _steps(config)[0], train))
    if config.speakers:
        train = partial(_left_out, config, load)
        jobs.append(Job(LEFT_OUT, _steps(config)[0], train))
    rows, interrupted = run_jobs(folder, jobs)
    speech_report.show(rows, config)
    speech_report.save_pictures(folder, rows)
    if sound is not None:
        wav.answer(config, folder, rows, sound)
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _parts(config: Config, found: data.FSDD) -> tuple[np.ndarray, np.ndarray]:
    """Return what to learn from, and what to test on."""
    if config.tune:
        return found.train, found.validation
    return np.union1d(found.train, found.validation), found.test


def _steps(config: Config) -> tuple[int, int]:
    """Return how many updates there are, and after how many to look."""
    every = max(RUN, -(-config.steps // config.looks) // RUN * RUN)
    return every * -(-config.steps // every), every


def _baseline(config: Config, load, way: Way) -> dict[str, Any]:
    """Test logistic regression on both splits."""
    found, loud, _ = load()
    score = partial(baseline.score, loud, found.digits)
    row: dict[str, Any] = {"accuracy": [score(*_parts(config, found))]}
    row["speakers"] = {
        speaker: [score(*data.without_speaker(found, speaker))]
        for speaker in config.speakers
    }
    way.advance(1)
    return row


def _official(
    config: Config, cell: str, pooling: network.Pooling, load, way: Way
) -> dict[str, Any]:
    """Train one kind of network from all seeds, and test it on the official split."""
    found, _, recordings = load()
    train, test = _parts(config, found)

    def tested(params):
        said = _said(params, cell, pooling, recordings, test)
        return {"accuracy": _percent(said == recordings.digits[test])}, said

    nobody = np.full(config.seeds, -1)
    row, said = _fit(config, cell, pooling, recordings, train, nobody, tested, way)
    counts = report.confusion(recordings.digits[test], said[0], network.DIGITS)
    return row | {"confusion": counts.tolist()}


def _left_out(config: Config, load, way: Way) -> dict[str, Any]:
    """Train a network for each speaker, who does not count, and test it on that one.

    All of them learn under one vmap, from the same batches.
    """
    found, _, recordings = load()
    cell, pooling = config.cells[0], config.pooling[0]
    numbers = [data.SPEAKERS.index(speaker) for speaker in config.speakers]
    runs = {
        number: slice(i * config.seeds, (i + 1) * config.seeds)
        for i, number in enumerate(numbers)
    }

    def tested(params):
        scores, answers = {}, []
        for number, mine in runs.items():
            rows = np.flatnonzero(recordings.speakers == number)
            own = jax.tree.map(lambda leaf, mine=mine: leaf[mine], params)
            said = _said(own, cell, pooling, recordings, rows)
            right = _percent(said == recordings.digits[rows])
            scores[data.SPEAKERS[number]] = right
            answers.append((recordings.digits[rows], said[0]))
        return {"speakers": scores}, answers

    everything = np.arange(len(found.digits))
    left_out = np.repeat(numbers, config.seeds)
    row, answers = _fit(
        config, cell, pooling, recordings, everything, left_out, tested, way
    )
    digits, said = map(np.concatenate, zip(*answers, strict=True))
    counts = report.confusion(digits, said, network.DIGITS)
    return row | {"confusion": counts.tolist()}


def _fit(
    config, cell, pooling, recordings, train, left_out, tested, way: Way
) -> tuple[dict[str, Any], Any]:
    """Train a network for each entry of left_out; return the row, and what it said."""
    steps, every = _steps(config)
    draws, seed = choices.draws(config.rule), jax.random.key(config.first_seed)
    params = network.init_runs(seed, cell, config.units, len(left_out))
    drawn = partial(
        network.batches, recordings, train,
        batch=config.batch, run=RUN, lengths=config.lengths, hidden=config.hidden,
        seed=config.first_seed,
    )  # fmt: skip
    key = jax.random.fold_in(seed, 2)
    look = lambda step, metrics: {} if step % every else tested(metrics["params"])[0]
    result = way.fit(
        network.make_rule(config.rule, cell, pooling, config.lookback),
        choices.make_update(config.update, config.learning_rate, steps=steps),
        params,
        drawn,
        steps=steps,
        chunk=RUN,
        carry=jnp.asarray(left_out),
        draws=draws,
        key=key if draws else None,
        runs=len(left_out),
        look=look,
        every=every,
    )
    scores, said = tested(result.params)
    row: dict[str, Any] = {"cell": cell, "pooling": pooling, **scores}
    row |= {"rule": config.rule, "update": config.update, "steps": result.steps}
    row |= {"epochs": result.steps * config.batch / len(train)}
    row["params"] = sum(leaf[0].size for leaf in jax.tree.leaves(params))
    row["nonfinite_step"] = np.asarray(result.nonfinite_step).tolist()
    row["curve"] = way.curve()
    return row | time_taken(result), said


def _said(params, cell, pooling, recordings, rows) -> np.ndarray:
    """Return the digit that each network takes each recording for, [runs, N]."""
    xs = [recordings.xs[row] for row in rows]
    return network.say(params, cell, pooling, xs).argmax(axis=-1)


def _percent(right: np.ndarray) -> list[float]:
    return (100 * right.mean(axis=1)).tolist()
