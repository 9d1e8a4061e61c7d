"""Sweeps: each setting trained with each seed, in one program under `vmap`.

Runs that differ in floats and seeds only share a compiled program; those of other
sizes or methods have one of their own. A program runs them in blocks that fit in
memory, spread over the devices. A run that stops or diverges is frozen, and hurts none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bpvariants._checks import check_count
from bpvariants._tables import aligned, short
from bpvariants.training._interrupts import held
from bpvariants.training.sweeps._block import Clock, run_block, stacked
from bpvariants.training.sweeps._compile import Block, compile_block
from bpvariants.training.sweeps._file import append_rows, read_rows
from bpvariants.training.sweeps._runs import all_runs, Group

Metrics = dict[str, jax.Array]
Progress = Callable[[int, int, float], None]


class SweepGroup(NamedTuple):
    """Runs of one compiled program. See :func:`sweep`.

    Attributes:
      static: the fields, not traced, that its runs share.
      runs: how many of them were run now.
      block: how many at a time, on all devices.
      num_bytes: what a block needs on each device, as XLA says; None if it does not.
      compile_seconds: spent in compilation.
      seconds: spent in steps.
    """

    static: dict[str, Any]
    runs: int
    block: int
    num_bytes: int | None
    compile_seconds: float
    seconds: float


class SweepResult(NamedTuple):
    """What :func:`sweep` returns.

    Attributes:
      rows: a dict for each run that has ended, those found in the file included,
        configs in their order and seeds within them. `pandas.DataFrame(rows)` reads it.
      groups: a :class:`SweepGroup` for each program that was compiled.
      interrupted: whether Ctrl-C came before the last run.
    """

    rows: list[dict[str, Any]]
    groups: list[SweepGroup]
    interrupted: bool

    def table(self) -> str:
        """Return a line for each run."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        names = [name for name in names if name != "curve"]
        cell = lambda value: short(value) if isinstance(value, float) else str(value)
        cells = [[cell(row.get(name, "")) for name in names] for row in self.rows]
        return aligned([names, *cells]) if names else ""


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
    path: str | Path | None = None,
    curves: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Train once for each config and seed, as many at a time as memory allows.

        state, advance = make_run(config, jax.random.key(seed))
        for t in range(steps): state, metrics = advance(state, t)

    Each run ends `finished`, `stopped` (its metrics said so) or `diverged` (a metric is
    not finite, or NaN is in its state), and is frozen then; a block ends when all its
    runs have. Nothing that one run computes reaches another, and devices exchange
    nothing. Blocks of one size on equal devices give a run the same bits wherever it
    stands; of another size, or on more devices, XLA may order sums otherwise: on CPU,
    in float32, losses of a small network differed by 2e-7 after 10 steps of Adam, by
    1e-6 after 200.

    Args:
      make_run: (config, key) -> (state, advance), or (state, advance, evaluate): a pure
        function, traced under `vmap`. `state` is a pytree of arrays, `advance(state, t)
        -> (state, metrics)` a step, with a dict of scalars, and `evaluate(state) ->
        metrics` is called once, after the last. `t`, from 0, is the same for all runs
        of a block, so that a `lax.cond` on it takes one branch. What make_run draws
        beside the state is drawn again at each chunk.
      configs: a dict, dataclass or NamedTuple for each setting, of equal fields. Floats
        are traced; ints, bools, strings, None, and tuples are static, and runs that
        differ in them have programs of their own. A field that is a float in one config
        is one in all where it is a number.
      seeds: integers; each config is run with each seed.
      steps: how many steps a run takes, unless it ends before.
      chunk: after how many steps to look whether any still runs.
      stop: metrics -> bool, traced: this run has done enough. What needs memory, such
        as patience, belongs into the state and from there into the metrics.
      diverged: metrics -> bool, traced: what counts as divergence besides NaN.
      block: at most so many runs at a time.
      max_bytes: what a block may take on each device; by default what is free there, if
        the device says so (GPU, TPU), else any.
      devices: which to use, each with its share of a block; by default all of this
        process. (Of several processes each takes a part of configs, and its own path.)
      path: a file of JSON lines to which rows are added when their block has ended.
        Runs that it has are not run again. A `block` given makes a sweep that goes on
        equal to one never interrupted in every bit.
      curves: whether rows have a `curve`, metrics at the end of each chunk.
      progress: (runs ended, runs, seconds left) -> None, called after each chunk; the
        seconds are NaN until some steps have been timed.

    Returns:
      A :class:`SweepResult`. Its rows have the fields of the config, `seed`, `status`,
      `steps` (taken, the one that diverged included), `limit` (steps), `seconds` (its
      share of its block's), and metrics: of the last step, where NaN stands for what is
      infinite too, and of evaluate, NaN if the run diverged.

    Raises:
      ValueError: if there is nothing to run, a run is given twice, an argument or what
        make_run returns is not as said, one run needs more than max_bytes, or path
        holds another sweep.

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
    _check(make_run, counts, functions, devices)
    runs, groups = all_runs(configs, seeds)
    devices = jax.local_devices() if devices is None else devices
    path = None if path is None else Path(path)
    found = {} if path is None else read_rows(path, runs, steps, curves)
    rows = [found.get(run.name()) for run in runs]
    clock = Clock(progress, steps, len(runs), len(found))
    ended: list[SweepGroup] = []
    interrupted = False
    try:
        for group in groups:
            missing = [i for i in group.runs if rows[i] is None]
            if not missing:
                continue
            compiled = compile_block(
                lambda floats, key, group=group: make_run(group.build(floats), key),
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
                new = run_block(compiled, group, chosen, steps, chunk, curves, clock)
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
    """Put the new rows in their places and in the file; Ctrl-C waits until both are."""
    with held():
        if path is not None:
            append_rows(path, new)
        for i, row in zip(places, new, strict=True):
            rows[i] = row


def _summary(group: Group, runs: int, compiled: Block, seconds: float) -> SweepGroup:
    """Return what a group's program took."""
    return SweepGroup(
        group.static,
        runs,
        compiled.size,
        compiled.num_bytes,
        compiled.compile_seconds,
        seconds,
    )


def _check(make_run: Any, counts: dict, functions: dict, devices: Any) -> None:
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
    if devices is not None and not all(
        isinstance(device, jax.Device) for device in devices or [None]
    ):
        raise ValueError(
            f"devices must be a list of devices, as jax.devices() is, got {devices!r}."
        )
