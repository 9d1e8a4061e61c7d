"""A learner on a stream from a file or a pipe: for ever, saved, resumed.

    sensor | python -m experiments.online.endless --state learner.npz
    python -m experiments.online.endless --state learner.npz --file log.csv --follow

Each line of the stream is a row of numbers, separated by commas or spaces. For each
row, the program prints the prediction of the next row. A row is scored before the
learner learns from it; the scores go to standard error. The learner is saved after
every `--every` rows, at the end of the stream, and after Ctrl-C or SIGTERM. If the
program is started again, it goes on with the saved learner.
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np

from experiments.harness.errors import DataError
from experiments.harness.options import above, at_least
from experiments.online._endless_learner import Learner, load, save, State

WAIT = 0.1  # seconds between two looks at a file that is followed
BAD = 5  # number of unreadable lines that are named


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn from a stream of numbers, for ever; print predictions of the next row."""

    state: Path
    """File that the learner is saved to; if the file exists, the learner in it goes
    on."""
    file: Path | None = None
    """File to read; by default the standard input is read, such as a pipe. A learner
    that goes on begins after the last line that it has read."""
    follow: bool = False
    """Wait for further lines at the end of `file`, like tail -f."""
    again: bool = False
    """The pipe begins again at its start: skip the lines that the saved learner has
    read. Without this option, all lines of a pipe are new."""
    every: int = 1000
    """Number of lines between two saves."""
    units: int = 16
    """Number of units of the GRU, for a new learner."""
    learning_rate: float = 3e-3
    """Learning rate of Adam, for a new learner."""

    def __post_init__(self):
        """Check the settings."""
        at_least(1)("every", self.every)
        at_least(1)("units", self.units)
        above(0)("learning_rate", self.learning_rate)
        if self.follow and self.file is None:
            raise ValueError("follow needs file; a pipe is followed in any case.")


class _Stopped(Exception):
    """Raised by SIGTERM and Ctrl-C."""


def main(config: Config) -> State | None:
    """Read the stream to its end; return the state of the learner.

    The result is None if the stream had no row of numbers.
    """
    learner, state, start = None, None, {"lines": 0, "bytes": 0}
    if config.state.exists():
        learner, state, start = load(config.state)
        _tell(f"resumed after {start['lines']} lines")
    done, unsaved, bad = (state, start), 0, 0
    try:
        for line, place in _lines(config, start):
            row = _row(line)
            if learner is None and row is not None:
                learner = Learner(len(row), config.units, config.learning_rate)
                state = learner.init()
            if learner is None or row is None or len(row) != learner.columns:
                bad += 1
                if bad <= BAD:
                    _tell(f"line {place['lines']} is skipped: {line[:60]!r}")
                continue
            state = learner.advance(state, row)  # type: ignore[attr-defined]
            done = state, place  # one assignment, which no signal can split
            said = ",".join(f"{each:.6g}" for each in np.asarray(state.prediction))
            print(said, flush=True)
            unsaved += 1
            if unsaved >= config.every:
                unsaved = 0
                save(config.state, learner, state, place)
                _tell(_score(state, place))
    except (_Stopped, KeyboardInterrupt, BrokenPipeError):
        _tell("stopped")
    state, place = done
    if learner is not None and state is not None:
        save(config.state, learner, state, place)
        _tell(_score(state, place))
    return state


def _lines(config: Config, place: dict) -> Iterator[tuple[str, dict]]:
    """Yield each new line, and the place in the stream after this line."""
    if config.file is None:
        skipped = place["lines"] if config.again else 0
        for number, line in enumerate(sys.stdin.buffer):
            if number >= skipped:
                place = {"lines": place["lines"] + 1, "bytes": 0}
                yield line.decode("utf-8", "replace"), place
        return
    try:
        file = config.file.open("rb")
    except OSError as error:
        raise DataError(f"--file: {config.file}: {error.strerror}.") from error
    with file:
        if os.fstat(file.fileno()).st_size < place["bytes"]:
            raise DataError(
                f"--file: {config.file} is shorter than what the learner in "
                f"{config.state} has read: give that file, or name another --state."
            )
        file.seek(place["bytes"])
        for line in _complete(file, config.follow):
            size = place["bytes"] + len(line)
            place = {"lines": place["lines"] + 1, "bytes": size}
            yield line.decode("utf-8", "replace"), place


def _complete(file: BinaryIO, follow: bool) -> Iterator[bytes]:
    """Yield lines; the end of a followed file may be half a line, which is kept."""
    part = b""
    while True:
        part += file.readline()
        if part.endswith(b"\n"):
            yield part
            part = b""
        elif follow:
            time.sleep(WAIT)
        else:
            if part:
                yield part
            return


def _row(line: str) -> jnp.ndarray | None:
    """Return the finite numbers of a line, or None."""
    try:
        values = np.array([float(word) for word in line.replace(",", " ").split()])
    except ValueError:
        return None
    good = values.size > 0 and bool(np.all(np.isfinite(values)))
    return jnp.asarray(values, jnp.float32) if good else None


def _score(state: State, place: dict) -> str:
    own, other = np.sqrt(np.asarray(state.errors, float))
    return (
        f"{place['lines']} lines; RMSE of the predictions {own:.4g}, of the row before "
        f"as prediction {other:.4g}"
    )


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _stop(number, frame):
    raise _Stopped


if __name__ == "__main__":
    import tyro

    signal.signal(signal.SIGTERM, _stop)
    try:
        main(tyro.cli(Config))
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
