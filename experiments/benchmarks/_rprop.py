"""One Rprop step on millions of parameters, against optax and PyTorch.

It is bound by memory: a step has to read gradients, and to read and write parameters
and state. So rates are told too, beside that of a program that does nothing but move as
many bytes as the state of 4 bytes makes necessary.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax

from bpvariants import updates
from experiments.benchmarks._torch import torch, torch_device
from experiments.harness.timing import Foreign, Measured, race

MOVED = {"float32": 28, "int8_sign": 22, "packed": 20, "bfloat16": 16}  # bytes
LARGE = 200_000_000  # from where the other optimizers are left out, for their memory


def rprop(repeats: int, size: int) -> Iterator[Measured]:
    """Time a step whose state is donated, as in a training loop."""
    states = {f"rprop, {state}": updates.rprop(0.1, state=state) for state in MOVED}
    packed = {"rprop, packed": states["rprop, packed"]}
    ours = {"rprop, int8_sign": states["rprop, int8_sign"]}
    peers = {**ours, **packed, "optax.rprop": optax.rprop(0.1)}
    others = {
        **ours,
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
    grads = jax.random.normal(jax.random.key(0), (size,))
    every = lambda optimizers: {
        name: _entrant(optimizer, grads) for name, optimizer in optimizers.items()
    }
    # Reads 12 bytes a parameter and writes 8.
    copy = lambda both, grads: (both[0] + grads, both[1] + 1)
    both = jnp.zeros_like(grads), jnp.ones_like(grads)
    copies = {"copy of 20 bytes": (copy, (both, grads))}
    group = f"rprop step, {size:,} float32 parameters"
    yield from _race(f"{group}: states", every({**packed, **states}) | copies, repeats)
    by_torch = {} if torch() is None else {"torch.optim.Rprop, foreach": _torch(size)}
    yield from _race(f"{group}: peers", every(peers) | by_torch, repeats)
    if size < LARGE:
        yield from _race(f"{group}: others", every(others), repeats)


def _race(group, entrants, repeats):
    """Add the rates of those whose least traffic is known."""
    missing = "peers" in group and not any("torch" in name for name in entrants)
    for row in race(group, entrants, repeats=repeats, donate=True):
        moved = 20 if "copy" in row.name else MOVED.get(row.name.split(", ")[-1])
        size = int(group.split(" ")[2].replace(",", ""))
        note = f"{moved * size / row.ms / 1e6:.3g} GB/s" if moved else ""
        if missing:
            note, missing = f"{note}; not installed: torch", False
        yield row._replace(note=note)


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
