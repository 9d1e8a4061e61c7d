"""The least time of a computation on this machine, measured beside the computation.

A computation reads and writes at least some bytes, takes at least some floating-point
operations, and is started by at least one call. Three small programs measure what the
machine can do: a copy of an array, a product of two matrices, and a call that computes
nothing of size. If B bytes are moved in each of P passes by F operations in C calls,
the floor of the computation is

    max(P · B / bytes copied a second, F / operations a second) + C · time of a call

The three programs run in the same rounds as the computation, because the speed of a
machine changes with its load.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

SIDE = 512  # of the square matrices whose product is timed
# Least and largest number of bytes that the copy reads and writes. The least number is
# that of arrays in a cache, and the largest that of arrays in the main memory.
LEAST, LARGEST = 2**18, 2**27
COPY, PRODUCT, CALL = "floor: copy", "floor: product", "floor: call"


Times: TypeAlias = Mapping[str, Sequence[float]]  # {program: its times in ms}


class Work(NamedTuple):
    """The least work of a computation, which every implementation of it must do."""

    flops: float = 0  # floating-point operations; a product and a sum count as two
    bytes: float = 0  # bytes that a pass reads from memory or writes to memory
    calls: int = 1  # calls of compiled programs
    passes: int = 1  # number of times that these bytes are read or written


class Machine:
    """Programs that measure the speed of the machine, and what their times mean.

    Args:
      moved: number of bytes that a pass of the computation moves; the copy moves as
        many, within bounds, because copies within a cache are faster than copies in
        main memory.
    """

    def __init__(self, moved: float):
        """Make the arrays on which the programs work."""
        array = jnp.zeros(int(min(max(moved, LEAST), LARGEST)) // 8)
        self._moved = 8 * array.size  # each element is read and written
        self._zeros = {COPY: array, CALL: jnp.zeros(())}

    def programs(self) -> dict[str, tuple[Callable, tuple]]:
        """Return {name: (function, arguments)} of the three programs.

        The first argument of a program is overwritten by its result (donated).
        """
        add = {name: (_add_one, (zeros,)) for name, zeros in self._zeros.items()}
        return add | {PRODUCT: (_product, (jnp.zeros((SIDE, SIDE)), jnp.eye(SIDE)))}

    def floor_ms(self, work: Work, times: Times) -> float:
        """Return the floor of a computation in ms, from the programs' times in ms."""
        copy, product, call = _medians(times)
        # A copy or a product also includes a call, whose time is counted separately.
        without = lambda ms: max(ms - call, ms / 2)
        by_memory = work.passes * work.bytes * without(copy) / self._moved
        by_arithmetic = work.flops * without(product) / (2 * SIDE**3)
        return max(by_memory, by_arithmetic) + work.calls * call

    def describe(self, times: Times) -> str:
        """Describe the machine's speed in words, from the programs' times in ms."""
        copy, product, call = _medians(times)
        rates = self._moved / copy / 1e6, 2e-6 * SIDE**3 / product
        return (
            f"copy {rates[0]:.3g} GB/s, products {rates[1]:.3g} GFLOP/s, "
            f"call {1000 * call:.3g} µs"
        )


class Counts(NamedTuple):
    """Operations of a compiled program, as counted by XLA; NaN if it does not say.

    XLA counts the body of a loop once, however often it runs.
    """

    flops: float
    bytes: float


def counts(program: jax.stages.Compiled) -> Counts:
    """Return XLA's counts of a program's operations and of the bytes that it moves."""
    analysis = program.cost_analysis() or {}
    of = lambda name: float(analysis.get(name, math.nan))
    return Counts(of("flops"), of("bytes accessed"))


def _medians(times: Times) -> list[float]:
    return [statistics.median(times[name]) for name in (COPY, PRODUCT, CALL)]


def _add_one(array: jax.Array) -> jax.Array:
    return array + 1


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return a @ b
