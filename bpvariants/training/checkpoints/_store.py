"""Folder with the checkpoints of a training, written and read by orbax."""

import contextlib
import itertools
import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bpvariants.training._lock import Lock
from bpvariants.training.checkpoints._checkpoint import Checkpoint
from bpvariants.training.checkpoints._keeping import BestKept, measure, open_writer
from bpvariants.training.checkpoints._leaves import (
    abstract,
    checksum,
    describe,
    differences,
    put_back,
    writable,
)
from bpvariants.training.loop._state import Reached
from bpvariants.types import PyTree


class Restored(NamedTuple):
    reached: Reached
    values: np.ndarray | None
    stopped: str | None


class Store:
    """Folder with the checkpoints of one training."""

    def __init__(self, settings: Checkpoint, **identity: Any):
        """Open the folder. A resumed training must have an equal dict `identity`."""
        self.settings = settings
        identity |= {"config": settings.config}
        self._identity = json.loads(json.dumps(identity, default=str))
        self._folder = Path(settings.directory).absolute()
        self._best = BestKept()
        self.last = 0  # step of the checkpoint that was written or restored last
        # Any file in the folder shows that a training has begun, because a training
        # that is killed before its first checkpoint leaves files in the folder.
        self.begun = self._folder.is_dir() and any(self._folder.iterdir())
        self._closing = contextlib.ExitStack()
        if jax.process_index() == 0:
            self._closing.callback(Lock.of_folder(self._folder, "directory").release)
        try:
            self._open()
        except BaseException:
            self._closing.close()
            raise

    def _open(self) -> None:
        settings = self.settings
        self._manager = open_writer(self._folder, settings.keep, self._best)
        self._closing.callback(self._manager.close)
        steps = self._manager.all_steps()
        if steps and not settings.resume:
            raise ValueError(
                f"directory {self._folder} holds checkpoints, up to step {max(steps)}; "
                "choose another directory, or give resume=True to continue from them."
            )
        for step in steps if settings.best is not None else ():
            with contextlib.suppress(Exception):  # `restore` warns of damage
                best = read_meta(self._manager, step)["best"]
                self._best.scores |= {} if best is None else {step: best}

    def check_best(self, names: list[str]) -> None:
        """Check that `best`, if it is a string, is the name of a metric."""
        best = self.settings.best
        if isinstance(best, str) and best not in names:
            raise ValueError(f"best must be one of {sorted(names)}, got {best!r}.")

    def is_due(self, steps: int) -> bool:
        """Return whether to write a checkpoint after training step number `steps`."""
        every = self.settings.every or 1
        return steps // every > self.last // every

    def save(
        self,
        reached: Reached,
        values: np.ndarray,
        stopped: str | None,
        metrics: Callable[[], dict[str, Any]],
    ) -> None:
        """Start to write a checkpoint; after the call, the state may be overwritten."""
        import orbax.checkpoint as ocp

        meta = self._identity | {
            "state": describe(reached.state),
            "steps": reached.steps,
            "skipped": reached.skipped.tolist(),
            "bad": reached.bad.tolist(),
            "alive": np.asarray(reached.alive).tolist(),
            "stopped": stopped,
            "best": None,
        }
        if self.settings.best is not None:
            meta["best"] = measure(self.settings.best, metrics())
            self._best.scores[reached.steps] = meta["best"]
        arrays = {
            f"state{name}": leaf for name, leaf in writable(reached.state).items()
        }
        if values.size:
            arrays["values"] = np.array(values)
        meta["arrays"] = {
            name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in arrays.items()
        }
        meta["sums"] = {name: checksum(leaf) for name, leaf in arrays.items()}
        meta["sum"] = sum_of(meta)
        with self._explained():
            self._manager.save(
                reached.steps,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
        self.last = reached.steps

    def restore(self, fresh: Reached) -> Restored | None:
        """Return the latest undamaged checkpoint, or None; `fresh` is a new state.

        Raises:
          ValueError: if the checkpoint is from a different training.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                meta = read_meta(self._manager, step)
            except Exception as error:  # damaged files raise many kinds of errors
                self._put_aside(step, error)
                continue
            given = self._identity | {"state": describe(fresh.state)}
            if found := differences(meta, given):
                raise ValueError(
                    f"checkpoint: {self._folder / str(step)} is from a different "
                    f"training: {'; '.join(found)}. Give the arguments of that "
                    "training, or choose another directory."
                )
            try:
                restored = self._read(step, meta, fresh)
            except Exception as error:
                self._put_aside(step, error)
                continue
            self.last = step
            return restored
        return None

    def close(self) -> None:
        """Wait until pending checkpoints are written, then close the folder."""
        with self._closing, self._explained():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """If a checkpoint cannot be written, add advice on resuming to the error."""
        try:
            yield
        except Exception as error:
            error.add_note(
                f"A checkpoint could not be written to {self._folder}. Those before it "
                "are intact: call fit again to resume from the last of them."
            )
            raise

    def _read(self, step: int, meta: dict[str, Any], fresh: Reached) -> Restored:
        arrays = read_arrays(self._manager, step, meta, fresh.state)
        state = put_back(of_state(arrays), fresh.state)
        alive = jax.device_put(np.asarray(meta["alive"]), fresh.alive.sharding)
        counts = np.asarray(meta["skipped"]), np.asarray(meta["bad"])
        reached = Reached(jax.block_until_ready(state), alive, meta["steps"], *counts)
        return Restored(reached, arrays.get("values"), meta["stopped"])

    def _put_aside(self, step: int, error: Exception) -> None:
        folder = self._folder / str(step)
        warnings.warn(
            f"The checkpoint {folder} cannot be read and is renamed to {step}.torn; "
            f"the one before is used. ({type(error).__name__}: {str(error)[:200]})",
            stacklevel=2,
        )
        if jax.process_index() == 0 and folder.exists():
            os.replace(folder, _free(folder.with_name(f"{step}.torn")))
        self._manager.reload()


def read_meta(manager: Any, step: int) -> dict[str, Any]:
    """Return the metadata of a checkpoint; raise an error if the file is damaged."""
    import orbax.checkpoint as ocp

    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    meta = manager.restore(step, args=args).meta
    if meta.pop("sum") != sum_of(meta):
        raise OSError("its metadata is not what was written")
    return meta


def read_arrays(manager: Any, step: int, meta: dict[str, Any], like: PyTree) -> dict:
    """Return a checkpoint's arrays; the state's arrays are on the devices of `like`."""
    import orbax.checkpoint as ocp

    wanted: dict[str, Any] = {
        name: np.empty(shape, dtype) for name, (shape, dtype) in meta["arrays"].items()
    }
    wanted |= {f"state{name}": leaf for name, leaf in abstract(like).items()}
    args = ocp.args.Composite(arrays=ocp.args.StandardRestore(wanted))
    arrays = dict(manager.restore(step, args=args).arrays)
    for name, leaf in arrays.items():
        if checksum(leaf) != meta["sums"][name]:
            raise OSError(f"{name} is not what was written")
    return arrays


def _free(path: Path) -> Path:
    """Return `path`; if a file of this name exists, append a number to the path."""
    numbered = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(each for each in itertools.chain([path], numbered) if not each.exists())


def of_state(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of the training state, as a dict from leaf index to array."""
    return {
        name.removeprefix("state"): leaf
        for name, leaf in arrays.items()
        if name.startswith("state")
    }


def sum_of(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
