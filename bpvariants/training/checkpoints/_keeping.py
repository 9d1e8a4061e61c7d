"""Selection of the checkpoints to keep on disk, by their scores."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bpvariants.training.checkpoints._checkpoint import Best


class BestKept:
    """Preservation policy for orbax: keep the checkpoint with the lowest score.

    This class replaces `orbax.checkpoint.checkpoint_managers.BestN`, which reads the
    scores of all checkpoints when a checkpoint manager opens. With `BestN`, a single
    damaged score file would make the manager fail, and the training could not resume.
    """

    def __init__(self):
        self.scores: dict[int, float] = {}

    def should_preserve(self, checkpoints, **context: Any) -> list[bool]:
        """Return for each checkpoint on disk whether to keep it."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        known = [step for step in steps if step in self.scores]
        best = min(known, key=self.scores.__getitem__, default=None)
        return [step == best for step in steps]


def open_writer(folder: Path, keep: int, best: BestKept) -> Any:
    """Return an orbax manager that writes and keeps the latest and best checkpoints."""
    ocp = _orbax()
    policies = [ocp.checkpoint_managers.LatestN(keep), best]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,  # delete files left by killed processes
    )
    return ocp.CheckpointManager(folder, options=options)


def open_reader(folder: Path) -> Any:
    """Return an orbax manager that only reads checkpoints.

    A manager that reads must not delete files, because another process may be writing
    checkpoints to the folder.
    """
    ocp = _orbax()
    with _no_warnings():  # orbax warns that the manager only reads
        options = ocp.CheckpointManagerOptions(read_only=True)
        return ocp.CheckpointManager(folder, options=options)


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            "checkpoints and saved params need orbax-checkpoint: pip install "
            "orbax-checkpoint"
        ) from error
    return ocp


@contextmanager
def _no_warnings() -> Iterator[None]:
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def measure(best: Best, metrics: dict[str, Any]) -> float:
    """Return the score of a checkpoint: lower is better; NaN counts as inf."""
    found = metrics[best] if isinstance(best, str) else best(metrics)
    try:
        number = float(np.mean(np.asarray(found, float)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"best must be a function metrics -> number, but it returned {found!r}."
        ) from error
    return math.inf if math.isnan(number) else number
