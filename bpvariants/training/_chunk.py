"""The steps of one chunk, as one program: a scan of gradients and updates.

    (ℓ_t, aux), g_t = rule(θ_t, *batch_t)      Δ_t, s_{t+1} = update(g_t, s_t, θ_t, ℓ_t)
    θ_{t+1} = θ_t + Δ_t    if ℓ_t, g_t and θ_t + Δ_t are finite

Keys are told apart so: step t draws its batch with fold_in(key, t), and its rule with
fold_in(fold_in(key, 2³² − 1), t), however steps are cut into chunks.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._dtypes import is_floating
from bpvariants.training._placement import shardings_of
from bpvariants.training._state import TrainState
from bpvariants.types import PyTree

POLICIES = ("raise", "skip", "stop", "ignore")
OF_RULES = 0xFFFFFFFF  # no step has this number


class Recipe(NamedTuple):
    """What a step does."""

    rule: Callable[..., tuple[tuple[jax.Array, PyTree], PyTree]]
    update: Any  # with extra arguments
    sample: Callable[[jax.Array, PyTree], tuple] | None
    stateful: bool  # the rule takes a carry and returns the next
    draws: bool  # the rule takes a key
    nonfinite: str  # one of POLICIES


def take_step(
    recipe: Recipe, state: TrainState, batch: tuple, key: jax.Array | None
) -> tuple[TrainState, jax.Array, PyTree]:
    """Return the state after a step, its loss, and its gradients."""
    carries = (state.carry,) if recipe.stateful else ()
    options = {"key": key} if recipe.draws else {}
    result = recipe.rule(state.params, *carries, *batch, **options)
    match result:
        case ((value, aux), grads) if jnp.ndim(value) == 0:
            pass
        case _:
            raise ValueError(
                "rule must return ((value, aux), grads) with a scalar value, as "
                "gradient rules and jax.value_and_grad(..., has_aux=True) do; got a "
                f"result of shapes {jax.tree.map(jnp.shape, result)}."
            )
    updates, opt_state = recipe.update.update(
        grads, state.opt_state, state.params, value=value
    )
    params = optax.apply_updates(state.params, updates)
    return (
        TrainState(params, opt_state, aux if recipe.stateful else None),
        value,
        grads,
    )


def step_keys(
    recipe: Recipe, key: jax.Array | None, steps: jax.Array
) -> tuple[jax.Array | None, jax.Array | None]:
    """Return the keys of batches and of rules, [steps] each, or None."""
    if key is None:
        return None, None
    of = lambda key: jax.vmap(partial(jax.random.fold_in, key))(steps)
    return (
        None if recipe.sample is None else of(key),
        of(jax.random.fold_in(key, OF_RULES)) if recipe.draws else None,
    )


def run_keys(key: jax.Array | None, runs: int | None) -> jax.Array | None:
    """Return the key of each run, [runs]; without runs, the key."""
    return key if key is None or runs is None else jax.random.split(key, runs)


def train(recipe: Recipe, size: int, reached, key, first, inputs):
    """Take `size` steps; return (state, alive) and, [size], losses and what was kept.

    Whatever is not finite ends the training: then what follows changes nothing, and its
    losses are NaN. With "skip", it is only that step that is not taken.
    """
    whole, stacked = inputs
    keys = step_keys(recipe, key, first + jnp.arange(size, dtype=jnp.uint32))

    def body(reached, per_step):
        state, alive = reached
        batch, (sample_key, rule_key) = per_step
        if recipe.sample is not None:
            batch = recipe.sample(sample_key, whole)
        elif whole is not None:
            batch = whole
        new, value, grads = take_step(recipe, state, batch, rule_key)
        if recipe.nonfinite == "ignore":
            return (new, alive), (value, None)
        keep = all_finite((value, grads, new.params))
        if recipe.nonfinite != "skip":
            alive = keep = keep & alive
            value = jnp.where(keep, value, jnp.nan)
        new = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new, state)
        return (new, alive), (value, keep)

    return jax.lax.scan(body, reached, (stacked, keys), length=size)


def all_finite(tree: PyTree) -> jax.Array:
    """Return whether all floating numbers are finite, []."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


class Chunks:
    """Programs of chunks, compiled when a chunk is of a new size, and their times."""

    def __init__(self, recipe: Recipe, runs: int | None, key: jax.Array | None):
        self._recipe, self._runs, self._key = recipe, runs, key
        self._compiled: dict[Any, Any] = {}
        self.seconds = self.compile_seconds = 0.0

    def compiled(self, reached, first: int, inputs, size: int):
        """Return the program of such a chunk, and its arguments."""
        arguments = reached, self._key, np.uint32(first), inputs
        shape = lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf))
        kind = size, *map(shape, jax.tree.leaves(inputs[1]))
        if kind not in self._compiled:
            start = time.perf_counter()
            run = jax.jit(
                partial(self._train, size),
                donate_argnums=0,
                out_shardings=shardings_of(reached),
            )
            self._compiled[kind] = run.lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[kind], arguments

    def run(self, program, arguments):
        """Run it; return (state, alive), losses [size] and what was kept, or None."""
        start = time.perf_counter()
        reached, flags = jax.block_until_ready(program(*arguments))
        self.seconds += time.perf_counter() - start
        return reached, *(None if part is None else np.asarray(part) for part in flags)

    def _train(self, size, reached, key, first, inputs):
        run = partial(train, self._recipe, size)
        if self._runs is not None:
            key = run_keys(key, self._runs)
            run = jax.vmap(run, in_axes=(0, 0, None, None))
        return run(reached, key, first, inputs)

    @property
    def temp_bytes(self) -> int | None:
        """What a chunk allocates, of those that were compiled, as XLA says."""
        analyses = [each.memory_analysis() for each in self._compiled.values()]
        sizes = [analysis.temp_size_in_bytes for analysis in analyses if analysis]
        return max(sizes, default=None)
