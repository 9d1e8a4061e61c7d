"""Function that reads the params of the latest or the best checkpoint."""

import os
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

from bpvariants._checks import check_arrays, ONLY_ARRAYS
from bpvariants._settings import check_path
from bpvariants.training.checkpoints._keeping import open_reader
from bpvariants.training.checkpoints._leaves import describe, differences, put_back
from bpvariants.training.checkpoints._store import of_state, read_arrays, read_meta
from bpvariants.training.loop._state import own, TrainState
from bpvariants.types import PyTree


def read_checkpoint(
    directory: str | os.PathLike, params: PyTree, *, best: bool = False
) -> tuple[int, PyTree]:
    """Return the number of steps and the params of a checkpoint of :func:`fit`.

    No file of the folder is changed, so the training that writes the checkpoints may
    still be running. A damaged checkpoint is skipped with a warning; the previous
    checkpoint (with `best`, the next best) is read instead.

    Args:
      directory: the folder given to :class:`Checkpoint`.
      params: pytree with the names, shapes, dtypes and shardings of the saved params,
        such as the initial params. If the training has several `runs`, each leaf has a
        first axis of runs.
      best: whether to read the checkpoint with the best score, see
        `Checkpoint(best=…)`, instead of the latest checkpoint.

    Returns:
      (steps, params): the number of training steps taken before the checkpoint, and the
      params after these steps.

    Raises:
      ValueError: if the folder has no readable checkpoint, or if the saved params
        differ from `params` in names, shapes or dtypes.

    Example:
      >>> import tempfile, jax, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> folder = tempfile.mkdtemp()
      >>> checkpoint = training.Checkpoint(folder, keep=1, best="value")
      >>> given = {"steps": 3, "chunk": 1, "checkpoint": checkpoint}
      >>> batches = [(3.0,), (0.0,), (9.0,)]
      >>> result = training.fit(rule, optax.sgd(0.5), 0.0, batches, **given)
      >>> result.values.tolist()
      [9.0, 9.0, 81.0]
      >>> step, w = training.read_checkpoint(folder, 0.0, best=True)
      >>> step, w.item()
      (1, 3.0)
    """
    check_path("directory", directory)
    check_arrays("params", params, ONLY_ARRAYS)
    state, folder = TrainState(own(params), None, None), Path(directory).absolute()
    found = None
    if folder.is_dir():
        with closing(open_reader(folder)) as manager:
            found = _read(manager, folder, state, best)
    if found is None:
        raise ValueError(
            f"directory {folder} holds no checkpoint"
            f"{' saved with Checkpoint(best=…)' if best else ''} that can be read."
        )
    return found


def _read(
    manager: Any, folder: Path, state: TrainState, best: bool
) -> tuple[int, PyTree] | None:
    metas = _metas(manager, folder)
    if best:
        metas = {step: meta for step, meta in metas.items() if meta["best"] is not None}
    for step in sorted(metas, key=lambda step: metas[step]["best"] if best else -step):
        saved = [each for each in metas[step]["state"] if each[0].startswith(".params")]
        if found := differences({"state": saved}, {"state": describe(state)}):
            raise ValueError(f"params do not match the checkpoint: {'; '.join(found)}.")
        try:
            arrays = read_arrays(manager, step, metas[step], state)
        except Exception as error:  # damaged files raise many kinds of errors
            _pass_over(folder / str(step), error)
            continue
        return step, put_back(of_state(arrays), state).params
    return None


def _metas(manager: Any, folder: Path) -> dict[int, dict[str, Any]]:
    """Return a dict from step to metadata, for checkpoints with readable metadata."""
    metas = {}
    for step in manager.all_steps():
        try:
            metas[step] = read_meta(manager, step)
        except Exception as error:
            _pass_over(folder / str(step), error)
    return metas


def _pass_over(folder: Path, error: Exception) -> None:
    warnings.warn(
        f"The checkpoint {folder} cannot be read and is skipped. "
        f"({type(error).__name__}: {str(error)[:200]})",
        stacklevel=5,
    )
