"""Checkpoints on disk by orbax: whole ones only, the last few and the best."""

import contextlib
import itertools
import json
import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bpvariants.training.checkpoints._checkpoint import Checkpoint
from bpvariants.training.checkpoints._keeping import Kept, measure, open_manager
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
    """What a checkpoint holds."""

    reached: Reached
    values: np.ndarray | None
    stopped: str | None


class Store:
    """The checkpoints of one training in their folder."""

    def __init__(self, settings: Checkpoint, **identity: Any):
        """Open the folder; `identity` is what has to be the same to resume."""
        self.settings = settings
        identity |= {"config": settings.config}
        self._identity = json.loads(json.dumps(identity, default=str))
        self._folder = Path(settings.directory).absolute()
        self._kept = Kept(settings.keep)
        self._manager = open_manager(self._folder, self._kept)
        self.last = 0  # the step of the last one
        steps = self._manager.all_steps()
        if steps and not settings.resume:
            self.close()
            raise ValueError(
                f"directory {self._folder} holds checkpoints, up to step {max(steps)}; "
                "choose another one, or resume=True to go on from them."
            )
        for step in steps if settings.best is not None else ():
            with contextlib.suppress(Exception):  # `restore` tells of what is torn
                best = read_meta(self._manager, step)["best"]
                self._kept.measured |= {} if best is None else {step: best}

    def is_due(self, steps: int) -> bool:
        """Return whether to write one after so many steps."""
        every = self.settings.every or 1
        return steps // every > self.last // every

    def save(
        self,
        reached: Reached,
        values: np.ndarray,
        stopped: str | None,
        metrics: Callable[[], dict[str, Any]],
    ) -> None:
        """Begin to write a checkpoint; its arrays may be written over at once."""
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
            self._kept.measured[reached.steps] = meta["best"]
        arrays = {
            f"state{name}": leaf for name, leaf in writable(reached.state).items()
        }
        if values.size:
            arrays["values"] = np.array(values)
        meta["arrays"] = {
            name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in arrays.items()
        }
        meta["sums"] = {name: checksum(leaf) for name, leaf in arrays.items()}
        meta["sum"] = _sum_of(meta)
        self._manager.save(
            reached.steps,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
            ),
            force=True,
        )
        self.last = reached.steps

    def restore(self, fresh: Reached) -> Restored | None:
        """Return the last one that is whole, in the arrays of a fresh start, or None.

        Raises:
          ValueError: if it is of a training that was another.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                meta = read_meta(self._manager, step)
            except Exception as error:  # of many kinds, whatever the damage
                self._put_aside(step, error)
                continue
            given = self._identity | {"state": describe(fresh.state)}
            if found := differences(meta, given):
                raise ValueError(
                    f"checkpoint: {self._folder / str(step)} is of another training: "
                    f"{'; '.join(found)}. Give what it was given, or choose another "
                    "directory."
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
        """Wait until all is written."""
        self._manager.wait_until_finished()
        self._manager.close()

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
            f"The checkpoint {folder} cannot be read, and is renamed to {step}.torn; "
            f"the one before is taken. ({type(error).__name__}: {str(error)[:200]})",
            stacklevel=2,
        )
        if jax.process_index() == 0 and folder.exists():
            os.replace(folder, _free(folder.with_name(f"{step}.torn")))
        self._manager.reload()


def read_meta(manager: Any, step: int) -> dict[str, Any]:
    """Return what a checkpoint says of itself; raise, if it is torn."""
    import orbax.checkpoint as ocp

    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    meta = manager.restore(step, args=args).meta
    if meta.pop("sum") != _sum_of(meta):
        raise OSError("its description is not what was written")
    return meta


def read_arrays(manager: Any, step: int, meta: dict[str, Any], like: PyTree) -> dict:
    """Return all arrays, those of a state that is given on the devices of it."""
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
    """Return the path, or one like it that is not there: it may have torn before."""
    numbered = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(each for each in itertools.chain([path], numbered) if not each.exists())


def of_state(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves of the state by their number."""
    return {
        name.removeprefix("state"): leaf
        for name, leaf in arrays.items()
        if name.startswith("state")
    }


def _sum_of(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
