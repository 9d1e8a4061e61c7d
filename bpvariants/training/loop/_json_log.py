"""Log file of JSON lines that a resumed training continues without gap or duplicate."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpvariants._dtypes import is_key
from bpvariants._settings import called, check_path

NOT_LOGGED = ("params", "values")


class JsonLog:
    """Log for :func:`fit` that appends one line of JSON to a file after each chunk.

    A line contains the `step` and all metrics except `params` and `values`. NaN and
    infinity are written as null. When a training resumes from a checkpoint, an
    incomplete last line and all lines of steps after the checkpoint are removed.
    Therefore, a resumed training has the same log file as an uninterrupted training. If
    a new training starts and the file already has lines, an error is raised. If several
    processes train together, only the first process writes the file.

    Args:
      path: the log file; the file and its folder are created if they do not exist.
      more: function (step, metrics) -> dict of further entries of the line, such as a
        validation loss. Values in this dict that are neither numbers nor arrays of
        numbers are written as text.

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
        check_path("path", path)
        if more is not None and not callable(more):
            raise ValueError(
                f"more must be a function (step, metrics) -> dict, got {more!r}."
            )
        self._path, self._more = Path(path), more
        self._writes = jax.process_index() == 0

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Append a line with the step and the metrics."""
        shown = {name: metrics[name] for name in metrics if name not in NOT_LOGGED}
        if self._more is not None:
            shown |= _checked(called("more(step, metrics)", self._more, step, metrics))
        line = json.dumps({"step": step} | _plain(shown))
        if self._writes:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(line + "\n")

    def begin(self) -> None:
        """Raise an error if the file has lines; called by `fit` before a new training.

        Raises:
          ValueError: if the file is not empty, or cannot be written to.
        """
        self._make()
        if self._writes and self._path.stat().st_size:
            raise ValueError(
                f"path {self._path} holds lines of another training. Choose another "
                "path, or delete the file."
            )

    def resume(self, step: int) -> None:
        """Remove lines of steps after `step`; called by `fit` before it resumes."""
        self._make()
        if not self._writes:
            return
        kept = []
        for line in self._path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or _step_of(line) > step:
                break
            kept.append(line)
        beside = self._path.with_name(self._path.name + ".tmp")
        beside.write_bytes(b"".join(kept))
        os.replace(beside, self._path)  # atomic: no partial file remains

    def _make(self) -> None:
        """Create the file if it does not exist; check that it can be written to."""
        if not self._writes:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("ab").close()
        except OSError as error:
            raise ValueError(
                f"path {self._path} cannot be written to: {error.strerror}. Choose "
                "another path."
            ) from error


def _checked(more: Any) -> dict[str, Any]:
    if not isinstance(more, dict) or "step" in more:
        raise ValueError(
            "more must return a dict of entries other than 'step', such as "
            f"{{'test_loss': 0.1}}; it returned {more!r}."
        )
    return more


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return np.inf


def _plain(leaf: Any) -> Any:
    """Return a value as Python numbers (None for NaN and infinity), or else as text.

    The values in a mapping or a sequence are converted, and a mapping's keys become
    text.
    """
    if leaf is None:
        return None
    if isinstance(leaf, Mapping):
        names = sorted(leaf, key=str)
        return {str(name): _plain(leaf[name]) for name in names}
    if isinstance(leaf, list | tuple):
        return [_plain(each) for each in leaf]
    array = np.asarray(None) if is_key(leaf) else np.asarray(leaf)
    if array.dtype.kind in "OSUMmc":
        return str(leaf)
    if array.dtype.kind not in "fiub":  # bfloat16 has kind V
        array = array.astype(np.float32)
    finite = lambda number: number if np.isfinite(number) else None
    if array.ndim == 0:
        return finite(array.item())
    flat = [finite(number) for number in array.ravel().tolist()]
    return np.array(flat, object).reshape(array.shape).tolist()
