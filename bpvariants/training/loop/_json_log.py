"""A log of JSON lines, without duplicates or holes after a run is resumed."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

NOT_LOGGED = ("params", "values")


class JsonLog:
    """A log for :func:`fit` that appends a line of JSON to a file after each chunk.

    A line has the `step` and the metrics except `params` and `values`. Values that are
    not finite are null. When a training resumes, lines of steps after its checkpoint
    are cut off, and so is a torn line. The file is then the same as for a training
    without interruption. Of several processes, only the first writes.

    Args:
      path: the file; it and its folder are made if they do not exist.
      more: (step, metrics) -> dict of further entries, such as a validation loss.

    Example:
      >>> import tempfile, pathlib, jax, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
      >>> sgd = optax.inject_hyperparams(optax.sgd)(0.5)
      >>> log = training.JsonLog(path)
      >>> _ = training.fit(rule, sgd, 0.0, (3.0,), steps=2, chunk=1, log=log)
      >>> print(path.read_text(), end="")
      {"step": 1, "learning_rate": 0.5, "skipped": 0, "value": 9.0}
      {"step": 2, "learning_rate": 0.5, "skipped": 0, "value": 0.0}
    """

    def __init__(self, path: str | os.PathLike, more: Any = None):
        self._path, self._more = Path(path), more
        self._writes = jax.process_index() == 0

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Append a line."""
        shown = {name: metrics[name] for name in metrics if name not in NOT_LOGGED}
        if self._more is not None:
            shown |= self._more(step, metrics)
        line = json.dumps({"step": step} | jax.tree.map(_plain, shown))
        if self._writes:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(line + "\n")

    def resume(self, step: int) -> None:
        """Cut off the lines of later steps; :func:`fit` calls it."""
        if not self._writes or not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines(keepends=True):
            if not line.endswith("\n") or _step_of(line) > step:
                break
            kept.append(line)
        beside = self._path.with_name(self._path.name + ".tmp")
        beside.write_text("".join(kept))
        os.replace(beside, self._path)  # atomic: a kill leaves the old or the new file


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return np.inf


def _plain(leaf: Any) -> Any:
    """Return Python numbers, with None for those that are not finite."""
    array = np.asarray(leaf)
    if array.dtype.kind not in "fiub":  # bfloat16 and similar
        array = array.astype(np.float32)
    finite = lambda number: number if np.isfinite(number) else None
    if array.ndim == 0:
        return finite(array.item())
    flat = [finite(number) for number in array.ravel().tolist()]
    return np.array(flat, object).reshape(array.shape).tolist()
