"""Benchmark of one Rprop step on millions of parameters, against optax and PyTorch.

A step of Rprop reads the gradient, and reads and writes the parameters and the state.
Memory bandwidth limits the speed of a step, so the notes of the table also show how
many gigabytes per second a step moves. The baseline of the comparison is a program that
does little more than copy arrays. This program moves as many bytes as a step of Rprop
whose state has 4 bytes per parameter. The floor of each optimizer is a copy of the
bytes that it must move. Before the optimizers are timed, a few steps of bpvariants and
of PyTorch on the same gradients are compared. Those of optax are not, because its Rprop
applies each step one iteration too late.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import updates
from experiments.benchmarks._groups import Groups
from experiments.benchmarks._torch import torch, torch_device
from experiments.harness.timing import (
    check_agreement,
    Entrants,
    Foreign,
    Measured,
    race,
    Work,
)

# {`state` argument of rprop: bytes that a step reads and writes for each parameter}.
MOVED = {"float32": 28, "int8_sign": 22, "packed": 20, "bfloat16": 16}
# The same for optimizers of peers: gradient, params, step sizes and last signs.
PEERS = {"optax.rprop": 28, "torch.optim.Rprop, foreach": 28}
# Largest difference of params after a few steps, relative to their norm. The last bit
# of each step size is not stored in "packed".
SAME = 1e-5
STEPS = 6
LARGE = 200_000_000  # from so many parameters on, some optimizers need too much memory


def rprop(size: int) -> Groups:
    """Return groups of timings; each timed call is one step of an optimizer.

    As in training, the memory of the old parameters and of the old state is reused for
    the new ones (donated).
    """
    kinds: dict[str, Callable[[int], Entrants]] = {"states": _states, "peers": _peers}
    if size < LARGE:
        kinds["others"] = _others
    names = {f"rprop step, {size:,} float32 parameters: {kind}": kind for kind in kinds}
    return {
        group: partial(_race, group, kinds[kind], size) for group, kind in names.items()
    }


def _race(
    group: str, make: Callable[[int], Entrants], size: int, repeats: int
) -> Iterator[Measured]:
    """Time a group of optimizers; note the GB/s of those whose bytes are known."""
    missing = "peers" in group and torch() is None
    if "peers" in group and not missing:
        _check_steps()
    entrants = make(size)
    work = {
        name: Work(bytes=moved * size)
        for name in entrants
        if (moved := _moved(name)) is not None
    }
    for row in race(group, entrants, repeats=repeats, donate=True, work=work):
        moved = _moved(row.name)
        note = f"{moved * size / row.ms / 1e6:.3g} GB/s" if moved else ""
        if missing:
            note, missing = f"{note}; not installed: torch", False
        told = "; ".join(filter(None, [note, row.note]))
        yield row._replace(note=told)


def _moved(name: str) -> int | None:
    """Return the bytes per parameter that an optimizer's step must move, if known."""
    if "copy" in name:
        return 20
    return PEERS.get(name, MOVED.get(name.split(", ")[-1]))


def _check_steps() -> None:
    """Check that a few steps equal those of PyTorch on the same gradients."""
    module = torch()
    assert module is not None
    grads = jax.random.normal(jax.random.key(1), (STEPS, 1000))
    leaf = module.zeros(grads.shape[1], requires_grad=True)
    by_torch, found = module.optim.Rprop([leaf], lr=0.1, foreach=True), {}
    for g in np.array(grads):
        leaf.grad = module.from_numpy(np.array(g))
        by_torch.step()
    found["torch"] = leaf.detach().numpy()
    for name, optimizer in _ours("int8_sign", "packed").items():
        params = jnp.zeros(grads.shape[1])
        state = optimizer.init(params)
        for g in grads:
            change, state = optimizer.update(g, state, params)
            params = params + change
        found[name] = np.asarray(params)
    check_agreement(found, SAME, f"params after {STEPS} steps")


def _every(grads: jax.Array, optimizers: dict[str, Any]) -> Entrants:
    return {name: _entrant(each, grads) for name, each in optimizers.items()}


def _grads(size: int) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (size,))


def _ours(*states: Any) -> dict[str, Any]:
    return {f"rprop, {state}": updates.rprop(0.1, state=state) for state in states}


def _states(size: int) -> Entrants:
    """Return Rprop with each format of its state, and a baseline that copies arrays."""
    # For each parameter, the copying program reads 12 bytes and writes 8 bytes.
    copy = lambda both, grads: (both[0] + grads, both[1] + 1)
    grads = _grads(size)
    both = jnp.zeros_like(grads), jnp.ones_like(grads)
    copies: Entrants = {"copy of 20 bytes": (copy, (both, grads))}
    return _every(grads, _ours("packed") | _ours(*MOVED)) | copies


def _peers(size: int) -> Entrants:
    peers = _ours("int8_sign", "packed") | {"optax.rprop": optax.rprop(0.1)}
    by_torch: Entrants = {}
    if torch() is not None:
        by_torch["torch.optim.Rprop, foreach"] = _torch(size)
    return _every(_grads(size), peers) | by_torch


def _others(size: int) -> Entrants:
    others = {
        **_ours("int8_sign"),
        "rprop_plus": updates.rprop_plus(0.1),
        "rprop_minus": updates.rprop_minus(0.1),
        "irprop_plus": updates.irprop_plus(0.1),
        "half_back": updates.half_back(0.1),
        "probabilistic_rprop": updates.probabilistic_rprop(0.1),
        "manhattan": updates.manhattan(0.1),
        "forgetting": updates.forgetting(0.1, 0.9),
        "optax.sgd, momentum": optax.sgd(0.1, momentum=0.9),
        "optax.adam": optax.adam(0.1),
    }
    return _every(_grads(size), others)


def _entrant(optimizer, grads):
    optimizer = optax.with_extra_args_support(optimizer)

    def step(params_and_state, grads):
        params, state = params_and_state
        change, state = optimizer.update(grads, state, params, value=0.0)
        return optax.apply_updates(params, change), state

    params = jnp.zeros_like(grads)
    return step, ((params, optimizer.init(params)), grads)


def _torch(size):
    module, device = torch(), torch_device()
    assert module is not None
    params = module.zeros(size, device=device, requires_grad=True)
    params.grad = module.randn(size, device=device)
    optimizer = module.optim.Rprop([params], lr=0.1, foreach=True)

    def run():
        optimizer.step()
        if device == "cuda":
            module.cuda.synchronize()

    return Foreign(run)
