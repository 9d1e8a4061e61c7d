"""Sweeps: train each config with each seed, several runs at a time under `vmap`.

Runs whose configs differ only in floats share a compiled program; runs that differ in
other fields, such as layer sizes, have separate programs. A program trains one block of
runs at a time: as many runs as fit in memory, divided over the devices. A run that
stops or diverges is frozen and does not affect other runs.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax

from bpvariants._checks import check_count
from bpvariants._settings import called, check_flag, check_path
from bpvariants.training._interrupts import held
from bpvariants.training._lock import Lock
from bpvariants.training.sweeps._block import Clock, run_block, stacked
from bpvariants.training.sweeps._compile import Block, compile_block
from bpvariants.training.sweeps._file import append_rows, read_rows
from bpvariants.training.sweeps._result import SweepGroup, SweepResult
from bpvariants.training.sweeps._runs import all_runs, Group

Metrics = dict[str, jax.Array]
Progress = Callable[[int, int, float], None]


def sweep(
    make_run: Callable[[Any, jax.Array], tuple],
    configs: Sequence[Any],
    seeds: Sequence[int],
    *,
    steps: int,
    chunk: int = 100,
    stop: Callable[[Metrics], jax.Array] | None = None,
    diverged: Callable[[Metrics], jax.Array] | None = None,
    block: int | None = None,
    max_bytes: int | None = None,
    devices: Sequence[Any] | None = None,
    path: str | os.PathLike | None = None,
    curves: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Train each config with each seed, with as many runs at a time as fit in memory.

        state, advance = make_run(config, jax.random.key(seed))
        for t in range(steps): state, metrics = advance(state, t)

    Each run ends with a status. `finished`: all steps were taken. `stopped`: `stop`
    returned True. `diverged`: `diverged` returned True, a metric was not finite, or the
    state contained NaN. The state of a run that has ended stays frozen. A block of
    runs, which train at the same time under `vmap`, ends when all its runs have ended.
    No run affects another run, and devices exchange no data.

    The result of a run does not depend on its position in a block of runs. Results are
    bit-identical for equal block sizes on equal devices. If the number of runs in a
    block or the number of devices changes, XLA may order sums differently. On CPU, in
    float32, the order of sums changed the losses of a small network by 2e-7 after 10
    steps of Adam, and by 1e-6 after 200 steps.

    Args:
      make_run: a pure function (config, key) -> (state, advance), or (state, advance,
        evaluate), which is traced under `vmap`. `state` is a pytree of arrays.
        `advance(state, t) -> (state, metrics)` takes training step t; metrics are a
        dict of scalars. `evaluate(state) -> metrics` is called once, after the last
        step. The step number `t` counts from 0 and is equal in all runs of a block, so
        `lax.cond` on `t` runs only one branch. Random values that make_run draws, but
        does not put into the state, are computed again in each chunk of steps, from the
        same key.
      configs: sequence of dicts, dataclasses or NamedTuples, all with the same fields.
        Floats are traced. Ints, bools, strings, None and tuples are static; runs that
        differ in a static field have separate compiled programs. If a field is a float
        in one config, ints in that field of other configs count as floats.
      seeds: sequence of integers; each config is run with each seed.
      steps: number of training steps of a run, unless the run ends earlier.
      chunk: number of training steps in one jitted call. After each call, the sweep
        checks whether all runs of the block have ended, and calls `progress`.
      stop: function metrics -> bool, which is traced; True ends the run. `stop` gets
        only the metrics of one step. For a criterion that depends on earlier steps,
        such as patience, store a counter in the state and return it in the metrics.
      diverged: function metrics -> bool, which is traced. True ends the run with the
        status `diverged`. A NaN in the state, or a metric that is not finite, also ends
        the run with this status.
      block: largest number of runs that train at the same time. Default: as many as fit
        in memory.
      max_bytes: largest memory, in bytes on each device, that the runs of a block may
        use together. Default: the free memory, if the device reports it (GPU, TPU);
        otherwise, no limit.
      devices: the devices over which the runs are divided. Default: all devices of this
        process. (If you use several processes, give each process some of the configs
        and its own path.)
      path: file of JSON lines. When a block of runs has ended, the rows of its runs are
        appended. Runs that are already in the file are not run again. The file is
        locked against other processes. If `block` is given, a resumed sweep is
        bit-identical to an uninterrupted sweep.
      curves: whether each row has an entry `curve`, the metrics at the end of each
        chunk of steps.
      progress: function (number of ended runs, number of runs, seconds left) -> None,
        called after each chunk. The number of seconds is NaN until some steps have been
        timed.

    Returns:
      A :class:`SweepResult`; `table()` returns the rows as text, and `plot(axes)` draws
      a metric. A row has the fields of the config, the `seed`, the
      `status`, the metrics of the last step, and the metrics of evaluate. The entry
      `steps` is the number of steps taken, including a last step that diverged, and
      `limit` is the argument `steps`. The entry `seconds` is the run's share of the
      time of the runs that trained together. Infinite metrics appear as NaN. The
      metrics of evaluate are NaN if the run diverged.

    Raises:
      ValueError: if there are no configs or no seeds, a run is given twice, an argument
        or the result of make_run is not as described, one run needs more than
        max_bytes, or path is the file of another sweep.

    Example:
      >>> import jax, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w: ((w - 3.0) ** 2, None), has_aux=True)
      >>> def make_run(config, key):
      ...     update, w = optax.sgd(config["rate"]), jax.random.normal(key)
      ...     def advance(state, t):
      ...         (loss, _), grads = rule(state[0])
      ...         change, opt_state = update.update(grads, state[1])
      ...         return (state[0] + change, opt_state), {"loss": loss}
      ...     return (w, update.init(w)), advance
      >>> configs = [{"rate": rate} for rate in (0.1, 0.5, 3.0)]
      >>> result = training.sweep(
      ...     make_run, configs, range(2), steps=90, stop=lambda m: m["loss"] < 1e-6
      ... )
      >>> [(row["rate"], row["seed"], row["status"]) for row in result.rows[1::2]]
      [(0.1, 1, 'stopped'), (0.5, 1, 'stopped'), (3.0, 1, 'diverged')]
    """
    counts = {"steps": steps, "chunk": chunk, "block": block, "max_bytes": max_bytes}
    functions = {"stop": stop, "diverged": diverged, "progress": progress}
    _check(make_run, counts, functions, devices, path)
    check_flag("curves", curves)
    runs, groups = all_runs(configs, seeds)
    devices = jax.local_devices() if devices is None else [*devices]
    path = None if path is None else Path(path)
    lock = nullcontext() if path is None else Lock.of_file(path.absolute(), "path")
    ended: list[SweepGroup] = []
    interrupted = False
    with lock:
        found = {} if path is None else read_rows(path, runs, steps, curves)
        rows = [found.get(run.name()) for run in runs]
        clock = Clock(progress, steps, len(runs), len(found))
        try:
            for group in groups:
                missing = [i for i in group.runs if rows[i] is None]
                if not missing:
                    continue
                compiled = compile_block(
                    lambda floats, key, group=group: called(
                        "make_run(config, key)", make_run, group.build(floats), key
                    ),
                    partial(stacked, group, [runs[i] for i in missing]),
                    stop,
                    diverged,
                    devices,
                    len(missing) if block is None else min(block, len(group.runs)),
                    max_bytes,
                )
                seconds = clock.seconds
                for first in range(0, len(missing), compiled.size):
                    part = missing[first : first + compiled.size]
                    chosen = [runs[i] for i in part]
                    new = run_block(
                        compiled, group, chosen, steps, chunk, curves, clock
                    )
                    _keep(rows, part, new, path)
                spent = clock.seconds - seconds
                ended.append(_summary(group, len(missing), compiled, spent))
        except KeyboardInterrupt:
            interrupted = True
        return SweepResult([row for row in rows if row is not None], ended, interrupted)


