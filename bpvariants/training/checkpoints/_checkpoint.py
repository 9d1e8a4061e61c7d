"""Settings of checkpoints: where `fit` writes them, and how often."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

from bpvariants._checks import check_count

Best = str | Callable[[dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often :func:`fit` writes checkpoints, and whether it goes on there.

    A checkpoint has all that a training is: params, the states of the update and of the
    rule, how many batches were used, and the losses so far. It is whole or it is not
    there, whenever the process is killed; one that was damaged later is renamed to
    `<step>.torn`, with a warning, and the one before is taken. It is written in the
    background, in a file each for a few arrays, by `orbax-checkpoint`.

    A training that resumes goes on bit by bit as if it had not been interrupted, on the
    same machine and with the same `chunk`. One whose arrays, key or `config` are others
    is refused. What cannot be seen is not checked: other functions, other data of equal
    shapes, hyper-parameters that the state of the update does not hold. One that it
    does, by `optax.inject_hyperparams`, is from then on that of the checkpoint.

    Attributes:
      directory: a folder of its own for each training.
      every: after how many steps to write, at the end of the chunk that they fall in;
        by default after each chunk. The end is always written. Each costs some 50 ms of
        a CPU besides the writing, so that `every` should be worth seconds of training.
      keep: how many of the last to keep.
      best: also keep the one where this is least: the name of a metric, such as
        "value", over all runs its mean; or a function metrics -> number, such as a
        validation loss of `metrics["params"]`. None keeps the last ones only.
      resume: go on from the last one, if there is one. If False, there must be none.
      config: what else tells this training from others, a dict as JSON has them.
    """

    directory: str | os.PathLike
    every: int | None = None
    keep: int = 3
    best: Best | None = None
    resume: bool = True
    config: dict[str, Any] | None = None

    def __post_init__(self):
        """Check the settings."""
        if self.every is not None:
            check_count("every", self.every)
        check_count("keep", self.keep)
        try:
            json.dumps(self.config, default=str)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"config must be a dict as JSON has them, got {self.config!r}: {error}."
            ) from error
