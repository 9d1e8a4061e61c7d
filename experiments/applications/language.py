"""A text by its characters: which comes next, beside n-grams; then it writes on.

    p(x_{t+1} | x_1 … x_t) = softmax(y_t)

The text lies side by side in streams, [L, B], that are read in windows. From one window
to the next the state is either kept, so that the network remembers more than errors
travel back through, or it is reset to zeros. Both see the same windows in turn.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments import data, options, report
from experiments.applications import (
    _characters,
    _language_report,
    _recurrent,
    _resume,
    _windows,
)
from experiments.tasks._ngrams import interpolated_ngrams

FREE = ("states", "tested", "generate", "temperature", "prompt", "orders")


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
        _resume.check_resume(self)


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
    text = read_text(config)
    folder, start = _resume.make_folder("language", config), time.perf_counter()
    rows, interrupted = [], False
    try:
        rows += _ngrams(config, folder, text)
        with report.Progress(len(config.states)) as progress:
            for state in config.states:
                progress.begin(f"state {state}", config.steps)
                row, params = _train(config, folder, text, state, progress)
                if not any("state" in before for before in rows) and config.generate:
                    _write(config, folder, text, params)
                rows.append(row)
                report.append_row(folder, row)
    except KeyboardInterrupt:
        interrupted = True
    if rows:
        published = config.text is None
        _language_report.show(rows, text.source, config, published)
        picture = _language_report.draw(rows, text.source, config.tested)
        report.save_picture(folder, "language", picture)
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
    needed, at_least = config.streams * (2 * config.window + 1), _characters.SCORED
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


def _ngrams(config: Config, folder: Path, text: data.Text) -> list[dict[str, Any]]:
    symbols = len(text.alphabet)
    nats = interpolated_ngrams(text.train, text.test, symbols, config.orders)
    rows = [{"model": f"{n + 1}-gram", "nats": each} for n, each in enumerate(nats)]
    for row in rows:
        report.append_row(folder, row)
    return rows


def _train(config: Config, folder: Path, text: data.Text, state: str, progress: Any):
    """Train networks whose state is kept, or is reset; return their row, and params."""
    network = _make_network(config, text)
    given = text.train, config.streams, config.window, state == "kept", config.seed
    some = _characters.score_window(text, config.tested)
    whole = _characters.score_window(text)
    params, trained = _windows.train(
        config,
        folder,
        state,
        network,
        _characters.Windows(*given),
        _windows.Scores(network, some),
        progress.advance,
        free=FREE,
        best=False,
    )
    row = {"model": f"{config.cell} {config.units}, state {state}", "state": state}
    row |= trained
    row |= {"epochs": config.steps * config.streams * config.window / len(text.train)}
    row |= {"nats": _windows.Scores(network, whole)(params)}
    often = _characters.reset_often(whole, config.window)
    row |= {"nats_reset": _windows.Scores(network, often)(params)}
    return row, jax.tree.map(lambda leaf: leaf[0], params)


def _make_network(config: Config, text: data.Text) -> _recurrent.Network:
    sizes = config.units, config.embedding, len(text.alphabet)
    return _characters.make_network(config.cell, *sizes)


def _write(config: Config, folder: Path, text: data.Text, params: Any) -> None:
    """Let a network write on from the prompt; print it, and write it to a file."""
    written = _characters.generate(
        _make_network(config, text),
        params,
        np.searchsorted(list(text.alphabet), list(config.prompt)),
        config.generate,
        jax.random.key(config.seed),
        config.temperature,
    )
    sample = config.prompt + "".join(text.alphabet[i] for i in written)
    (folder / "sample.txt").write_text(sample, "utf-8")
    _language_report.show_sample(sample, config.temperature)
