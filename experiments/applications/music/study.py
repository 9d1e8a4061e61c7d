"""Study `music`: which keys sound next in chorales and folk tunes.

    p(x_{t+1} | x_1 … x_t) = Π_k σ(y_{t,k})^{x_{t+1,k}} (1 − σ(y_{t,k}))^{1 − x_{t+1,k}}

A network reads a piece step by step, the 88 keys of a piano as zeros and ones, and says
for each of them how likely it sounds next. Its samples are written to listen to.
"""

import dataclasses
import time
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data, report
from experiments.applications.music import (
    midi,
    report as music_report,
)
from experiments.applications.music.rolls import (
    as_rolls,
    independent_keys,
    markov_keys,
    Rolls,
    side_by_side,
    Streams,
)
from experiments.harness import options
from experiments.harness.jobs import check_resume, Job, open_run, run_jobs, Way
from experiments.networks import recurrent, windows
from experiments.networks.cells import DENSE

SETS = {"jsb_chorales": data.jsb_chorales, "nottingham": data.nottingham}
SECONDS = {
    "jsb_chorales": 0.6,
    "nottingham": 0.15,
}  # of a step, in MIDI; files do not say
BASELINES = {
    "independent keys": independent_keys,
    "a Markov chain per key": markov_keys,
}


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
        options.check_known("cells", self.cells, DENSE)
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        check_resume(self)


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
    free = ("sampled", "prime", "temperature")
    start, load = time.perf_counter(), cache(_load)
    check = lambda run: [load(name) for name in run.sets]
    config, folder = open_run("music", config, free, check)
    jobs = []
    for name in config.sets:
        for model, score in BASELINES.items():
            given = partial(_baseline, name, model, score, load)
            jobs.append(Job(f"{name}, {model}", 1, given))
        for cell in config.cells:
            train = partial(_train, config, name, cell, load)
            jobs.append(Job(f"{name}-{cell}", config.steps, train))
    rows, interrupted = run_jobs(folder, jobs)
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        music_report.show(name, mine, f"{config.rule} × {config.update}")
        rolls = _play(config, folder, name, load(name), mine)
        picture = music_report.draw_rolls(name, rolls, config.prime)
        report.save_picture(folder, name, picture)
    if rows:
        report.save_picture(folder, "music", music_report.draw_curves(rows))
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def _load(name: str) -> Rolls:
    return as_rolls(SETS[name]())


def _baseline(name: str, model: str, score, load, way: Way) -> dict[str, Any]:
    """Return the row of a model without a memory, or with one of a single step."""
    music = load(name)
    row: dict[str, Any] = {"set": name, "model": model}
    row["validation"] = score(music.train, music.validation)
    row["test"] = score(music.train, music.test)
    way.advance(1)
    return row


def _train(config: Config, name: str, cell: str, load, way: Way) -> dict[str, Any]:
    """Train one kind of network from all seeds; return its row."""
    network, music = make_network(cell, config.units), load(name)
    validation, test = (
        windows.Scores(network, side_by_side(part, config.streams))
        for part in (music.validation, music.test)
    )
    streams = Streams(music.train, config.streams, config.window, config.seed)
    given = config, way, network, streams, validation
    params, trained = windows.train(*given, best=True)
    row = {"set": name, "model": f"{cell} {config.units}", "cell": cell, **trained}
    return row | {"validation": validation(params), "test": test(params)}


def make_network(cell: str, units: int) -> recurrent.Network:
    """Return a network of keys."""

    def loss(y, target):
        losses = optax.sigmoid_binary_cross_entropy(y, target.astype(y.dtype))
        return jnp.sum(losses, axis=-1)

    return recurrent.make_network(
        cell,
        units,
        lambda _, x: x.astype(jnp.float32),
        loss,
        lambda key: recurrent.init(key, cell, 88, units, 88),
    )


def _play(
    config: Config, folder: Path, name: str, music: Rolls, rows
) -> list[tuple[str, np.ndarray]]:
    """Write a test piece as MIDI, and what the first network of each kind makes of it.

    Returns:
      Titles and rolls [T, 88].
    """
    piece = music.test[0][: config.sampled]
    prime = jnp.asarray(piece[: config.prime])
    rolls = {"test-piece": ("a test piece, the beginning of which is given", piece)}
    for row in (row for row in rows if "cell" in row):
        network = make_network(row["cell"], config.units)
        way = Way(row["job"], folder)
        _, params = way.best(windows.init(config, network))
        first = jax.tree.map(lambda leaf: leaf[0], params)
        key = jax.random.key(config.seed)
        roll = sample(network, first, prime, config.sampled, key, config.temperature)
        rolls[row["cell"]] = f"{row['model']}, sampled", roll
    for what, (_, roll) in rolls.items():
        path = folder / f"{name}-{what}.mid"
        midi.write_midi(path, data.to_piece(roll), SECONDS[name])
    return [*rolls.values()]


def sample(
    network: recurrent.Network,
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
