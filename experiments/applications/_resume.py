"""Folders of runs that can be resumed: checkpoints, logs, results."""

import dataclasses
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from bpvariants import training
from experiments import report


def make_folder(study: str, config: Any) -> Path:
    """Make the folder of a run, or return that of the one to go on with.

    Results of a run that goes on are written anew: what is finished is taken from its
    checkpoint, and not trained again.

    Args:
      study: its name.
      config: with `out` and `resume`.

    Raises:
      SystemExit: if the folder has results or checkpoints, and is not to be resumed.
    """
    if config.resume:
        (config.out / "results.jsonl").unlink(missing_ok=True)
    folder = report.make_folder(study, config.out)
    if any(folder.glob("checkpoints/*/[0-9]*")) and not config.resume:
        raise SystemExit(
            f"{folder} holds checkpoints of a run that was not finished: add --resume "
            "to go on with it, or choose another --out."
        )
    report.write_config(folder, config)
    return folder


def check_resume(config: Any) -> None:
    """Check that what is to be resumed is said to be somewhere."""
    if config.resume and config.out is None:
        raise ValueError("resume needs out, the folder of the run to go on with.")


def checkpoint(
    folder: Path,
    name: str,
    config: Any,
    *,
    free: Collection[str],
    best: Callable[[dict[str, Any]], Any] | None = None,
) -> training.Checkpoint:
    """Return where the checkpoints of one training of a study are.

    Args:
      folder: of the run.
      name: of the training.
      config: of the study; a training that resumes must have the same,
      free: but for these options.
      best: what is least in the checkpoint that is to be kept.
    """
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in {"out", "resume", "quick", *free}
    }
    directory = folder / "checkpoints" / name
    return training.Checkpoint(directory, keep=1, best=best, config=settings)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, none if there is no such file."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
