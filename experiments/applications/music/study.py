"""Study `music`: which notes sound next in chorales and folk tunes?

    p(x_{t+1} | x_1 … x_t) = Π_k σ(y_{t,k})^{x_{t+1,k}} (1 − σ(y_{t,k}))^{1 − x_{t+1,k}}

A network reads a piece step by step. The input x_{t,k} is 1 if the key k of the 88 keys
of a piano sounds at step t, else 0. The network's output for the key k is y_{t,k}. The
sigmoid σ(y_{t,k}) of this output is the predicted probability that the key sounds at
step t + 1. Pieces that are sampled from the networks are written as MIDI files.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import choices, data, report
from experiments.applications.music import (
    ask,
    midi,
    report as music_report,
)
from experiments.applications.music.networks import make_network, sample
from experiments.applications.music.rolls import (
    as_rolls,
    independent_keys,
    markov_keys,
    Rolls,
    side_by_side,
    Streams,
)
from experiments.harness.jobs import Job, Row, Way
from experiments.harness.options import above, at_least, known, within
from experiments.harness.study import run_study, TrainingStudy
from experiments.networks import windows
from experiments.networks.cells import DENSE

OWN = "own"  # name of the data set in a user's folder of MIDI files
SETS = {"jsb_chorales": data.jsb_chorales, "nottingham": data.nottingham}
SECONDS = {  # assumed duration of a step in MIDI files, which the data sets do not give
    "jsb_chorales": 0.6,
    "nottingham": 0.15,
}
BEAT = 0.5  # assumed duration of a beat in a user's files, s
BASELINES = {
    "independent keys": independent_keys,
    "a Markov chain per key": markov_keys,
}


@dataclasses.dataclass(frozen=True)
class Config(TrainingStudy):
    """How well do recurrent layers predict polyphonic music, and what do they play?"""

    FILES = ("midi",)
    ENDINGS = midi.SUFFIXES
    QUICK = {
        "sets": ("jsb_chorales",), "cells": ("gru",), "units": 48, "steps": 150,
        "chunk": 50, "seeds": 1,
    }  # fmt: skip
    CHECKS = {
        "units lookback streams window steps chunk sampled prime": at_least(1),
        "per_beat": at_least(1),
        "sets": known(SETS),
        "cells": known(DENSE),
        "update": known(choices.UPDATES),
        "learning_rate temperature": above(0),
        "dropout": within(0, 1, ends="[)"),
    }

    sets: tuple[Literal["jsb_chorales", "nottingham"], ...] = (
        "jsb_chorales",
        "nottingham",
    )
    """Data sets; networks are trained on each set separately."""
    midi: Path | None = None
    """A folder of MIDI files to learn from, used in place of `sets`."""
    per_beat: int = 2
    """Number of time steps in a beat (a quarter note) of the files in `midi`."""
    cells: tuple[Literal["tanh", "lstm", "gru"], ...] = ("tanh", "lstm", "gru")
    """Kinds of recurrent layers to compare."""
    units: int = 128
    """Number of units of each recurrent layer."""
    rule: str = "bptt"
    """Gradient rule: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 32
    """Number of steps that truncated gradient rules go back in a window."""
    update: str = "adam"
    """Update rule: adam, sgd, forgetting, rprop, …"""
    learning_rate: float = 5e-3
    """Initial learning rate; it falls to 0 along a cosine, except for update rules of
    the Rprop family."""
    dropout: float = 0.3
    """Dropout rate of units before the readout; each time step has a new mask."""
    streams: int = 16
    """Number of parallel streams; each is a series of pieces."""
    window: int = 64
    """Number of time steps that an update reads from each stream; gradients are
    propagated back through these steps only."""
    steps: int = 3000
    """Number of updates."""
    chunk: int = 100
    """Number of updates between two evaluations on the validation pieces."""
    seeds: int = 2
    """Number of networks of each kind, with different weights and dropout masks."""
    sampled: int = 96
    """Number of time steps of each sampled piece."""
    prime: int = 8
    """Number of time steps at the start of each sampled piece that are taken from a
    test piece."""
    temperature: float = 1.0
    """Temperature of sampling; at 1, piano keys are drawn with the probabilities that
    the network predicts."""


def main(config: Config) -> report.Result:
    """Train and test networks, and sample pieces; print and write the results."""
    load = cache(_load)
    return run_study(
        "music", config, partial(_jobs, load=load), partial(_finish, load=load),
        free=("sampled", "prime", "temperature"),
        check=lambda run: [load(run, name) for name in _sets(run)],
    )  # fmt: skip


