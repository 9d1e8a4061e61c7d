"""Timing of programs: in turns, warmed up, medians, compilation apart."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax


class Foreign(NamedTuple):
    """An entrant that is no JAX function: does the work, and waits until it is done."""

    run: Callable[[], Any]


Entrants: TypeAlias = dict[str, tuple[Callable, tuple] | Foreign]


class Measured(NamedTuple):
    """One row: an implementation, timed in turns with others of the same group."""

    group: str  # the work
    name: str  # who does it
    ms: float  # median
    spread: float  # half the distance of the quartiles, relative to the median
    ratio: float  # to the first of the group, which is ours
    compile_seconds: float
    temp_mib: float
    note: str


def race(
    group: str,
    entrants: Entrants,
    *,
    repeats: int,
    notes: dict[str, str] | None = None,
    donate: bool = False,
) -> list[Measured]:
    """Time entrants, each a jittable function and its arguments or foreign, in turns.

    In its turn each is called twice, of which the second call counts.

    With `donate`, a function returns what takes the place of its first argument, which
    it may write over, as a training step does with its state.
    """
    calls, programs, compile_seconds = {}, {}, {}
    times = {name: [] for name in entrants}
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
    names = list(calls)
    for i in range(repeats):
        # Each goes first in its turn, as whoever comes after another may suffer for it.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            call = calls[name]
            for _ in range(2):
                start = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - start))
            times[name].pop(-2)  # it found the caches as another entrant left them
            if isinstance(entrants[name], Foreign):
                time.sleep(0.3)  # its threads may spin for as long, for more to do
    medians = {name: statistics.median(each) for name, each in times.items()}
    ours = next(iter(medians.values()))
    return [
        Measured(
            group,
            name,
            medians[name],
            spread(times[name]),
            medians[name] / ours,
            compile_seconds.get(name, float("nan")),
            _temp_mib(programs[name]) if name in programs else float("nan"),
            (notes or {}).get(name, ""),
        )
        for name in entrants
    ]


def _caller(program, arguments, donate):
    """Return the call of a program; what it gives back replaces what it wrote over."""
    state = [*arguments]

    def call():
        result = jax.block_until_ready(program(*state))
        if donate:
            state[0] = result

    return call


def spread(values: list[float]) -> float:
    """Return half the distance of the quartiles, relative to the median."""
    low, median, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / median


def _temp_mib(program: Any) -> float:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20 if analysis else float("nan")
