"""Metrics for logs: losses, params, and values from the state of the update."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._dtypes import is_floating
from bpvariants.training.loop._state import Reached, Values
from bpvariants.types import PyTree

MOST = 65_536  # least number of step sizes in the subset whose median is taken


def state_readings(opt_state: PyTree) -> dict[str, Any]:
    """Return the learning rate and the step sizes in an optimizer's state, if any.

    The entry `learning_rate` has shape [], or [k] if the state contains k learning
    rates. The entry `step_sizes` is a dict of the "min", "median" and "max" over all
    parameters, each of shape []. If there are at least 131,072 step sizes, the median
    is taken over an evenly spaced subset.
    """
    rates = [leaf for leaf in _found(opt_state, "learning_rate") if leaf.ndim == 0]
    sizes = [jnp.abs(leaf.ravel()) for leaf in _found(opt_state, "step_sizes")]
    sizes = [leaf.astype(float) for leaf in sizes if leaf.size]
    readings: dict[str, Any] = {}
    if rates:
        rates = [rate.astype(float) for rate in rates]
        readings["learning_rate"] = rates[0] if len(rates) == 1 else jnp.stack(rates)
    if sizes:
        every = max(1, sum(leaf.size for leaf in sizes) // MOST)
        chosen = jnp.concatenate([leaf[::every] for leaf in sizes])
        readings["step_sizes"] = {
            "min": jnp.min(jnp.stack([jnp.min(leaf) for leaf in sizes])),
            "median": jnp.median(chosen),
            "max": jnp.max(jnp.stack([jnp.max(leaf) for leaf in sizes])),
        }
    return readings


class Metrics:
    """Callable that returns the metrics of a chunk; the params stay on the device."""

    def __init__(self, runs: int | None, fresh: Reached):
        read = _reader(runs)
        found = jax.eval_shape(read, fresh.state.opt_state)
        self._read = read if found else lambda _: {}
        self.names = ["value", "values", "skipped", *found]  # numeric metrics
        self.names = [name for name in self.names if name != "step_sizes"]

    def __call__(self, reached: Reached, values: Values) -> dict[str, Any]:
        """Return the metrics at the end of a chunk of training steps."""
        seen = values.until(reached.steps)
        return {
            "value": seen[..., -1] if reached.steps else np.nan,
            "values": seen,
            "params": reached.state.params,
            "skipped": reached.skipped,
            **self._read(reached.state.opt_state),
        }


@functools.cache  # so that a second `fit` does not compile the function again
def _reader(runs: int | None) -> Callable[[PyTree], dict[str, Any]]:
    if runs is None:
        return jax.jit(state_readings)
    return jax.jit(jax.vmap(state_readings, axis_size=runs))


def _found(tree: PyTree, name: str) -> list[jax.Array]:
    """Return the floating leaves of all fields called `name` in a state."""
    parts = optax.tree.get_all_with_path(tree, name)
    return [
        jnp.asarray(leaf)
        for leaf in jax.tree.leaves([part for _, part in parts])
        if is_floating(leaf)
    ]