def _keep(
    rows: list[dict[str, Any] | None],
    places: list[int],
    new: list[dict[str, Any]],
    path: Path | None,
) -> None:
    """Store new rows in the file and in `rows`, without interruption by Ctrl-C."""
    with held():
        if path is not None:
            append_rows(path, new)
        for i, row in zip(places, new, strict=True):
            rows[i] = row


def _summary(group: Group, runs: int, compiled: Block, seconds: float) -> SweepGroup:
    return SweepGroup(
        group.static,
        runs,
        compiled.size,
        compiled.num_bytes,
        compiled.compile_seconds,
        seconds,
    )


def _check(
    make_run: Any, counts: dict, functions: dict, devices: Any, path: Any
) -> None:
    for name, value in counts.items():
        if value is not None or name not in ("block", "max_bytes"):
            check_count(name, value)
    if not callable(make_run):
        raise ValueError(
            "make_run must be a function (config, key) -> (state, advance), got "
            f"{make_run!r}."
        )
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ValueError(f"{name} must be a function or None, got {function!r}.")
    listed = [*devices] if isinstance(devices, Iterable) else []
    if devices is not None and not (
        listed and all(isinstance(device, jax.Device) for device in listed)
    ):
        raise ValueError(
            f"devices must be a list of devices, such as jax.devices(), got "
            f"{devices!r}."
        )
    if path is not None:
        check_path("path", path)
