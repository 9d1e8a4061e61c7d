"""Timing of several implementations in turns; compilation is timed separately.

In each round, each implementation is called twice. At its first call, the caches of the
CPU hold what the implementation before it left there (cold). At its second call, they
hold what its own first call left there (warm). The tables show times of warm calls.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

from experiments.harness.floors import counts, Machine, Work as Work
from experiments.harness.noise import (
    check_agreement as check_agreement,
    ratio_interval,
    spread as spread,
)

NAN = float("nan")
PAUSE = 0.01  # seconds after a call of another library, whose idle threads fall asleep


class Foreign(NamedTuple):
    """An implementation without JAX; `run` waits until its computation is finished."""

    run: Callable[[], Any]


Entrants: TypeAlias = dict[str, tuple[Callable, tuple] | Foreign]


class Gauge:
    """Measures the machine's speed beside timings that :func:`race` cannot take.

    Call :meth:`measure` in each round of the timings.
    """

    def __init__(self, moved: float = 0):
        """Compile the programs; `moved` is as for :class:`Machine`."""
        self._machine = Machine(moved)
        self._calls = _gauges(self._machine)
        self._times: dict[str, list[float]] = {name: [] for name in self._calls}

    def measure(self) -> None:
        """Time each of the machine's programs once, with warm caches."""
        for name, times in _in_turns(self._calls, 1, {})[1].items():
            self._times[name] += times

    def floor_ms(self, work: Work) -> float:
        """Return the least time of a computation in ms."""
        return self._machine.floor_ms(work, self._times)

    def describe(self) -> str:
        """Describe the machine's speed in words."""
        return self._machine.describe(self._times)


class Measured(NamedTuple):
    """Timing of one implementation; the implementations of a group do the same task."""

    group: str  # name of the computation
    name: str  # name of the implementation
    ms: float  # median time of a warm call in milliseconds
    spread: float  # half the interquartile range of times, relative to the median
    ratio: float  # median time relative to the group's first implementation
    compile_seconds: float
    temp_mib: float
    note: str
    low: float = NAN  # 95 % bootstrap interval of the ratio, over rounds
    high: float = NAN
    cold_ms: float = NAN  # median time of a call with cold caches
    floor_ms: float = NAN  # least time of the computation on this machine
    flops: float = NAN  # operations of the program that XLA counts; loops count once
    moved: float = NAN  # bytes that the program moves, as XLA counts them


def race(
    group: str,
    entrants: Entrants,
    *,
    repeats: int,
    notes: dict[str, str] | None = None,
    donate: bool = False,
    work: Work | dict[str, Work] | None = None,
) -> list[Measured]:
    """Time several implementations (entrants) of the same computation in turns.

    An entrant is a pair (jittable function, arguments), or a :class:`Foreign`. In each
    of `repeats` rounds, each entrant is called twice: with cold and with warm caches.

    If `donate` is True, the result of a call is the first argument of the next call of
    the same entrant. As in training, a call may then write its result into the memory
    of its first argument.

    If `work` is given, the least work of the computation or of each entrant, the speed
    of the machine is measured in the same rounds. The rows then contain the least time
    of this work, and the note of the first row has the speed.
    """
    calls, programs, compile_seconds = {}, {}, {}
    for name, entrant in entrants.items():
        if isinstance(entrant, Foreign):
            calls[name] = entrant.run
            continue
        function, arguments = entrant
        jitted = jax.jit(function, donate_argnums=(0,) if donate else ())
        start = time.perf_counter()
        programs[name] = jitted.lower(*arguments).compile()
        compile_seconds[name] = time.perf_counter() - start
        calls[name] = _caller(programs[name], arguments, donate)
    works = work if isinstance(work, dict) else dict.fromkeys(entrants, work)
    known = {name: each for name, each in works.items() if each is not None}
    machine = Machine(max((each.bytes for each in known.values()), default=0))
    if known:
        calls |= _gauges(machine)
    cold, warm = _in_turns(calls, repeats, entrants)
    notes, first = dict(notes or {}), next(iter(entrants))
    if known:
        told = [notes.get(first, ""), machine.describe(warm)]
        notes[first] = "; ".join(filter(None, told))
    floor_ms = {n: machine.floor_ms(each, warm) for n, each in known.items()}
    median = statistics.median
    return [
        Measured(
            group,
            name,
            median(warm[name]),
            spread(warm[name]),
            median(warm[name]) / median(warm[first]),
            compile_seconds.get(name, NAN),
            _temp_mib(programs[name]) if name in programs else NAN,
            notes.get(name, ""),
            *ratio_interval(warm[name], warm[first]),
            median(cold[name]),
            floor_ms.get(name, NAN),
            *(counts(programs[name]) if name in programs else (NAN, NAN)),
        )
        for name in entrants
    ]


def _gauges(machine: Machine) -> dict[str, Callable[[], Any]]:
    calls = {}
    for name, (function, arguments) in machine.programs().items():
        program = jax.jit(function, donate_argnums=0).lower(*arguments).compile()
        calls[name] = _caller(program, arguments, True)
    return calls


def _in_turns(
    calls: dict[str, Callable[[], Any]], repeats: int, entrants: Entrants
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the times in ms of each call with cold and with warm caches, by round."""
    cold, warm = ({name: [] for name in calls} for _ in range(2))
    names = list(calls)
    for i in range(repeats):
        # Rotate the order in which implementations are timed, because one
        # implementation may slow down the next implementation.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            for times in (cold, warm):
                start = time.perf_counter()
                calls[name]()
                times[name].append(1000 * (time.perf_counter() - start))
            if isinstance(entrants.get(name), Foreign):
                time.sleep(PAUSE)
    return cold, warm


def _caller(program, arguments, donate):
    """Return a function that runs a compiled program and waits for its result.

    If `donate` is True, the result of each call is the first argument of the next call.
    """
    state = [*arguments]

    def call():
        result = jax.block_until_ready(program(*state))
        if donate:
            state[0] = result

    return call


def _temp_mib(program: Any) -> float:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20 if analysis else NAN
