"""Params on disk: written by `save` and read by `load`, without pickle.

The folder has the format of a checkpoint of `fit`, with a single checkpoint. If all
containers of the params are dicts, lists and tuples, their nesting is stored as JSON,
so `load` needs no other params of the same structure.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpvariants._checks import check_arrays, ONLY_ARRAYS
from bpvariants._dtypes import is_key
from bpvariants._settings import check_flag, check_path
from bpvariants.training._lock import Lock
from bpvariants.training.checkpoints._keeping import BestKept, open_reader, open_writer
from bpvariants.training.checkpoints._leaves import (
    checksum,
    describe,
    differences,
    put_back,
    writable,
)
from bpvariants.training.checkpoints._store import (
    of_state,
    read_arrays,
    read_meta,
    sum_of,
)
from bpvariants.training.loop._state import own, TrainState
from bpvariants.types import PyTree


def save(path: str | os.PathLike, params: PyTree, *, overwrite: bool = False) -> None:
    """Write params, or any other pytree of arrays, to a folder.

    The folder is complete or absent, even if the process is killed while it writes.
    With `overwrite`, either the old params or the new params can be read at any time.
    The files are written by the package `orbax-checkpoint`, and contain no pickle.
    Python numbers become arrays. To save the whole state of a training, so that it can
    continue, use :class:`Checkpoint` instead.

    Args:
      path: the folder to write, which must not exist or must be empty.
      params: pytree of arrays, such as `result.params` of :func:`fit`.
      overwrite: whether the folder may contain params that `save` has written; they are
        replaced.

    Raises:
      ImportError: if the package orbax-checkpoint is not installed.
      ValueError: if the folder is in use or contains other files, or contains saved
        params and `overwrite` is False; if params have no arrays.

    Example:
      >>> import pathlib, tempfile, jax.numpy as jnp
      >>> from bpvariants import training
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "model"
      >>> training.save(path, {"w": jnp.ones(2), "layers": [jnp.zeros(3)]})
      >>> params = training.load(path)
      >>> params["w"].tolist(), params["layers"][0].tolist()
      ([1.0, 1.0], [0.0, 0.0, 0.0])
    """
    check_path("path", path)
    check_flag("overwrite", overwrite)
    check_arrays("params", params, ONLY_ARRAYS)
    if not jax.tree.leaves(params):
        raise ValueError("params has no arrays to save; give a pytree of arrays.")
    folder, state = Path(path).absolute(), TrainState(own(params), None, None)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"path {folder} is a file; give a folder that does not exist.")
    with Lock.of_folder(folder, "path"):
        steps = _check_free(folder, overwrite)
        with closing(open_writer(folder, 1, BestKept())) as manager:
            _write(manager, max(steps, default=-1) + 1, state)


def load(path: str | os.PathLike, like: PyTree | None = None) -> PyTree:
    """Read params that :func:`save` has written, or those of the latest checkpoint.

    Args:
      path: the folder that was given to `save`, or to :class:`Checkpoint`.
      like: pytree with the structure, shapes, dtypes and shardings of the saved params,
        such as newly initialised params. It may be left out if `save` has written the
        folder, and all containers of the params are dicts, lists and tuples.

    Returns:
      The params. If `like` is left out, all arrays are on the default device.

    Raises:
      ImportError: if the package orbax-checkpoint is not installed.
      ValueError: if the folder does not exist or has no saved params; if the saved
        params differ from `like`, or need `like`; or if the files are damaged.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from bpvariants import training
      >>> path = tempfile.mkdtemp()  # `save` may write to an empty folder
      >>> training.save(path, (jnp.arange(3), 2.5))
      >>> numbers, rate = training.load(path)
      >>> numbers.tolist(), rate.item()
      ([0, 1, 2], 2.5)
    """
    check_path("path", path)
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise ValueError(
            f"path {folder} does not exist; give the folder that training.save wrote."
        )
    if like is not None:
        check_arrays("like", like, ONLY_ARRAYS)
    with closing(open_reader(folder)) as manager:
        if not manager.all_steps():
            raise ValueError(f"path {folder} holds no params of training.save.")
        step = max(manager.all_steps())
        try:
            meta = read_meta(manager, step)
        except Exception as error:  # damaged files raise many kinds of errors
            raise ValueError(f"path {folder} cannot be read: {error}") from error
        state = TrainState(own(_like(folder, meta, like)), None, None)
        saved = [each for each in meta["state"] if each[0].startswith(".params")]
        if found := "; ".join(
            differences({"state": saved}, {"state": describe(state)})
        ):
            if like is not None:
                raise ValueError(f"like does not match the saved params: {found}.")
            raise ValueError(
                f"path {folder} holds arrays that JAX does not represent with its "
                f"settings: {found}. Set jax_enable_x64 as when they were saved."
            )
        try:
            arrays = read_arrays(manager, step, meta, state)
        except Exception as error:
            raise ValueError(f"path {folder} cannot be read: {error}") from error
        return put_back(of_state(arrays), state).params


def _check_free(folder: Path, overwrite: bool) -> list[int]:
    """Check that a locked folder may be written to; return the steps saved in it."""
    # A process that was killed while it wrote leaves a folder with "tmp" in its name.
    names = [each.name for each in folder.iterdir() if each.name != ".lock"]
    names = [name for name in names if "orbax-checkpoint-tmp" not in name]
    if not names:
        return []
    with closing(open_reader(folder)) as manager:
        steps = [step for step in manager.all_steps() if _is_ours(manager, step)]
    others = sorted({*names} - {*map(str, steps)})
    if others:
        raise ValueError(
            f"path {folder} holds files that training.save has not written, such as "
            f"{others[0]}; choose another path."
        )
    if not overwrite:
        raise ValueError(
            f"path {folder} holds saved params; choose another path, or give "
            "overwrite=True."
        )
    return steps


def _is_ours(manager: Any, step: int) -> bool:
    """Return whether `save`, and not a training, has written a checkpoint."""
    try:
        return "containers" in read_meta(manager, step)
    except Exception:  # damaged files raise many kinds of errors
        return False


def _write(manager: Any, step: int, state: TrainState) -> None:
    import orbax.checkpoint as ocp

    arrays = {f"state{name}": leaf for name, leaf in writable(state).items()}
    meta = {
        "state": describe(state),
        "containers": _containers(state.params),
        "best": None,
        "arrays": {
            name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in arrays.items()
        },
        "sums": {name: checksum(leaf) for name, leaf in arrays.items()},
    }
    meta["sum"] = sum_of(meta)
    manager.save(
        step,
        args=ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
        ),
        force=True,
    )
    manager.wait_until_finished()


def _like(folder: Path, meta: dict[str, Any], like: PyTree | None) -> PyTree:
    """Return a tree of the saved structure, shapes and dtypes."""
    if like is not None:
        return like
    if "containers" not in meta:
        raise ValueError(
            f"path {folder} holds checkpoints of a training; give like=, params of the "
            "same structure, such as newly initialised ones."
        )
    if meta["containers"] is None:
        raise ValueError(
            f"path {folder} holds params with random keys, or with containers other "
            "than dicts, lists and tuples, such as the nnx.State of an NNX module; give"
            " like=, newly initialised params, such as those that adapters.from_nnx "
            "returns."
        )
    leaves = iter(meta["state"])

    def build(node: Any) -> PyTree:
        kind, parts = node
        if kind == "leaf":
            _, shape, dtype = next(leaves)
            return np.zeros(shape, dtype)
        if kind == "dict":
            return {name: build(part) for name, part in parts}
        return {"list": list, "tuple": tuple, "none": lambda _: None}[kind](
            build(part) for part in parts
        )

    return build(meta["containers"])


class _OtherContainerError(Exception):
    """Error for a container or a leaf that JSON cannot describe."""


def _containers(tree: PyTree) -> Any:
    """Return the nesting of dicts, lists and tuples as JSON; None if it has others."""
    try:
        return _nesting(tree)
    except _OtherContainerError:
        return None


def _nesting(tree: PyTree) -> list:
    if tree is None:
        return ["none", []]
    if type(tree) is dict and all(isinstance(name, str) for name in tree):
        # JAX flattens the entries of a dict in the order of their names.
        return ["dict", [[name, _nesting(tree[name])] for name in sorted(tree)]]
    if type(tree) in (list, tuple):
        return [type(tree).__name__, [_nesting(part) for part in tree]]
    if jax.tree_util.all_leaves([tree]) and not is_key(tree):
        return ["leaf", []]
    raise _OtherContainerError
