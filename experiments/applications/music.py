"""Chorales and folk tunes: which keys sound next, beside a published table.

    p(x_{t+1} | x_1 … x_t) = Π_k σ(y_{t,k})^{x_{t+1,k}} (1 − σ(y_{t,k}))^{1 − x_{t+1,k}}

A network reads a piece step by step, the 88 keys of a piano as zeros and ones, and says
for each of them how likely it sounds next. Its samples are written to listen to.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data, options, report
from experiments.applications import (
    _midi,
    _music_report,
    _recurrent,
    _resume,
    _rolls,
    _windows,
)

SETS = {"jsb_chorales": data.jsb_chorales, "nottingham": data.nottingham}
SECONDS = {
    "jsb_chorales": 0.6,
    "nottingham": 0.15,
}  # of a step, in MIDI; files do not say
FREE = ("sampled", "prime", "temperature", "sets", "cells")  # a resumed run may differ


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks on polyphonic music, score them, and let them play."""

    sets: tuple[Literal["jsb_chorales", "nottingham"], ...] = (
        "jsb_chorales",
        "nottingham",
    )
    """What to learn."""
    cells: tuple[Literal["tanh", "lstm", "gru"], ...] = ("tanh", "lstm", "gru")
    """Recurrent layers to compare."""
    units: int = 128
    """Of each."""
    rule: str = "bptt"
    """Where gradients come from: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 32
    """How many steps errors travel back, by rules that truncate."""
    update: str = "adam"
    """What is done with gradients: adam, sgd, forgetting, rprop, …"""
    learning_rate: float = 5e-3
    """At first; it falls to 0 along a cosine, but for the Rprop family."""
    dropout: float = 0.3
    """Share of units that the readout does not see, drawn at each step."""
    streams: int = 16
    """Pieces that are read side by side, one after another in each stream."""
    window: int = 64
    """Steps of each stream that an update is of; errors do not travel further."""
    steps: int = 3000
    """Updates."""
    chunk: int = 100
    """Updates between two looks at the validation pieces."""
    seeds: int = 2
    """Networks of each kind, which differ in weights and dropout."""
    seed: int = 0
    """The first of them."""
    sampled: int = 96
    """Steps of each sample."""
    prime: int = 8
    """Steps of a test piece that a sample begins with."""
    temperature: float = 1.0
    """Samples are the likelier the lower it is; 1 as the network says."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again."""
    out: Path | None = None
    """Folder to write to; by default runs/music-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("units", "lookback", "streams", "window", "steps", "chunk", "seeds")
        options.check_at_least_one(self, *sizes, "sampled", "prime")
        options.check_known("sets", self.sets, SETS)
        options.check_known("cells", self.cells, _recurrent.CELLS)
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        _resume.check_resume(self)


def main(config: Config) -> report.Result:
    """Train, score and sample; show tables, and write them to a folder."""
    config = options.at_quick_size(
        config,
        sets=("jsb_chorales",),
        cells=("gru",),
        units=48,
        steps=150,
        chunk=50,
        seeds=1,
    )
    folder, start = _resume.make_folder("music", config), time.perf_counter()
    rows, interrupted, played = [], False, {}
    try:
        with report.Progress(len(config.sets) * len(config.cells)) as progress:
            for name in config.sets:
                music = _rolls.as_rolls(SETS[name]())
                rows += _baselines(folder, name, music)
                played[name] = [_begin(config, folder, name, music)]
                for cell in config.cells:
                    progress.begin(f"{name}, {cell}", config.steps)
                    row, roll = _train(config, folder, name, cell, music, progress)
                    rows.append(row)
                    report.append_row(folder, row)
                    played[name].append((f"{row['model']}, sampled", roll))
    except KeyboardInterrupt:
        interrupted = True
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        _music_report.show(name, mine, f"{config.rule} × {config.update}")
        if played.get(name):
            given = (name, played[name], config.prime)
            report.save_picture(folder, name, _music_report.draw_rolls(*given))
    if rows:
        report.save_picture(folder, "music", _music_report.draw_curves(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _baselines(folder: Path, name: str, music: _rolls.Rolls) -> list[dict[str, Any]]:
    """Return rows of models without a memory, or with one of a single step."""
    scores = [
        _rolls.independent_keys(music.train, part)
        for part in (music.validation, music.test)
    ]
    rows = [
        {"set": name, "model": model, "validation": validation, "test": test}
        for model, validation, test in zip(
            ("independent keys", "a Markov chain per key"), *scores, strict=True
        )
    ]
    for row in rows:
        report.append_row(folder, row)
    return rows


def _train(
    config: Config,
    folder: Path,
    name: str,
    cell: str,
    music: _rolls.Rolls,
    progress: Any,
) -> tuple[dict[str, Any], np.ndarray]:
    """Train one kind of network; return its row, and what the first of them plays."""
    network = make_network(cell, config.units)
    validation, test = (
        _windows.Scores(network, _rolls.side_by_side(part, config.streams))
        for part in (music.validation, music.test)
    )
    params, trained = _windows.train(
        config,
        folder,
        f"{name}-{cell}",
        network,
        _rolls.Streams(music.train, config.streams, config.window, config.seed),
        validation,
        progress.advance,
        free=FREE,
        best=True,
    )
    row = {"set": name, "model": f"{cell} {config.units}", "cell": cell, **trained}
    row |= {"validation": validation(params), "test": test(params)}
    first = jax.tree.map(lambda leaf: leaf[0], params)
    return row, _play(config, folder, name, network, first, music)


def make_network(cell: str, units: int) -> _recurrent.Network:
    """Return a network of keys."""

    def loss(y, target):
        losses = optax.sigmoid_binary_cross_entropy(y, target.astype(y.dtype))
        return jnp.sum(losses, axis=-1)

    return _recurrent.make_network(
        cell,
        units,
        lambda _, x: x.astype(jnp.float32),
        loss,
        lambda key: _recurrent.init(key, cell, 88, units, 88),
    )


def _begin(config: Config, folder: Path, name: str, music: _rolls.Rolls):
    """Write the test piece that samples begin with; return its title and its roll."""
    roll = music.test[0][: config.sampled]
    path = folder / f"{name}-test-piece.mid"
    _midi.write_midi(path, data.to_piece(roll), SECONDS[name])
    return "a test piece, the beginning of which is given", roll


def _play(config, folder, name, network, params, music) -> np.ndarray:
    """Sample a piece, write it as MIDI, and return its roll [T, 88]."""
    prime = jnp.asarray(music.test[0][: min(config.prime, config.sampled)])
    key = jax.random.key(config.seed)
    roll = sample(network, params, prime, config.sampled, key, config.temperature)
    path = folder / f"{name}-{network.cell}.mid"
    _midi.write_midi(path, data.to_piece(roll), SECONDS[name])
    return roll


def sample(
    network: _recurrent.Network,
    params: Any,
    prime: jax.Array,
    steps: int,
    key: jax.Array,
    temperature: float = 1.0,
) -> np.ndarray:
    """Return a piece [steps, 88] that begins with some steps and is drawn from there.

    Args:
      network: as :func:`make_network` returns it.
      params: of it.
      prime: the steps given, [at least 1, 88] of zeros and ones.
      steps: of the piece, those given included.
      key: of `jax.random`.
      temperature: that logits are divided by.
    """
    given = jnp.zeros((steps, 88), prime.dtype).at[: len(prime)].set(prime)

    def body(state, inputs):
        carry, drawn = state
        t, key = inputs
        x = jnp.where(t < len(prime), given[t], drawn)
        carry, logits = network.step(params, carry, (x, None))
        drawn = jax.random.bernoulli(key, jax.nn.sigmoid(logits / temperature))
        return (carry, drawn.astype(x.dtype)), x

    inputs = jnp.arange(steps), jax.random.split(key, steps)
    state = network.zeros(()), jnp.zeros(88, prime.dtype)
    return np.asarray(jax.jit(lambda: jax.lax.scan(body, state, inputs)[1])())
