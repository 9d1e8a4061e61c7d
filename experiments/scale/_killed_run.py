"""The run that `kill_resume` kills: `python -m experiments.scale._killed_run FOLDER …`.

The run has everything that a checkpoint must restore: an online rule with a state and
random numbers, an optimizer with a schedule, random batches, and a log.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants import cells, gradients, training
from bpvariants.types import PyTree


def run(folder: Path, steps: int, chunk: int, units: int) -> training.FitResult:
    """Train a small network online by UORO; resume if the folder has a checkpoint."""
    loss = lambda y, target: jnp.mean((y - target) ** 2, axis=-1)
    online = gradients.uoro(cells.tanh, loss)
    params = cells.tanh.init(jax.random.key(0), 2, units)

    def rule(params, state, x, target, *, key):
        value, grads, state = online.update(params, state, x, target, key=key)
        return (value, state), grads

    def sample(key, _):
        x = jax.random.normal(key, (2,))
        return x, jnp.full(units, jnp.tanh(x[0] - x[1]))

    one = jnp.zeros(2), jnp.zeros(units)
    rate = optax.exponential_decay(0.01, steps, 0.1)
    return training.fit(
        rule,
        optax.inject_hyperparams(optax.adam)(rate),
        params,
        None,
        steps=steps,
        chunk=chunk,
        sample=sample,
        key=jax.random.key(1),
        carry=online.init(params, jnp.zeros(units), one),
        log=training.JsonLog(folder / "log.jsonl"),
        checkpoint=training.Checkpoint(folder / "checkpoints", keep=2, best="value"),
    )


def leaves(tree: PyTree) -> dict[str, np.ndarray]:
    """Return {index: array} of the leaves of a tree; a key becomes its integers."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    plain = lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf
    return {str(i): np.asarray(plain(x)) for i, x in enumerate(jax.tree.leaves(tree))}


def main(folder: Path, steps: int, chunk: int, units: int) -> None:
    """Train to the end; write final params, states and all losses to reached.npz."""
    result = run(folder, steps, chunk, units)
    reached = result.params, result.opt_state, result.carry, result.values
    begin = -1 if result.resumed_from is None else result.resumed_from
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = leaves(reached) | {"resumed_from": np.array(begin)}
    beside = folder / "reached.tmp"
    with beside.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(beside, folder / "reached.npz")  # atomic: never a partial file


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
