"""Study `language`: a model of characters, beside n-grams, and samples of it.

    p(x_{t+1} | x_1 … x_t) = softmax(y_t)

The text lies side by side in streams, [L, B], that are read in windows. From one window
to the next the state is either kept, so that the network remembers more than errors
travel back through, or it is reset to zeros. Both see the same windows in turn.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from bpvariants import training
from experiments import data, report
from experiments.applications.language import characters, report as language_report
from experiments.baselines.ngrams import interpolated_ngrams
from experiments.harness import options
from experiments.harness.jobs import check_resume, Job, open_run, run_jobs, Way
from experiments.networks import recurrent, windows

NGRAMS = "n-grams"  # the job


@dataclasses.dataclass(frozen=True)
class Config:
    """Train character models on a text, score them beside n-grams, let them write."""

    text: Path | None = None
    """A file to learn, in UTF-8; by default Tiny Shakespeare, fetched once."""
    states: tuple[Literal["kept", "reset"], ...] = ("kept", "reset")
    """What to do with the state between windows."""
    cell: Literal["gru", "lstm", "tanh"] = "gru"
    """Of the recurrent layer."""
    units: int = 256
    """Of it."""
    embedding: int = 48
    """Numbers that a character becomes."""
    rule: str = "bptt"
    """Where gradients come from: bptt, truncated_bptt, artbp, rtrl, snap_1, uoro, …"""
    lookback: int = 32
    """How many steps errors travel back, by rules that truncate within a window."""
    update: str = "adam"
    """What is done with gradients: adam, sgd, forgetting, rprop, …"""
    learning_rate: float = 4e-3
    """At first; it falls to 0 along a cosine, but for the Rprop family."""
    dropout: float = 0.0
    """Share of units that the readout does not see, drawn at each step."""
    streams: int = 32
    """Parts of the text that are read side by side."""
    window: int = 64
    """Characters of each stream that an update is of; errors do not travel further."""
    steps: int = 2000
    """Updates."""
    chunk: int = 100
    """Updates between two looks at the text for test."""
    tested: int = 16_384
    """Characters of it that are scored then; in the end it is all of them."""
    seeds: int = 2
    """Networks of each kind, which differ in weights and dropout."""
    seed: int = 0
    """The first of them."""
    orders: int = 6
    """Of the longest n-gram."""
    generate: int = 400
    """Characters to write in the end, by the first network of the first row."""
    temperature: float = 0.8
    """What is written is the likelier the lower it is; 1 as the network says."""
    prompt: str = "\n"
    """What to go on from."""
    quick: bool = False
    """A small form of it, in less than a minute."""
    resume: bool = False
    """Go on with the run in --out; what is finished is not trained again, so that
    --generate writes more."""
    out: Path | None = None
    """Folder to write to; by default runs/language-<time>."""

    def __post_init__(self):
        """Check the options."""
        sizes = ("units", "embedding", "lookback", "streams", "window", "steps")
        sizes += ("chunk", "tested", "seeds", "orders")
        options.check_at_least_one(self, *sizes)
        options.check_known("states", self.states, ("kept", "reset"))
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.generate < 0:
            raise ValueError(f"generate must not be negative, got {self.generate}.")
        check_resume(self)


def main(config: Config) -> report.Result:
    """Train, score and write; show a table, and write it to a folder."""
    config = options.at_quick_size(
        config,
        units=64,
        embedding=16,
        steps=150,
        chunk=50,
        seeds=1,
        tested=4096,
        orders=3,
    )
    free = ("generate", "temperature", "prompt")
    config, folder = open_run("language", config, free, check=read_text)
    text, start = read_text(config), time.perf_counter()
    jobs = [Job(NGRAMS, 1, partial(_ngrams, config, text))]
    for state in config.states:
        jobs.append(Job(state, config.steps, partial(_train, config, text, state)))
    rows, interrupted = run_jobs(folder, jobs)
    if rows:
        published = config.text is None
        models = _models(rows)
        language_report.show(models, text.source, config, published)
        picture = language_report.draw(models, text.source, config.tested)
        report.save_picture(folder, "language", picture)
    trained = [row for row in rows if "state" in row]
    if trained and config.generate:
        _write(config, folder, text, trained[0]["job"])
    report.say_where(folder, time.perf_counter() - start, interrupted)
    return report.Result(rows, folder, interrupted)


def read_text(config: Config) -> data.Text:
    """Return the text, long enough for its windows, and with the prompt's characters.

    Raises:
      SystemExit: if it is not.
    """
    try:
        text = data.text_file(config.text) if config.text else data.tinyshakespeare()
    except ValueError as error:
        raise SystemExit(f"--text: {error}") from None
    needed, at_least = config.streams * (2 * config.window + 1), characters.SCORED
    if len(text.train) < needed or len(text.test) < at_least:
        raise SystemExit(
            f"--text: {text.source} is too short: of its {len(text.train)} characters "
            f"for training, streams={config.streams} and window={config.window} need "
            f"{needed}, and of its {len(text.test)} for test {at_least} are needed. "
            "Take fewer streams and shorter windows, or a longer text."
        )
    strange = sorted(set(config.prompt) - set(text.alphabet))
    if config.generate and (strange or not config.prompt):
        raise SystemExit(
            "--prompt must be characters of the text, one at least; it has "
            f"{''.join(strange)!r} besides."
        )
    return text


def _ngrams(config: Config, text: data.Text, way: Way) -> dict[str, Any]:
    """Return a row with the nats of n-grams, n from 1 on."""
    symbols = len(text.alphabet)
    nats = interpolated_ngrams(text.train, text.test, symbols, config.orders)
    way.advance(1)
    return {"nats": list(nats)}


def _models(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each model, one for each n."""
    models = []
    for row in rows:
        if row["job"] == NGRAMS:
            grams = enumerate(row["nats"], 1)
            models += [{"model": f"{n}-gram", "nats": nats} for n, nats in grams]
        else:
            models.append(row)
    return models


def _train(config: Config, text: data.Text, state: str, way: Way) -> dict[str, Any]:
    """Train networks whose state is kept, or is reset; return their row."""
    network = _make_network(config, text)
    xs, targets = text.train[:-1], text.train[1:]
    given = xs, targets, config.streams, config.window, state == "kept", config.seed
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


def _write(config: Config, folder: Path, text: data.Text, job: str) -> None:
    """Let a network write on from the prompt; print it, and write it to a file."""
    network = _make_network(config, text)
    checkpoints = Way(job, folder).checkpoints
    _, params = training.read_checkpoint(checkpoints, windows.init(config, network))
    written = characters.generate(
        network,
        jax.tree.map(lambda leaf: leaf[0], params),
        np.searchsorted(list(text.alphabet), list(config.prompt)),
        config.generate,
        jax.random.key(config.seed),
        config.temperature,
    )
    sample = config.prompt + "".join(text.alphabet[i] for i in written)
    (folder / "sample.txt").write_text(sample, "utf-8")
    language_report.show_sample(sample, config.temperature)
