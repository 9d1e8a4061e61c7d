"""Checkpoints of a training by orbax: whole ones only, the last few and the best."""

import dataclasses
import json
import math
import os
import warnings
import zlib
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bpvariants.training._leaves import (
    abstract,
    checksum,
    describe,
    differences,
    put_back,
    writable,
)
from bpvariants.training._state import Reached, TrainState

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
    shapes, hyper-parameters that the state of the update does not hold.

    Attributes:
      directory: a folder of its own for each training.
      every: after how many steps to write, at the end of the chunk that they fall in;
        by default after each chunk. The end is always written.
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
        for name, value in {"every": self.every, "keep": self.keep}.items():
            wrong = not isinstance(value, Integral) or value < 1
            if wrong and not (name == "every" and value is None):
                raise ValueError(
                    f"{name} must be an integer of at least 1, got {value!r}."
                )


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
        self._manager = _open(self._folder, settings)
        self.last = 0  # the step of the last one
        steps = self._manager.all_steps()
        if steps and not settings.resume:
            self.close()
            raise ValueError(
                f"directory {self._folder} holds checkpoints, up to step {max(steps)}; "
                "choose another one, or resume=True to go on from them."
            )

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
            "values": [list(values.shape), str(values.dtype)],
            "skipped": reached.skipped.tolist(),
            "bad": reached.bad.tolist(),
            "alive": np.asarray(reached.alive).tolist(),
            "stopped": stopped,
        }
        arrays = {
            f"state{name}": leaf for name, leaf in writable(reached.state).items()
        }
        if values.size:
            arrays["values"] = np.array(values)
        meta["sums"] = {name: checksum(leaf) for name, leaf in arrays.items()}
        meta["sum"] = _sum_of(meta)
        best = self.settings.best
        measured = None if best is None else {"best": _measure(best, metrics())}
        self._manager.save(
            reached.steps,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
            ),
            metrics=measured,
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
                meta = self._read_meta(step)
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

    def _read_meta(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(step, args=args).meta
        if meta.pop("sum") != _sum_of(meta):
            raise OSError("its description is not what was written")
        return meta

    def _read(self, step: int, meta: dict[str, Any], fresh: Reached) -> Restored:
        import orbax.checkpoint as ocp

        wanted: dict[str, Any] = {
            f"state{name}": leaf for name, leaf in abstract(fresh.state).items()
        }
        shape, dtype = meta["values"]
        if math.prod(shape):
            wanted["values"] = np.empty(shape, dtype)
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(wanted))
        arrays = dict(self._manager.restore(step, args=args).arrays)
        for name, leaf in arrays.items():
            if checksum(leaf) != meta["sums"][name]:
                raise OSError(f"{name} is not what was written")
        values = arrays.pop("values", None)
        leaves = {name.removeprefix("state"): leaf for name, leaf in arrays.items()}
        state: TrainState = put_back(leaves, fresh.state)
        alive = jax.device_put(np.asarray(meta["alive"]), fresh.alive.sharding)
        counts = np.asarray(meta["skipped"]), np.asarray(meta["bad"])
        reached = Reached(jax.block_until_ready(state), alive, meta["steps"], *counts)
        return Restored(reached, values, meta["stopped"])

    def _put_aside(self, step: int, error: Exception) -> None:
        folder = self._folder / str(step)
        warnings.warn(
            f"The checkpoint {folder} cannot be read, and is renamed to {step}.torn; "
            f"the one before is taken. ({type(error).__name__}: {str(error)[:200]})",
            stacklevel=2,
        )
        if jax.process_index() == 0 and folder.exists():
            os.replace(folder, folder.with_name(f"{step}.torn"))
        self._manager.reload()


def _open(folder: Path, settings: Checkpoint) -> Any:
    try:
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies
    except ImportError as error:
        raise ImportError(
            "checkpoint needs orbax-checkpoint: pip install orbax-checkpoint"
        ) from error
    kept: list[Any] = [policies.LatestN(settings.keep)]
    if settings.best is not None:
        least = policies.BestN(get_metric_fn=lambda m: m["best"], reverse=True, n=1)
        kept.append(least)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        cleanup_tmp_directories=True,  # of processes that were killed
    )
    return ocp.CheckpointManager(folder, options=options)


def _sum_of(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _measure(best: Best, metrics: dict[str, Any]) -> float:
    if isinstance(best, str) and best not in metrics:
        raise ValueError(f"best must be one of {sorted(metrics)}, got {best!r}.")
    found = metrics[best] if isinstance(best, str) else best(metrics)
    number = float(np.mean(np.asarray(found, float)))
    return math.inf if math.isnan(number) else number
