"""Timing of programs in turns: medians after a warm-up, compilation separate."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax


class Foreign(NamedTuple):
    """An entrant that is not a JAX function; `run` returns when the work is done."""

    run: Callable[[], Any]


Entrants: TypeAlias = dict[str, tuple[Callable, tuple] | Foreign]


class Measured(NamedTuple):
    """Timing of one implementation, in turns with the others of its group."""

    group: str  # the work
    name: str  # the implementation
    ms: float  # median
    spread: float  # half the interquartile range, relative to the median
    ratio: float  # of the median to that of the first in the group
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
    """Time entrants in turns: jittable functions with their arguments, or foreign.

    In each turn an entrant is called twice, and the second call counts.

    With `donate`, the result of a function replaces its first argument and may use its
    memory, as a training step does with its state.
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
        # Rotate the order, because an entrant may slow down the next one.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            call = calls[name]
            for _ in range(2):
                start = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - start))
            times[name].pop(-2)  # another entrant had filled the caches
            if isinstance(entrants[name], Foreign):
                time.sleep(0.3)  # its idle threads may spin for as long
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
    """Return a call of a program; if donated, its result is its next argument."""
    state = [*arguments]

    def call():
        result = jax.block_until_ready(program(*state))
        if donate:
            state[0] = result

    return call


def spread(values: list[float]) -> float:
    """Return half the interquartile range, relative to the median."""
    low, median, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / median


def _temp_mib(program: Any) -> float:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20 if analysis else float("nan")
