"""Benchmark of `training.fit` against a bare `lax.scan` of the same training steps.

The benchmark measures how much time `fit` adds to the training steps; it times chunks
of 100 steps. Chunks of the bare scan run between chunks of `fit`, so that both are
timed under the same load of the machine. The scan's chunks run in the log function that
`fit` calls after each chunk. The time of this function is not counted as time of `fit`.
In the same rounds, the speed of the machine is measured. The floor of a chunk is one
call and the matrix products of 100 training steps; neither `fit` nor the scan comes
near it if a training step is short.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, gradients, training
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.harness.noise import ratio_interval, spread
from experiments.harness.timing import Gauge, Measured, Work

CHUNK = 100


class Training(NamedTuple):
    """Arguments of `training.fit` for one training run to time."""

    rule: Callable[..., Any]
    params: Any
    data: Any
    sample: Callable[..., tuple]
    work: Work  # of one training step
    carry: Any = None
    rounds: int = 1  # multiplies `repeats`; larger if a training step is shorter


def fit() -> Groups:
    """Return one group of timings for each training in `WORKS`.

    A group has the times of a bare scan, and of `fit` with several options.
    """
    names = {f"{CHUNK} steps of Adam, {name}": make for name, make in WORKS.items()}
    return {group: partial(_race, group, make) for group, make in names.items()}


def _race(group: str, make: Callable[[], Training], repeats: int) -> Iterator[Measured]:
    work, ours = make(), None
    for policy in ("raise", "skip", "ignore"):
        row, bare = _pair(work, repeats * work.rounds, nonfinite=policy)
        name = f"fit, nonfinite={policy!r}"
        ours = ours or row["ms"]
        yield _measured(group, name, row, bare, ours)
        if policy == "raise":
            yield _measured(group, "lax.scan", bare, bare, ours)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = training.Checkpoint(Path(folder) / "all")
        row, bare = _pair(work, repeats, checkpoint=checkpoint)
        yield _measured(group, "fit, a checkpoint a chunk", row, bare, ours)


def _measured(group, name, row, bare, first) -> Measured:
    pairs = zip(row["times"], bare["times"], strict=True)
    more = statistics.median(ours / theirs for ours, theirs in pairs)
    low, high = ratio_interval(row["times"], bare["times"])
    ratio = f"{more:.3f} [{low:.3f}, {high:.3f}] times the scan"
    note = row["speed"] if row is bare else ratio
    times = row["ms"], row["spread"], row["ms"] / first
    return Measured(
        group, name, *times, row["compile"], row["temp"], note, floor_ms=row["floor"]
    )


def _pair(work: Training, repeats: int, **options: Any) -> tuple[dict, dict]:
    """Time chunks of training steps, by `fit` and by a bare scan; return both times.

    The speed of the machine is measured after each two chunks of the scan.
    """
    optimizer, key, gauge = optax.adam(1e-3), jax.random.key(0), Gauge()
    chunk = jax.jit(_scan(work, optimizer), donate_argnums=0)
    state = jax.tree.map(jnp.array, (work.params, optimizer.init(work.params)))
    state = *state, jax.tree.map(jnp.array, work.carry)
    began = time.perf_counter()
    program = chunk.lower(state, key, jnp.uint32(0), work.data).compile()
    compiled = time.perf_counter() - began
    times, reached = {"fit": [], "scan": []}, [state, time.perf_counter()]

    def in_turns(step, metrics):
        """Record a chunk's time of `fit`; after two chunks, time two of the scan."""
        times["fit"].append(time.perf_counter() - reached[1])
        if len(times["fit"]) % 2 == 0:
            for _ in range(2):
                start = time.perf_counter()
                first = jnp.uint32(step)
                reached[0], values = program(reached[0], key, first, work.data)
                np.asarray(jax.block_until_ready(values))
                times["scan"].append(time.perf_counter() - start)
            gauge.measure()
        reached[1] = time.perf_counter()

    result = training.fit(
        work.rule, optimizer, work.params, work.data, steps=2 * CHUNK * (repeats + 1),
        chunk=CHUNK, sample=work.sample, key=key, carry=work.carry, log=in_turns,
        **options,
    )  # fmt: skip
    analysis = program.memory_analysis()
    temp = analysis.temp_size_in_bytes if analysis else float("nan")
    floor = gauge.floor_ms(_works.times(work.work, CHUNK)), gauge.describe()
    return (
        _summary(times["fit"], result.compile_seconds, result.temp_bytes, floor),
        _summary(times["scan"], compiled, temp, floor),
    )


