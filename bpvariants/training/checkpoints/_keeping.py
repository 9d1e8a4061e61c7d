"""Selection of the checkpoints that are kept, and their scores."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bpvariants.training.checkpoints._checkpoint import Best


class Kept:
    """Preservation policy for orbax: keep the last few checkpoints and the best."""

    def __init__(self, last: int):
        self.last, self.measured = last, {}

    def should_preserve(self, checkpoints, **context: Any) -> list[bool]:
        """Return, for each checkpoint on disk, whether to keep it."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        known = [step for step in steps if step in self.measured]
        best = [min(known, key=self.measured.__getitem__)] if known else []
        kept = {*sorted(steps)[-self.last :], *best}
        return [step in kept for step in steps]


def open_manager(folder: Path, kept: Kept | None) -> Any:
    """Return an orbax manager for a folder; if `kept` is None, it only reads.

    Another process may be writing there, so a reader must not clean up the folder.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            "checkpoint needs orbax-checkpoint: pip install orbax-checkpoint"
        ) from error
    if kept is None:
        with _no_warnings():  # orbax warns that the manager only reads, as intended
            options = ocp.CheckpointManagerOptions(read_only=True)
            return ocp.CheckpointManager(folder, options=options)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=kept,
        cleanup_tmp_directories=True,  # left by killed processes
    )
    return ocp.CheckpointManager(folder, options=options)


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
    if isinstance(best, str) and best not in metrics:
        raise ValueError(f"best must be one of {sorted(metrics)}, got {best!r}.")
    found = metrics[best] if isinstance(best, str) else best(metrics)
    number = float(np.mean(np.asarray(found, float)))
    return math.inf if math.isnan(number) else number
