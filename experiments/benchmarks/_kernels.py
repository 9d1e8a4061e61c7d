"""Benchmark of the Pallas kernels of GRUs and LSTMs on a GPU or a TPU.

Each group times the gradient of the mean squared output, in all parameters and inputs,
by the kernel, by the scan of `unroll`, and by the peers that the machine has: cuDNN
through `cells.lstm_cudnn`, Flax's cells in a scan, and PyTorch's LSTM and GRU, which
call cuDNN on a GPU. On a CPU, the kernel's computation runs as a scan, so the CPU rows
say nothing about the kernels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bpvariants import cells, gradients
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._torch import torch, torch_device
from experiments.harness.timing import Entrants, Foreign, Measured, race

# (T, B, number of inputs and of units)
SHAPES = [(512, 16, 128), (512, 128, 128), (256, 64, 512), (1024, 16, 64)]
CPU_SHAPES = [(64, 8, 32)]
NARROW = 512, 16, 128  # the shape that is timed in bfloat16, too
MOST_REPEATS = 10  # the nine groups should take five minutes, mostly of compilation


def kernels() -> Groups:
    """Return one group of timings for each cell, dtype and shape."""
    groups: Groups = {}
    on_cpu = jax.default_backend() == "cpu"
    for length, batch, units in CPU_SHAPES if on_cpu else SHAPES:
        for name in ("lstm", "gru"):
            shape = length, batch, units
            narrow = name == "lstm" and shape == NARROW
            for dtype in ("float32", "bfloat16") if narrow else ("float32",):
                label = f"{name} {dtype}, T {length}, B {batch}, n {units}"
                groups[label] = partial(_race, label, name, dtype, shape)
    return groups


def _race(label, name, dtype, shape, repeats: int) -> list[Measured]:
    cell = getattr(cells, name)
    length, batch, units = shape
    params = cell.init(jax.random.key(0), units, units, dtype=dtype)
    carry = cell.carry(params, (batch,))
    xs = jax.random.normal(jax.random.key(1), (length, batch, units)).astype(dtype)
    arguments = params, carry, xs
    kernel = cell.with_kernel("pallas")
    runs: dict[str, Callable] = {
        "kernel": lambda *args: gradients.unroll(kernel, *args)[1],
        "scan": lambda *args: gradients.unroll(cell, *args)[1],
    }
    if name == "lstm" and dtype == "float32":
        runs["lstm_cudnn"] = lambda *args: cells.lstm_cudnn(*args)[1]
    entrants: Entrants = {
        entrant: (partial(_gradient, run), arguments) for entrant, run in runs.items()
    }
    entrants |= _flax(name, dtype, shape) | _torch(name, dtype, shape)
    notes = _differences(runs, arguments)
    if jax.default_backend() == "cpu":
        notes["kernel"] = "a scan, as on every CPU; " + notes["kernel"]
    repeats = min(repeats, MOST_REPEATS)
    return race(f"gradient, {label}", entrants, repeats=repeats, notes=notes)


def _gradient(run: Callable, params: Any, carry: Any, xs: jax.Array) -> Any:
    def loss(params, xs):
        return jnp.mean(run(params, carry, xs).astype(jnp.float32) ** 2)

    return jax.grad(loss, (0, 1))(params, xs)


def _differences(runs: dict[str, Callable], arguments: tuple) -> dict[str, str]:
    """Return how much gradients differ from those of the scan, relative to the norm."""
    flat = lambda tree: jnp.concatenate(
        [leaf.astype(jnp.float32).ravel() for leaf in jax.tree.leaves(tree)]
    )
    compute = lambda run: flat(jax.jit(partial(_gradient, run))(*arguments))
    right = compute(runs["scan"])
    norm = jnp.linalg.norm
    return {
        name: f"differs by {float(norm(compute(run) - right) / norm(right)):.0e}"
        for name, run in runs.items()
        if name != "scan"
    }


def _flax(name: str, dtype: str, shape: tuple[int, int, int]) -> Entrants:
    length, batch, units = shape
    kind = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[name]
    network = kind(units, dtype=dtype, param_dtype=dtype)
    xs = jax.random.normal(jax.random.key(1), (length, batch, units)).astype(dtype)
    carry = network.initialize_carry(jax.random.key(0), xs.shape[1:])
    carry = jax.tree.map(lambda leaf: leaf.astype(dtype), carry)
    params = network.init(jax.random.key(0), carry, xs[0])

    def run(params, carry, xs):
        body = lambda h, x: network.apply(params, h, x)
        return jax.lax.scan(body, carry, xs)[1]

    entrant = f"flax {kind.__name__}"
    return {entrant: (partial(_gradient, run), (params, carry, xs))}


def _torch(name: str, dtype: str, shape: tuple[int, int, int]) -> Entrants:
    """Return PyTorch's layer, or nothing without PyTorch or without its GPU."""
    module, device = torch(), torch_device()
    on_cpu = jax.default_backend() == "cpu"
    if module is None or (device == "cuda") == on_cpu:
        return {}
    length, batch, units = shape
    dtype = getattr(module, dtype)
    kind = {"lstm": module.nn.LSTM, "gru": module.nn.GRU}[name]
    layer = kind(units, units).to(device, dtype)
    xs = module.randn(length, batch, units, device=device, dtype=dtype)
    xs.requires_grad_()

    def run():
        layer.zero_grad()
        xs.grad = None
        layer(xs)[0].float().square().mean().backward()
        if device == "cuda":
            module.cuda.synchronize()

    return {f"torch, {device}": Foreign(run)}