def _summary(times: list[float], compiled: float, temp: float | None, floor) -> dict:
    # Chunks are timed in pairs. The first pair of chunks is a warm-up and does not
    # count. Of each later pair, only the second chunk counts.
    counted = [1000 * seconds for seconds in times[3::2]]
    mib = float("nan") if temp is None else temp / 2**20
    return {
        "times": counted,
        "ms": statistics.median(counted),
        "spread": spread(counted),
        "compile": compiled,
        "temp": mib,
        "floor": floor[0],
        "speed": floor[1],
    }


def _scan(work: Training, optimizer: optax.GradientTransformation) -> Callable:
    """Return a function that runs CHUNK training steps by `lax.scan`, without `fit`."""

    def body(state, inputs):
        params, opt_state, carry = state
        key, data = inputs
        carries = () if carry is None else (carry,)
        (value, aux), grads = work.rule(params, *carries, *work.sample(key, data))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state, None if carry is None else aux), value

    def chunk(state, key, first, data):
        steps = first + jnp.arange(CHUNK, dtype=jnp.uint32)
        keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(steps)
        return jax.lax.scan(lambda s, key: body(s, (key, data)), state, keys)

    return chunk


def _loss(y, target):
    return jnp.mean((y - target) ** 2, axis=-1)


def _sequences() -> Training:
    """Return the training of a GRU by BPTT, on batches of 16 sequences of 50 steps."""
    params = cells.gru.init(jax.random.key(0), 8, 32)
    xs = jax.random.normal(jax.random.key(1), (50, 256, 8))
    targets = jax.random.normal(jax.random.key(2), (50, 256, 32))
    zeros = jnp.zeros((16, 32))

    def sample(key, data):
        chosen = jax.random.randint(key, (16,), 0, 256)
        return zeros, *jax.tree.map(lambda leaf: leaf[:, chosen], data)

    work = _works.gradient(_works.Run(params, 50, 16, 32))
    rule = gradients.bptt(cells.gru, _loss)
    return Training(rule, params, (xs, targets), sample, work, None, 3)


def _online() -> Training:
    """Return the training of a tanh network by RTRL, with an update at each time step.

    `training.fit` carries the state of the online rule from one time step to the next.
    """
    params = cells.tanh.init(jax.random.key(0), 4, 32)
    online = gradients.rtrl(cells.tanh, _loss)

    def rule(params, state, x, target):
        value, grads, state = online.update(params, state, x, target)
        return (value, state), grads

    def sample(key, _):
        x = jax.random.normal(key, (36,))
        return x[:4], x[4:]

    state = online.init(params, jnp.zeros(32), (jnp.zeros(4), jnp.zeros(32)))
    work = _works.online("rtrl", _works.Run(params, 1, 1, 32))
    return Training(rule, params, (), sample, work, state, 5)


def _tiny() -> Training:
    """Return the training of 8 linear units on one example; its steps take 1 µs."""
    params = jax.random.normal(jax.random.key(0), (8, 8)) / 8
    loss = lambda w, x, target: (jnp.mean((x @ w - target) ** 2), None)

    def sample(key, _):
        x = jax.random.normal(key, (16,))
        return x[:8], x[8:]

    rule = jax.value_and_grad(loss, has_aux=True)
    return Training(rule, params, (), sample, _works.layers((8, 8), 1), None, 20)


def _small() -> Training:
    """Return the training of a small MLP on batches of 32 random images.

    Only :func:`_tiny` has shorter training steps.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(keys[0], (64, 64)) / 8, jnp.zeros(64)]
    params += [jax.random.normal(keys[1], (64, 10)) / 8, jnp.zeros(10)]
    images = jax.random.normal(keys[2], (1024, 64))
    labels = jax.random.randint(keys[3], (1024,), 0, 10)

    def loss(params, x, label):
        w, b, v, c = params
        logits = jnp.tanh(x @ w + b) @ v + c
        of_each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return jnp.mean(of_each), None

    def sample(key, data):
        chosen = jax.random.randint(key, (32,), 0, 1024)
        return tuple(leaf[chosen] for leaf in data)

    rule = jax.value_and_grad(loss, has_aux=True)
    work = _works.layers((64, 64, 10), 32)
    return Training(rule, params, (images, labels), sample, work, None, 10)


WORKS = {
    "BPTT, GRU, T 50, B 16, n 32": _sequences,
    "RTRL at every step, tanh, n 32": _online,
    "backpropagation, 64–64–10, B 32": _small,
    "backpropagation, 8–8, B 1": _tiny,
}
