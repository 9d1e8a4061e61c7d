"""Timing of several implementations in turn; compilation is timed separately."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax


class Foreign(NamedTuple):
    """An implementation without JAX; `run` waits until its computation is finished."""

    run: Callable[[], Any]


Entrants: TypeAlias = dict[str, tuple[Callable, tuple] | Foreign]


class Measured(NamedTuple):
    """Timing of one implementation; a group has several implementations of one task."""

    group: str  # name of the computation
    name: str  # name of the implementation
    ms: float  # median time of a call in milliseconds
    spread: float  # half the interquartile range of times, relative to the median
    ratio: float  # median time relative to the group's first implementation
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
    """Time several implementations of the same computation in turn.

    An entrant is an implementation: a pair (jittable function, arguments), or a
    :class:`Foreign`. In each of `repeats` rounds, each entrant is called twice, and
    only the second call counts.

    If `donate` is True, the result of a call is the first argument of the next call. As
    in training, the result may then use the memory of this argument.
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
        # Rotate the order in which implementations are timed, because one
        # implementation may slow down the next implementation.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            call = calls[name]
            for _ in range(2):
                start = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - start))
            times[name].pop(-2)  # drop the first of two calls: caches may be cold
            if isinstance(entrants[name], Foreign):
                time.sleep(0.3)  # let idle threads of other libraries stop spinning
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
    """Return a function that runs a compiled program and waits for its result.

    If `donate` is True, the result of each call is the first argument of the next call.
    """
    state = [*arguments]

    def call():
        result = jax.block_until_ready(program(*state))
        if donate:
            state[0] = result

    return call


def spread(values: list[float]) -> float:
    """Return half the interquartile range of values, relative to their median."""
    low, median, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / median


def _temp_mib(program: Any) -> float:
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20 if analysis else float("nan")
