"""Settings of checkpoints: the folder, and how often `fit` writes a checkpoint."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpvariants._checks import check_count
from bpvariants._settings import check_path

Best = str | Callable[[dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Settings with which :func:`fit` writes checkpoints, and resumes from them.

    A checkpoint contains the whole state of a training. This state consists of the
    params, the states of the update and of the rule, the number of steps taken, and all
    losses so far. Even if the process is killed, a checkpoint is either complete or
    absent. If a checkpoint was damaged later, a training that resumes renames it to
    `<step>.torn`, with a warning, and uses the previous checkpoint. The package
    `orbax-checkpoint` writes checkpoints in the background, while the training
    continues.

    A resumed training is bit-identical to an uninterrupted training, on the same
    machine and with the same `chunk`. An error is raised if the checkpoint has a
    different key or `config`, or if names, shapes or dtypes of its arrays differ. Some
    differences between a checkpoint and the resumed training are not detected:
    different functions, different data of equal shapes, and changed hyper-parameters
    that are not in the state of the update. Hyper-parameters that
    `optax.inject_hyperparams` puts into the state of the update are taken from the
    checkpoint.

    Attributes:
      directory: folder that only this training uses; it is locked against other
        processes during the training.
      every: number of training steps between two checkpoints. Checkpoints are written
        only at the end of a chunk (the training steps of one jitted call). Default:
        after each chunk. A last checkpoint is written at the end of the training.
        Besides the writing itself, a checkpoint takes about 50 ms of CPU time, so
        `every` steps should take at least some seconds.
      keep: number of the latest checkpoints to keep on disk.
      best: score of a checkpoint, where lower is better. Besides the latest
        checkpoints, the checkpoint with the best score is kept. Give the name of a
        metric, such as "value" (the training loss; with several runs, the mean over the
        runs), or a function metrics -> number, such as a validation loss computed from
        `metrics["params"]`. With None, only the latest checkpoints are kept.
      resume: whether to continue from the latest checkpoint, if there is one. If False,
        the folder must not contain checkpoints.
      config: a dict of JSON values with further settings of this training. A resumed
        training must give an equal dict.
    """

    directory: str | os.PathLike
    every: int | None = None
    keep: int = 3
    best: Best | None = None
    resume: bool = True
    config: dict[str, Any] | None = None

    def __post_init__(self):
        """Check the settings."""
        check_path("directory", self.directory)
        try:
            str(Path(self.directory).absolute()).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                "directory must have a name in UTF-8, because orbax-checkpoint can "
                f"write to no other; got {self.directory!r}."
            ) from error
        if self.every is not None:
            check_count("every", self.every)
        check_count("keep", self.keep)
        if not (self.best is None or isinstance(self.best, str) or callable(self.best)):
            raise ValueError(
                "best must be the name of a metric, such as 'value', or a function "
                f"metrics -> number, got {self.best!r}."
            )
        if not isinstance(self.resume, bool):
            raise ValueError(f"resume must be True or False, got {self.resume!r}.")
        why = "" if self.config is None or isinstance(self.config, dict) else "no dict"
        try:
            json.dumps(self.config, default=str)
        except (TypeError, ValueError) as error:
            why = str(error)
        if why:
            raise ValueError(
                f"config must be a dict that JSON can hold, got {self.config!r}: {why}."
            )
