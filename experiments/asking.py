"""The command `ask`: the answer of a trained model to one input, and nothing else."""

import dataclasses
import sys
from pathlib import Path

import tyro

from experiments.harness import models
from experiments.harness.errors import DataError

NO_DISTANCE = (
    "(Not known: whether the input is unlike what was learned. The input is too short, "
    "or there were too few held-out inputs to calibrate the distance.)"
)


@dataclasses.dataclass(frozen=True)
class Ask:
    """Print the answer of a trained model to one input.

    Give one input, of the kind that the study reads. If the input is unlike what the
    model has learned, the answer says so.
    """

    folder: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    wav: str | None = None
    """A WAV file with one spoken digit, for speech."""
    png: str | None = None
    """A picture of a handwritten digit, for images."""
    text: str | None = None
    """A text to classify, to translate or to continue, for categorise, translate and
    language."""
    midi: str | None = None
    """A MIDI file to continue, for music."""
    csv: str | None = None
    """A CSV file: past values for forecast, sensor frames for robot, columns u and y
    for identify."""
    state: str | None = None
    """Numbers separated by commas, for control: the state, then the goal if there is
    one."""


def main(arguments: list[str]) -> int:
    """Print the answer to standard output; return the exit code of the process.

    A note on standard error says if the answer has no distance.
    """
    ask = tyro.cli(Ask, prog="python -m experiments ask", args=_joined(arguments))
    try:
        found = answer(ask)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    print(found)
    if found.distance is None:
        print(NO_DISTANCE, file=sys.stderr)
    return 0


def answer(ask: Ask) -> models.Answer:
    """Load the model, and ask it.

    Raises:
      DataError: if the model or the input cannot be read, or if the input is not of the
        kind that the study reads.
    """
    given = {
        field.name: value
        for field in dataclasses.fields(ask)
        if field.name != "folder" and (value := getattr(ask, field.name)) is not None
    }
    model = models.load(ask.folder)
    reads = " or ".join(f"--{name}" for name in model.reads)
    if len(given) != 1 or not given.keys() <= model.reads.keys():
        got = ", ".join(f"--{name}" for name in given) or "no input"
        raise DataError(
            f"{ask.folder} holds a model of {model.study}, which reads {reads}; got "
            f"{got}. Give {reads} once."
        )
    ((name, text),) = given.items()
    try:
        return model.predict(model.reads[name](text))
    except (OSError, ValueError) as error:
        raise DataError(f"--{name}: {error}") from error


def _joined(arguments: list[str]) -> list[str]:
    """Join an option with its value, so that values such as -1,0 may begin with "-".

    Example:
      >>> _joined(["FOLDER", "--state", "-1,0"])
      ['FOLDER', '--state=-1,0']
    """
    names = {f"--{field.name}" for field in dataclasses.fields(Ask)}
    found: list[str] = []
    for word in arguments:
        if found and found[-1] in names and not word.startswith("--"):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found
