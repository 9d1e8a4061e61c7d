"""Benchmark of `training.sweep` on 64 small networks; PyTorch trains them one by one.

An MLP reads whole images of digits, and a GRU reads the images row by row. Each kind of
network is trained by Adam on mini-batches, with 8 learning rates and 8 seeds. PyTorch
runs the same trainings in eager mode, with the number of threads that makes PyTorch
fastest. The compilation of the sweep is timed separately. The sweep is also timed on
one CPU core, on all cores as one JAX device, and on all cores as two JAX devices.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, gradients, training
from experiments import data
from experiments.benchmarks import _works
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._torch import torch
from experiments.harness.noise import ratio_interval
from experiments.harness.timing import Gauge, Measured, Work

RATES = [0.001 * 1.6**i for i in range(8)]
SEEDS, STEPS, BATCH, REPEATS = 8, 200, 32, 3
PIXELS, ROWS, CLASSES = 64, 8, 10
UNITS = {"MLP 64-16-10": 16, "GRU 8-16-10, T 8": 16}
DEVICES = 2
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class Timed(NamedTuple):
    """Times of a sweep and of its compilation, and test accuracies of its networks."""

    seconds: float
    compile_seconds: float
    accuracies: list[float]


def sweep() -> Groups:
    """Return groups of timings: sweep against PyTorch, and sweep on several devices."""
    groups: Groups = {}
    number = len(RATES) * SEEDS
    for network in UNITS:
        group = f"{number} runs of {STEPS} steps, {network}, B {BATCH}"
        groups[group] = partial(_in_turns, group, network)
    if jax.default_backend() == "cpu" and hasattr(os, "sched_getaffinity"):
        for network in UNITS:
            group = f"{number} runs, {network}, by devices"
            groups[group] = partial(_by_devices, group, network)
    return groups


def _in_turns(group: str, network: str, repeats: int) -> Iterator[Measured]:
    """Time the sweep and the same trainings by PyTorch, alternately."""
    entrants = {"sweep, all at once": by_sweep}
    if torch() is not None:
        entrants["torch, one after another"] = by_torch
    runs = {name: [] for name in entrants}
    gauge = Gauge()
    for _ in range(min(repeats, REPEATS)):
        for name, run in entrants.items():
            runs[name].append(run(network))
        gauge.measure()
    missing = "" if torch() else "; not installed: torch"
    floors = dict.fromkeys(runs, gauge.floor_ms(_work(network)))
    return _rows(group, runs, f"{missing}; {gauge.describe()}", floors)


def _work(network: str) -> Work:
    """Return the work of all training runs together: the products of each step."""
    if "MLP" in network:
        of_step = _works.layers((PIXELS, UNITS[network], CLASSES), BATCH)
    else:
        units = UNITS[network]
        init = lambda: cells.gru.init(jax.random.key(0), PIXELS // ROWS, units)
        run = _works.Run(jax.eval_shape(init), ROWS, BATCH, units)
        readout = 3 * 2 * BATCH * units * CLASSES
        of_step = Work(_works.gradient(run).flops + readout)
    return _works.times(of_step, len(RATES) * SEEDS * STEPS)


def by_sweep(network: str) -> Timed:
    """Train a network for each learning rate and seed, all together by `sweep`."""
    result = training.sweep(
        _maker(network), [{"rate": rate} for rate in RATES], range(SEEDS), steps=STEPS
    )
    (group,) = result.groups
    accuracies = [row["accuracy"] for row in result.rows]
    return Timed(group.seconds, group.compile_seconds, accuracies)


def _maker(network: str) -> Callable:
    train, test = data.digits()
    images, labels = map(jnp.asarray, train)
    init, predict, grad = _mlp() if "MLP" in network else _gru()

    def make_run(config, key):
        update, params = optax.adam(config["rate"]), init(key)

        def advance(state, t):
            params, opt_state = state
            of_step = jax.random.fold_in(key, t)
            batch = jax.random.randint(of_step, (BATCH,), 0, len(images))
            loss, grads = grad(params, images[batch], labels[batch])
            change, opt_state = update.update(grads, opt_state)
            return (optax.apply_updates(params, change), opt_state), {"loss": loss}

        def evaluate(state):
            hits = jnp.argmax(predict(state[0], test[0]), axis=-1) == test[1]
            return {"accuracy": 100 * jnp.mean(hits)}

        return (params, update.init(params)), advance, evaluate

    return make_run


def _dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Draw the weights and biases of a dense layer as torch.nn.Linear does."""
    draw = jax.random.uniform(key, (inputs + 1, outputs), minval=-1) / inputs**0.5
    return {"w": draw[1:], "b": draw[0]}


