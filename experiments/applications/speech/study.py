"""Study `speech`: spoken digits of known and unknown speakers.

A recurrent network reads a recording frame by frame, and predicts the digit after the
last frame. Recordings differ in length. In the official split, all six speakers are in
the training part and in the test part. For tests on unknown speakers, each speaker is
left out once: a network trains on the other speakers, and is tested on the speaker left
out.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.speech import (
    ask,
    baseline,
    network,
    report as speech_report,
    wav,
)
from experiments.harness.jobs import Job, Row, time_taken, Way
from experiments.harness.options import all_of, at_least, given, known
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks.cells import DENSE

RUN = 10  # number of consecutive batches that have the same shape
LEFT_OUT, BASELINE = "speakers", "logistic"


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How well do networks recognise digits spoken by known and unknown speakers?"""

    QUICK = {
        "cells": ("gru",), "pooling": ("mean",), "speakers": (), "steps": 250,
        "units": 48, "lengths": 2, "seeds": 1, "looks": 2,
    }  # fmt: skip
    CHECKS = {
        "units lookback steps batch lengths looks": at_least(1),
        "cells": all_of(given, known(DENSE)),
        "pooling": all_of(given, known(("mean", "last"))),
        "speakers": known(data.SPEAKERS),
        "update": known(choices.UPDATES),
    }

    cells: tuple[str, ...] = ("gru", "lstm")
    """Cells: tanh, gru, lstm. The first cell is also tested on unknown speakers."""
    pooling: tuple[network.Pooling, ...] = ("mean", "last")
    """Inputs of the readout: mean (of all states) or last (state). Networks with the
    first of the given inputs are also tested on unknown speakers."""
    units: int = 64
    """Number of units of each cell."""
    rule: str = "bptt"
    """Gradient rule: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 20
    """Number of frames that truncated gradient rules go back."""
    update: str = "adam"
    """Update rule: adam, sgd, forgetting, …"""
    learning_rate: float | None = 5e-3
    """Initial learning rate; it falls to 0 along a cosine, except for update rules of
    the Rprop family."""
    steps: int = 1600
    """Number of updates; it is rounded up to a multiple of the number of updates
    between two tests."""
    batch: int = 64
    """Number of recordings in a mini-batch; they have about the same length."""
    lengths: int = 4
    """Largest number of different lengths that recordings are padded to; the step is
    compiled once for each length."""
    hidden: int = 6
    """Largest number of neighbouring frequency bands, of 24, to set to zero in
    training."""
    speakers: tuple[str, ...] = data.SPEAKERS
    """Speakers to leave out of training, one at a time, and to test on."""
    tune: bool = False
    """Test on the validation part (takes 5 to 9 of each speaker and digit) after
    training on takes 10 to 49, to choose settings."""
    looks: int = 10
    """Approximate number of tests during training; the last test is the result."""
    seeds: int = 2
    """Number of networks of each kind, which differ in their initial weights; they
    train under vmap."""
    wav: Path | None = None
    """A WAV file with one spoken digit to recognise. With --out and --resume, the
    networks of a finished run are used without further training."""

    def check(self) -> None:
        """Check that training does not set all frequency bands to zero."""
        if not 0 <= self.hidden < network.BANDS:
            raise ValueError(f"hidden must be in 0..23, got {self.hidden}.")


def main(config: Config) -> report.Result:
    """Train and test networks; write and print accuracies, with published results."""
    sound = None if config.wav is None else wav.read_digit(config.wav)
    load = cache(network.load)
    jobs = partial(_jobs, load=load)
    finish, check = partial(_finish, load=load, sound=sound), lambda _: data.fsdd()
    return run_study("speech", config, jobs, finish, free=("wav",), check=check)


def _jobs(config: Config, load) -> list[Job]:
    jobs = [Job(BASELINE, 1, partial(_baseline, config, load))]
    for cell in config.cells:
        for pooling in config.pooling:
            train = partial(_official, config, cell, pooling, load)
            jobs.append(Job(f"{cell}-{pooling}", _steps(config)[0], train))
    if config.speakers:
        train = partial(_left_out, config, load)
        jobs.append(Job(LEFT_OUT, _steps(config)[0], train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row], load, sound) -> None:
    speech_report.show(rows, config)
    speech_report.save_pictures(folder, rows)
    train, _ = _parts(config, load()[0])
    ask.save(config, folder, rows, load(), train)
    if sound is not None:
        wav.answer(config, folder, rows, sound)


def _parts(config: Config, found: data.FSDD) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training recordings, and of the test recordings."""
    if config.tune:
        return found.train, found.validation
    return np.union1d(found.train, found.validation), found.test


def _steps(config: Config) -> tuple[int, int]:
    """Return the total number of updates, and the number of updates between tests."""
    every = max(RUN, -(-config.steps // config.looks) // RUN * RUN)
    return every * -(-config.steps // every), every


def _baseline(config: Config, load, way: Way) -> Row:
    """Test logistic regression on known and unknown speakers; return its results."""
    found, loud, _ = load()
    score = partial(baseline.score, loud, found.digits)
    row: Row = {"accuracy": [score(*_parts(config, found))]}
    row["speakers"] = {
        speaker: [score(*data.without_speaker(found, speaker))]
        for speaker in config.speakers
    }
    way.advance(1)
    return row


def _official(
    config: Config, cell: str, pooling: network.Pooling, load, way: Way
) -> Row:
    """Train one kind of network from all seeds on the official split, and test it."""
    found, _, recordings = load()
    train, test = _parts(config, found)

    def tested(params):
        said = _said(params, cell, pooling, recordings, test)
        return {"accuracy": _percent(said == recordings.digits[test])}, said

    nobody = np.full(config.seeds, -1)
    row, said = _fit(config, cell, pooling, recordings, train, nobody, tested, way)
    counts = report.confusion(recordings.digits[test], said[0], network.DIGITS)
    return row | {"confusion": counts.tolist()}


def _left_out(config: Config, load, way: Way) -> Row:
    """For each speaker, train networks on the other speakers, and test on the speaker.

    All networks train under one vmap, on the same batches. Recordings of the speaker
    who is left out have weight 0 in the loss.
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
) -> tuple[Row, Any]:
    """Train a network for each speaker in left_out; return results and predictions."""
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
        key=key if draws else None,
        runs=len(left_out),
        look=look,
        every=every,
    )
    scores, said = tested(result.params)
    row: Row = {"cell": cell, "pooling": pooling, **scores}
    row |= {"rule": config.rule, "update": config.update, "steps": result.steps}
    row |= {"epochs": result.steps * config.batch / len(train)}
    row["params"] = sum(leaf[0].size for leaf in jax.tree.leaves(params))
    row["nonfinite_step"] = np.asarray(result.nonfinite_step).tolist()
    row["curve"] = way.curve()
    return row | time_taken(result), said


def _said(params, cell, pooling, recordings, rows) -> np.ndarray:
    """Return the digits that networks predict for N recordings, [networks, N]."""
    xs = [recordings.xs[row] for row in rows]
    return network.say(params, cell, pooling, xs).argmax(axis=-1)


def _percent(right: np.ndarray) -> list[float]:
    return (100 * right.mean(axis=1)).tolist()
