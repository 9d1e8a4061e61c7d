"""Compilation of a sweep's functions, for as many runs at a time as fit in memory.

The functions are compiled with `vmap` over several runs, called lanes. The lanes are
divided over the devices.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bpvariants.training.sweeps._lanes import (
    advance_lane,
    AXIS,
    evaluate_lane,
    look_at,
    start_lane,
)
from bpvariants.types import PyTree

CPU_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}


class Block(NamedTuple):
    """The compiled functions that train `size` runs side by side (called lanes).

    Attributes:
      start: (floats, keys) -> lanes before the first step.
      advance: (floats, keys, lanes, first, last) -> lanes, after the training steps
        from `first` to `last` − 1.
      evaluate: (floats, keys, state) -> metrics, or None.
      put: function that places arrays [size] of floats and keys on the devices.
      size: number of lanes, on all devices together.
      num_bytes: memory in bytes that `advance` needs on each device; None if XLA does
        not report it.
      compile_seconds: time spent in compilation, in seconds.
    """

    start: Callable
    advance: Callable
    evaluate: Callable | None
    put: Callable
    size: int
    num_bytes: int | None
    compile_seconds: float


def compile_block(
    make: Callable,
    inputs: Callable[[int], tuple[PyTree, jax.Array]],
    stop: Callable | None,
    diverged: Callable | None,
    devices: Sequence[Any],
    size: int,
    max_bytes: int | None,
) -> Block:
    """Compile functions for `size` runs at a time, or fewer if memory is too small."""
    begin, on_cpu = time.perf_counter(), devices[0].platform == "cpu"
    mesh = Mesh(np.array(devices), ("devices",))
    lane, same = PartitionSpec("devices"), PartitionSpec()
    max_bytes = _free_bytes(devices) if max_bytes is None else max_bytes
    shard, put = NamedSharding(mesh, lane), NamedSharding(mesh, same)
    has_evaluate = look_at(make, *inputs(1))

    def jit(function, *specs, donate=()):
        axes = [0 if spec == lane else None for spec in specs]
        mapped = jax.vmap(function, in_axes=axes, axis_name=AXIS)
        mapped = jax.shard_map(
            mapped, mesh=mesh, in_specs=specs, out_specs=lane, check_vma=False
        )
        placed = tuple(shard if spec == lane else put for spec in specs)
        return jax.jit(
            mapped, in_shardings=placed, out_shardings=shard, donate_argnums=donate
        )

    start = jit(partial(start_lane, make), lane, lane)
    advance = partial(advance_lane, make, stop, diverged)
    advance = jit(advance, lane, lane, lane, same, same, donate=(2,))
    tried: list[tuple[int, int]] = []
    size = -(-size // len(devices)) * len(devices)
    while True:
        arguments = jax.device_put(inputs(size), shard)
        lanes = jax.eval_shape(start, *arguments)
        compiled = advance.lower(
            *arguments, lanes, jnp.int32(0), jnp.int32(0)
        ).compile()
        num_bytes = _num_bytes(compiled)
        if max_bytes is None or num_bytes is None or num_bytes <= max_bytes:
            break
        tried.append((size, num_bytes))
        size = _smaller(tried, max_bytes, len(devices))
    # On CPU, compile `start` without optimisation, because it runs only once for each
    # block of runs, and optimising its random number generation would take long.
    options = CPU_OPTIONS if on_cpu else None
    start = start.lower(*arguments).compile(compiler_options=options)
    evaluate = None
    if has_evaluate:
        evaluate = jit(partial(evaluate_lane, make), lane, lane, lane)
        evaluate = evaluate.lower(*arguments, lanes.state).compile()
    seconds = time.perf_counter() - begin
    place = lambda inputs: jax.device_put(inputs, shard)
    return Block(start, compiled, evaluate, place, size, num_bytes, seconds)


def _free_bytes(devices: Sequence[Any]) -> int | None:
    """Return the free bytes of the device with the least free memory; None on CPU."""
    told = [device.memory_stats() or {} for device in devices]
    free = [
        of["bytes_limit"] - of["bytes_in_use"] for of in told if "bytes_limit" in of
    ]
    return min(free, default=None)


def _smaller(tried: list[tuple[int, int]], max_bytes: int, step: int) -> int:
    """Return a number of runs that should fit in memory; numbers in `tried` did not."""
    (size, num_bytes), fixed = tried[-1], 0.0
    if size == step:
        raise ValueError(
            f"max_bytes={max_bytes} is less than the {num_bytes} bytes that one run on "
            "each device needs; allow more, or make the runs smaller."
        )
    if len(tried) > 1:  # assume that num_bytes grows linearly with size
        (size_before, bytes_before), *_ = tried[-2:]
        fixed = num_bytes - size * (bytes_before - num_bytes) / (size_before - size)
        fixed = min(max(fixed, 0.0), max_bytes)
    fits = size * (max_bytes - fixed) / (num_bytes - fixed)
    return max(min(int(fits) // step * step, size - step), step)


def _num_bytes(compiled: Any) -> int | None:
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    given = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return given + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