def _apply(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["w"] + layer["b"]


def _mlp() -> tuple[Callable, Callable, Callable]:
    units = UNITS["MLP 64-16-10"]

    def init(key):
        keys = jax.random.split(key)
        return _dense(keys[0], PIXELS, units), _dense(keys[1], units, CLASSES)

    predict = lambda params, x: _apply(params[1], jnp.tanh(_apply(params[0], x)))
    loss = lambda params, x, y: jnp.mean(cross_entropy(predict(params, x), y))
    return init, predict, jax.value_and_grad(loss)


def _gru() -> tuple[Callable, Callable, Callable]:
    units = UNITS["GRU 8-16-10, T 8"]
    init = lambda key: {
        "cell": cells.gru.init(key, PIXELS // ROWS, units),
        "out": _dense(jax.random.fold_in(key, 1), units, CLASSES),
    }
    rows = lambda x: jnp.swapaxes(jnp.reshape(x, (-1, ROWS, PIXELS // ROWS)), 0, 1)
    carry = lambda x: jnp.zeros((len(x), units))

    def predict(params, x):
        h, _ = gradients.unroll(cells.gru, params["cell"], carry(x), rows(x))
        return _apply(params["out"], h)

    def mean_loss(params, x, y):
        return jnp.mean(cross_entropy(predict(params, x), y))

    return init, predict, jax.value_and_grad(mean_loss)


def by_torch(network: str) -> Timed:
    """Train a network for each learning rate and seed, one after another by PyTorch."""
    module: Any = torch()
    module.set_num_threads(_threads(network))
    start = time.perf_counter()
    pairs = [(rate, seed) for rate in RATES for seed in range(SEEDS)]
    accuracies = [_one_by_torch(network, rate, seed, STEPS) for rate, seed in pairs]
    return Timed(time.perf_counter() - start, float("nan"), accuracies)


@cache
def _threads(network: str) -> int:
    """Return the number of threads with which PyTorch trains a network fastest."""
    module: Any = torch()

    def seconds(threads):
        module.set_num_threads(threads)
        _one_by_torch(network, RATES[0], 0, 20)
        start = time.perf_counter()
        _one_by_torch(network, RATES[0], 0, 200)
        return time.perf_counter() - start

    return min(range(1, (os.cpu_count() or 1) + 1), key=seconds)


def _one_by_torch(network: str, rate: float, seed: int, steps: int) -> float:
    """Train one network by PyTorch; return its test accuracy in percent."""
    module: Any = torch()
    module.manual_seed(seed)
    (images, labels), test = (
        tuple(module.from_numpy(np.asarray(array)) for array in part)
        for part in data.digits()
    )
    labels, units = labels.long(), UNITS[network]
    nn = module.nn
    if "MLP" in network:
        parts = nn.Linear(PIXELS, units), nn.Tanh(), nn.Linear(units, CLASSES)
        model = nn.Sequential(*parts)
        predict = model
    else:
        cell = nn.GRU(PIXELS // ROWS, units, batch_first=True)
        model = nn.ModuleList([cell, nn.Linear(units, CLASSES)])
        predict = lambda x: model[1](cell(x.view(-1, ROWS, PIXELS // ROWS))[0][:, -1])
    optimizer = module.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        batch = module.randint(len(images), (BATCH,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(predict(images[batch]), labels[batch]).backward()
        optimizer.step()
    with module.no_grad():
        hits = predict(test[0]).argmax(1) == test[1]
        return 100 * hits.float().mean().item()


def _rows(
    group: str, runs: dict[str, list[Timed]], told: str, floors: dict[str, float]
) -> Iterator[Measured]:
    """Yield table rows: a median time, and its ratio to the first row's median time.

    `told` is said in the note of the first row.
    """
    first = [timed.seconds for timed in next(iter(runs.values()))]
    ours = statistics.median(first)
    for name, all_timed in runs.items():
        seconds = [timed.seconds for timed in all_timed]
        compiled = statistics.median(timed.compile_seconds for timed in all_timed)
        median, mean = statistics.median(seconds), np.mean(all_timed[0].accuracies)
        low, _, high = statistics.quantiles(seconds, n=4)
        note = f"test accuracy {mean:.1f} %{told}"
        told = ""
        if "torch" in name:
            note += f"; {_threads_told(group)}"
        yield Measured(
            group, name, 1000 * median, (high - low) / 2 / median, median / ours,
            compiled, float("nan"), note, *ratio_interval(seconds, first),
            floor_ms=floors.get(name, float("nan")),
        )  # fmt: skip


def _threads_told(group: str) -> str:
    (network,) = (name for name in UNITS if name in group)
    return f"threads: {_threads(network)}"


def _by_devices(group: str, network: str, repeats: int) -> Iterator[Measured]:
    """Time the sweep on one core, and on all cores as one and as two JAX devices."""
    cores = len(os.sched_getaffinity(0))
    entrants = {
        "1 device, 1 core": (1, True),
        f"1 device, {cores} cores": (1, False),
        f"{DEVICES} devices, {cores} cores": (DEVICES, False),
    }
    runs, gauge = {name: [] for name in entrants}, Gauge()
    for _ in range(min(repeats, REPEATS)):
        for name, (devices, pinned) in entrants.items():
            runs[name].append(_in_a_process(network, devices, pinned))
        gauge.measure()
    floor = gauge.floor_ms(_work(network))  # on all cores
    floors = {name: floor for name, (_, pinned) in entrants.items() if not pinned}
    return _rows(group, runs, f"; {gauge.describe()}", floors)


def _in_a_process(network: str, devices: int, pinned: bool) -> Timed:
    """Time a sweep in a new process, whose CPU is split into `devices` JAX devices.

    If `pinned` is True, the process uses only one core.
    """
    pin = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " if pinned else ""
    code = (
        f"import json, os; {pin}from experiments.benchmarks import _sweep; "
        f"print(json.dumps(_sweep.by_sweep({network!r})))"
    )
    settings = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings, capture_output=True, check=True,
    )  # fmt: skip
    return Timed(*json.loads(done.stdout.splitlines()[-1]))
