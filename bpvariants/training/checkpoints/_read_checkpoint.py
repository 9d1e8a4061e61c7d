"""Reading the params of a checkpoint, such as the best."""

import os
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

from bpvariants.training.checkpoints._keeping import open_manager
from bpvariants.training.checkpoints._leaves import describe, differences, put_back
from bpvariants.training.checkpoints._store import of_state, read_arrays, read_meta
from bpvariants.training.loop._state import own, TrainState
from bpvariants.types import PyTree


def read_checkpoint(
    directory: str | os.PathLike, params: PyTree, *, best: bool = False
) -> tuple[int, PyTree]:
    """Return the step and the params of a checkpoint that :func:`fit` wrote.

    Nothing is changed there, so it may be one of a training that is running. What is
    torn is passed over, with a warning, and the one before, or the next best, is taken.

    Args:
      directory: the folder of checkpoints.
      params: what they are like: arrays of their shapes, dtypes and shardings, such as
        those that the training began with; with `runs`, all of them.
      best: those of the best checkpoint, as `Checkpoint(best=…)` has it; by default
        those of the last one.

    Returns:
      (step, params).

    Raises:
      ValueError: if there is no such checkpoint, or its params are not like those.

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
    state, folder = TrainState(own(params), None, None), Path(directory).absolute()
    found = None
    if folder.is_dir():
        with closing(open_manager(folder, None)) as manager:
            found = _read(manager, folder, state, best)
    if found is None:
        raise ValueError(
            f"directory {folder} holds no checkpoint"
            f"{' of Checkpoint(best=…)' if best else ''} that can be read."
        )
    return found


def _read(
    manager: Any, folder: Path, state: TrainState, best: bool
) -> tuple[int, PyTree] | None:
    """Return the step and the params of the first one, in order, that is whole."""
    metas = _metas(manager, folder)
    if best:
        metas = {step: meta for step, meta in metas.items() if meta["best"] is not None}
    for step in sorted(metas, key=lambda step: metas[step]["best"] if best else -step):
        saved = [each for each in metas[step]["state"] if each[0].startswith(".params")]
        if found := differences({"state": saved}, {"state": describe(state)}):
            raise ValueError(
                f"params are not as in the checkpoint: {'; '.join(found)}."
            )
        try:
            arrays = read_arrays(manager, step, metas[step], state)
        except Exception as error:  # of many kinds, whatever the damage
            _pass_over(folder / str(step), error)
            continue
        return step, put_back(of_state(arrays), state).params
    return None


def _metas(manager: Any, folder: Path) -> dict[int, dict[str, Any]]:
    """Return what each checkpoint says of itself, those that are whole."""
    metas = {}
    for step in manager.all_steps():
        try:
            metas[step] = read_meta(manager, step)
        except Exception as error:
            _pass_over(folder / str(step), error)
    return metas


def _pass_over(folder: Path, error: Exception) -> None:
    warnings.warn(
        f"The checkpoint {folder} cannot be read, and is passed over. "
        f"({type(error).__name__}: {str(error)[:200]})",
        stacklevel=5,
    )