def _sets(config: Config) -> tuple[str, ...]:
    return config.sets if config.midi is None else (OWN,)


def _jobs(config: Config, load) -> list[Job]:
    jobs, load = [], partial(load, config)
    for name in _sets(config):
        for model, score in BASELINES.items():
            given = partial(_baseline, name, model, score, load)
            jobs.append(Job(f"{name}, {model}", 1, given))
        for cell in config.cells:
            train = partial(_train, config, name, cell, load)
            jobs.append(Job(f"{name}-{cell}", config.steps, train))
    return jobs


def _finish(folder: Path, config: Config, rows: list[Row], load) -> None:
    load = partial(load, config)
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        music_report.show(name, mine, f"{config.rule} × {config.update}")
        rolls = _play(config, folder, name, load(name), mine)
        picture = music_report.draw_rolls(name, rolls, config.prime)
        report.save_picture(folder, name, picture)
        report.say(
            f"To listen: {name}-test-piece.mid is the test piece, and the other files "
            f"{name}-*.mid are what the networks play after its beginning."
        )
    report.save_picture(folder, "music", music_report.draw_curves(rows))
    trained = [row for row in rows if "cell" in row]
    if trained:
        _save(config, folder, trained, load(trained[0]["set"]))


def _load(config: Config, name: str) -> Rolls:
    if name == OWN:
        assert config.midi is not None
        return as_rolls(midi.read_folder(config.midi, config.per_beat))
    return as_rolls(SETS[name]())


def _save(config: Config, folder: Path, rows: list[Row], music: Rolls) -> None:
    """Save the network with the lowest validation loss on the first data set."""
    mine = [row for row in rows if row["set"] == rows[0]["set"]]
    row = min(mine, key=lambda row: np.mean(row["validation"]))
    network = make_network(row["cell"], config.units)
    _, params = Way(row["job"], folder).best(windows.init(config, network))
    first = jax.tree.map(lambda leaf: leaf[0], params)
    settings = {"cell": row["cell"], "units": config.units}
    settings["per_beat"] = config.per_beat if row["set"] == OWN else 1
    ask.save(folder, network, first, (music.train, music.validation), settings)


def _baseline(name: str, model: str, score, load, way: Way) -> Row:
    """Score a baseline; return its row of results."""
    music = load(name)
    row: Row = {"set": name, "model": model}
    row["validation"] = score(music.train, music.validation)
    row["test"] = score(music.train, music.test)
    way.advance(1)
    return row


def _train(config: Config, name: str, cell: str, load, way: Way) -> Row:
    """Train one kind of network from all seeds together; return its row of results."""
    network, music = make_network(cell, config.units), load(name)
    validation, test = (
        windows.Scores(network, side_by_side(part, config.streams))
        for part in (music.validation, music.test)
    )
    streams = Streams(music.train, config.streams, config.window, config.first_seed)
    given = config, way, network, streams, validation
    params, trained = windows.train(*given, best=True)
    row = {"set": name, "model": f"{cell} {config.units}", "cell": cell, **trained}
    return row | {"validation": validation(params), "test": test(params)}


def _play(
    config: Config, folder: Path, name: str, music: Rolls, rows
) -> list[tuple[str, np.ndarray]]:
    """Write a test piece, and a piece sampled from each kind of network, as MIDI files.

    Returns:
      Pairs (title, piano roll [T, 88]).
    """
    piece = music.test[0][: config.sampled]
    prime = jnp.asarray(piece[: config.prime])
    rolls = {"test-piece": ("a test piece; samples are given its beginning", piece)}
    for row in (row for row in rows if "cell" in row):
        network = make_network(row["cell"], config.units)
        way = Way(row["job"], folder)
        _, params = way.best(windows.init(config, network))
        first = jax.tree.map(lambda leaf: leaf[0], params)
        key = jax.random.key(config.first_seed)
        roll = sample(network, first, prime, config.sampled, key, config.temperature)
        rolls[row["cell"]] = f"{row['model']}, sampled", roll
    for what, (_, roll) in rolls.items():
        path = folder / f"{name}-{what}.mid"
        seconds = SECONDS.get(name, BEAT / config.per_beat)
        midi.write_midi(path, data.to_piece(roll), seconds)
    return [*rolls.values()]
