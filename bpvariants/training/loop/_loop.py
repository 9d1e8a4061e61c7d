"""Python loop over jitted chunks of training steps, with logs and checkpoints."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from bpvariants._settings import called, described
from bpvariants.training._interrupts import (
    held,
    is_shared,
    remembered,
    terminable,
    together,
)
from bpvariants.training._placement import mesh_of, placed
from bpvariants.training.checkpoints._store import Store
from bpvariants.training.loop._chunk import Chunks, Recipe, run_keys
from bpvariants.training.loop._data import batch_of, size_of, Source
from bpvariants.training.loop._metrics import Metrics
from bpvariants.training.loop._nonfinite import Diagnose, explain
from bpvariants.training.loop._progress import Progress
from bpvariants.training.loop._state import FitResult, Reached, Values

Log = Callable[[int, dict[str, Any]], None]
Stop = Callable[[int, dict[str, Any]], Any]


class Plan(NamedTuple):
    """Settings of a training: its length, number of runs, key and callbacks."""

    steps: int
    chunk: int
    runs: int | None
    key: jax.Array | None
    logs: tuple[Log, ...]
    stop: Stop | None
    diagnose: Diagnose | None
    progress: Progress | None = None


class Training:
    """One training: its current state, and the loop that advances it."""

    def __init__(
        self, recipe: Recipe, plan: Plan, reached: Reached, store: Store | None
    ):
        """Start from the given state, or from the last checkpoint."""
        self._recipe, self._plan, self._store = recipe, plan, store
        self._reached, self._values = reached, Values(plan.steps, plan.runs)
        self._stopped = self._resumed_from = self._failed = None
        self._placed = False
        self._handlers, self._all_end = ExitStack(), lambda: False
        self._told: list[Callable[[], bool]] = []  # each returns whether a signal came
        try:
            self._chunks = Chunks(recipe, plan.runs, plan.key, reached.state)
            self._metrics = Metrics(plan.runs, reached)
            if store is not None:
                store.check_best(self._metrics.names)
                self._resume(store)
            self._open_logs()
        except BaseException:
            if store is not None:
                store.close()
            raise

    def run(self, data: Any) -> FitResult:
        """Train to the last step, unless `stop`, NaN or a signal ends the training."""
        with self._handlers:
            if self._plan.progress is not None:
                self._plan.progress.begin(self._reached.steps)
                self._handlers.callback(self._plan.progress.end)
            self._told.append(self._handlers.enter_context(remembered()))
            if self._store is not None and jax.process_count() == 1:
                self._told.append(self._handlers.enter_context(terminable()))
            return self._run(data)

    def _run(self, data: Any) -> FitResult:
        sampled = self._recipe.sample is not None
        try:
            source = Source(data, sampled, self._reached.steps)
            while self._stopped is None and self._reached.steps < self._plan.steps:
                self._take_chunk(source)
        except KeyboardInterrupt:
            if self._reached.steps < self._plan.steps:
                self._stopped = self._stopped or "interrupt"
        except BaseException:
            self._close(write=False)
            raise
        # After a chunk with NaN, runs under `vmap` are at different steps. A training
        # cannot resume from runs at different steps, so do not write a checkpoint.
        self._close(write=self._failed is None or self._plan.runs is None)
        if self._failed is not None:
            raise self._explained(*self._failed)
        return self._result()

    def _resume(self, store: Store) -> None:
        plan, reached = self._plan, self._reached
        found = store.restore(reached)
        if found is not None:
            self._reached, values, stopped = found
            if self._reached.steps > plan.steps:
                raise ValueError(
                    f"steps={plan.steps} is less than {self._reached.steps}, the step "
                    "of the checkpoint; give at least as many steps, or choose another "
                    "directory."
                )
            if values is not None:
                self._values.put(0, values)
            if stopped == "stop" and plan.stop is not None:
                self._stopped = stopped
            skips = self._recipe.nonfinite == "skip"
            # A resumed training continues a single run that ended at NaN, but not a run
            # under `vmap`, because the other runs may be at later steps.
            if skips or plan.runs is None:
                bad = self._reached.bad if skips else reached.bad
                self._reached = self._reached._replace(alive=reached.alive, bad=bad)
            elif not np.any(self._reached.alive):
                self._stopped = "nonfinite"
            self._resumed_from = self._reached.steps

    def _open_logs(self) -> None:
        """Call the method `begin` or, if the training resumes, `resume` of each log."""
        for log in self._plan.logs:
            if self._store is not None and self._store.begun:
                resume = getattr(log, "resume", lambda step: None)
                resume(self._reached.steps)
            else:
                getattr(log, "begin", lambda: None)()

    def _take_chunk(self, source: Source) -> None:
        plan, first = self._plan, self._reached.steps
        # Split the steps into the same chunks as an uninterrupted training does,
        # because the same compiled functions give bit-identical results.
        size = min(plan.chunk - first % plan.chunk, plan.steps - first)
        inputs = source.take(size)
        if inputs is None and first == 0:
            raise ValueError(
                "data has no batch: the iterable ended before the first step. A "
                "generator can be used once only; make a new one for each training, "
                "or give a function (step) -> iterable."
            )
        if inputs is None:
            self._stopped = "data"
            return
        size = size_of(inputs, size)
        now = self._on_devices_of(inputs)
        take = self._chunks.prepare(now, first, inputs, size)
        with held():
            now, values, kept = take()
            self._values.put(first, values)
            before, ends = self._reached, self._recipe.nonfinite != "skip"
            self._reached = _counted(before, now, size, kept, ends)
            newly = (before.bad < 0) & (self._reached.bad >= 0)
            if ends and newly.any() and not self._go_on(inputs, first, newly):
                return
            self._tell()
            told = self._reached.steps < plan.steps and any(t() for t in self._told)
            if self._all_end() or told:
                self._stopped = self._stopped or "interrupt"

    def _on_devices_of(self, inputs):
        """Return the state and the flags `alive`, on the devices of the inputs."""
        state, alive = self._reached.state, self._reached.alive
        if not self._placed and mesh_of(state) is None:
            mesh = mesh_of(inputs)
            state, alive = placed(state, state.params, mesh), placed(alive, None, mesh)
            self._reached = self._reached._replace(state=state, alive=alive)
        if not self._placed and is_shared(state):
            self._all_end = self._handlers.enter_context(together())
        self._placed = True
        return state, alive

    def _go_on(self, inputs, first, newly) -> bool:
        """Record runs that ended at NaN; return False if `fit` must raise an error."""
        if self._recipe.nonfinite == "raise":
            self._failed, self._stopped = (inputs, first, newly), "nonfinite"
            return False
        if not np.any(self._reached.alive):
            self._stopped = "nonfinite"
        return True

    def _tell(self) -> None:
        steps, plan = self._reached.steps, self._plan
        if plan.progress is not None:
            seen, spent = self._values.until(steps), self._chunks.compile_seconds
            plan.progress.tell(steps, seen, spent)
        if plan.logs or plan.stop is not None:
            metrics = self._metrics(self._reached, self._values)
            for log in plan.logs:
                called("log(step, metrics)", log, steps, metrics)
            if plan.stop is not None and _stops(plan.stop, steps, metrics):
                self._stopped = self._stopped or "stop"
        if self._store is not None and self._store.is_due(steps):
            self._save(self._store)

    def _save(self, store: Store) -> None:
        values = self._values.until(self._reached.steps)
        metrics = lambda: self._metrics(self._reached, self._values)
        store.save(self._reached, values, self._stopped, metrics)

    def _close(self, write: bool) -> None:
        if self._store is None:
            return
        with held(forget=True):
            try:
                if write and self._reached.steps != self._store.last:
                    self._save(self._store)
            finally:
                self._store.close()

    def _explained(self, inputs, first, newly):
        plan, state = self._plan, self._reached.state
        run = None if plan.runs is None else int(np.argmax(newly))
        lane = () if run is None else run
        step, key = int(self._reached.bad[lane]), run_keys(plan.key, plan.runs)
        if run is not None:
            state, key = jax.tree.map(lambda leaf: leaf[run], (state, key))
        batch = batch_of(inputs, step - first)
        return explain(
            self._recipe, state, batch, key, step, run, plan.diagnose, self._result()
        )

    def _result(self) -> FitResult:
        reached, chunks = self._reached, self._chunks
        return FitResult(
            *reached.state,
            values=self._values.until(reached.steps),
            steps=reached.steps,
            interrupted=self._stopped in ("interrupt", "data"),
            seconds=chunks.seconds,
            compile_seconds=chunks.compile_seconds,
            temp_bytes=chunks.temp_bytes,
            stopped=self._stopped,
            skipped=reached.skipped[()],
            nonfinite_step=reached.bad[()],
            resumed_from=self._resumed_from,
        )


def _stops(stop: Stop, steps: int, metrics: dict) -> bool:
    """Return whether `stop` ends the training; check that it returns one bool."""
    verdict = called("stop(step, metrics)", stop, steps, metrics)
    if verdict is None or isinstance(verdict, str) or np.ndim(verdict):
        raise ValueError(
            "stop must return True or False, such as metrics['value'] < 0.1, got "
            f"{described(verdict)}. With runs=, it decides for all runs together."
        )
    return bool(verdict)


def _counted(before: Reached, now: tuple, size: int, kept, ends: bool) -> Reached:
    """Return the progress after a chunk: state, steps taken, skipped and NaN steps.

    `kept` [..., size] is True for steps whose update was applied; None means that all
    updates were applied. If `ends` is True, a run ends at the first step whose update
    was not applied. Otherwise, all steps without an applied update count as skipped.
    """
    steps, skipped, bad = before.steps + size, before.skipped, before.bad
    if kept is not None and not kept.all():
        first = before.steps + np.argmin(kept, axis=-1)
        bad = np.where((bad < 0) & ~kept.all(axis=-1), first, bad)
        if not ends:
            skipped = skipped + np.sum(~kept, axis=-1)
        elif bad.ndim == 0:
            steps = int(bad)
    state, alive = now
    return Reached(state, alive, steps, skipped, bad)
