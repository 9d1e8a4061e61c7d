"""Benchmark of `gradients.parallel_unroll` against the sequential `unroll`.

On a CPU, `parallel_unroll` is hardly faster than `unroll`, because a CPU has few cores.
On an accelerator, it is faster for networks with few units on sequences with many time
steps. Matrix products are computed in full float32 (precision "highest"). By default,
recent GPUs round the factors of a product to 10 bits of mantissa (TF32). With this
rounding, Newton's method would stop too early.
"""

from collections.abc import Iterator
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from bpvariants import cells, gradients
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.harness.timing import Entrants, Measured, race

LINEAR = [1_000, 10_000, 100_000]  # sequence lengths T of linear networks
LINEAR_SHAPE = 1, 32, 64  # (B, number of inputs, number of units)
# Shapes (T, number of units) of GRUs, which have as many inputs as units.
NEWTON = [(1_000, 1), (1_000, 2), (1_000, 4)]
NEWTON_LONG = [  # more shapes (T, number of units) of GRUs, only for accelerators
    (length, units) for length in (10_000, 100_000) for units in (1, 2, 4, 16)
]
NEWTON_BATCH = 16
PRECISION = "highest"


def parallel() -> Groups:
    """Return one group of timings for each network and sequence length T.

    There are two timed calls: one computes only the outputs, and one computes the
    gradient of their mean square.
    """
    groups: Groups = {}
    batch, _, units = LINEAR_SHAPE
    for length in LINEAR:
        label = f"LRU, T {length}, B {batch}, n {units}"
        groups[label] = partial(_linear, label, length)
    on_cpu = jax.default_backend() == "cpu"
    for length, units in NEWTON + ([] if on_cpu else NEWTON_LONG):
        label = f"GRU, T {length}, B {NEWTON_BATCH}, n {units}"
        groups[label] = partial(_newton, label, length, units)
    return groups


def _linear(label: str, length: int, repeats: int) -> list[Measured]:
    with jax.default_matmul_precision(PRECISION):
        batch, inputs, units = LINEAR_SHAPE
        params = cells.lru.init(jax.random.key(0), inputs, units, inputs)
        carry = cells.lru.carry(params, (batch,))
        xs = jax.random.normal(jax.random.key(1), (length, batch, inputs))
        run = {"method": "linear", "batch_ndim": 1}
        return [*_race(label, cells.lru, (params, carry, xs), run, repeats)]


def _newton(label: str, length: int, units: int, repeats: int) -> list[Measured]:
    with jax.default_matmul_precision(PRECISION):
        network = nn.GRUCell(units)
        xs = jax.random.normal(jax.random.key(1), (length, NEWTON_BATCH, units))
        carry = network.initialize_carry(jax.random.key(0), xs.shape[1:])
        params = network.init(jax.random.key(0), carry, xs[0])
        run = {"method": "newton", "batch_ndim": 1}
        return [*_race(label, network.apply, (params, carry, xs), run, repeats)]


def _race(label, step, arguments, options, repeats) -> Iterator[Measured]:
    """Time `parallel_unroll` and `unroll`; note how much their outputs differ.

    The first implementation is method="auto", with whatever it chooses on this device.
    """

    def outputs(*arguments):
        return gradients.parallel_unroll(step, *arguments, **options)[0][1]

    def chosen(*arguments):
        auto = options | {"method": "auto"}
        return gradients.parallel_unroll(step, *arguments, **auto)[0][1]

    def outputs_in_order(*arguments):
        return gradients.unroll(step, *arguments)[1]

    def compare(*arguments):
        (_, ys), info = gradients.parallel_unroll(step, *arguments, **options)
        return jnp.max(jnp.abs(ys - outputs_in_order(*arguments))), info

    error, info = jax.jit(compare)(*arguments)
    note = f"error {error:.1e}, {jnp.max(info.steps)} iterations"
    if bool(jnp.any(info.fell_back)):
        note += f", {jnp.sum(info.fell_back)} examples fell back to unroll"

    def gradient(run, *arguments):
        return jax.grad(lambda *args: jnp.mean(run(*args) ** 2))(*arguments)

    ours, theirs = f"parallel, {options['method']}", "unroll"
    entrants: Entrants = {
        "parallel, auto": (chosen, arguments),
        theirs: (outputs_in_order, arguments),
        ours: (outputs, arguments),
    }
    notes, run = {ours: note}, _run(*arguments)
    work = _works.outputs(run)
    yield from race(
        f"outputs, {label}", entrants, repeats=repeats, notes=notes, work=work
    )
    entrants = {
        "parallel, auto": (partial(gradient, chosen), arguments),
        theirs: (partial(gradient, outputs_in_order), arguments),
        ours: (partial(gradient, outputs), arguments),
    }
    work = _works.gradient(run)
    yield from race(f"gradient, {label}", entrants, repeats=repeats, work=work)


def _run(params, carry, xs) -> _works.Run:
    units = sum(leaf.shape[-1] for leaf in jax.tree.leaves(carry))
    length, batch = xs.shape[:2]
    return _works.Run(params, length, batch, units, xs.size)
