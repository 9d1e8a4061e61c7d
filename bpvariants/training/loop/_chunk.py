"""Jitted function for one chunk of training steps: a scan over gradients and updates.

    (ℓ_t, aux), g_t = rule(θ_t, *batch_t)      Δ_t, s_{t+1} = update(g_t, s_t, θ_t, ℓ_t)
    θ_{t+1} = θ_t + Δ_t    if ℓ_t and θ_t + Δ_t are finite

Here ℓ_t is the loss at training step t, g_t is its gradient, θ_t are the params, s_t is
the state of the update, and Δ_t is the change of the params. At step t, the batch is
drawn with the key fold_in(key, t), where `key` is the key of the training. The gradient
rule gets the key fold_in(fold_in(key, 2³² − 1), t). This key differs from the keys of
all batches, because no step has the index 2³² − 1. The keys do not depend on the number
of steps in a chunk.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._dtypes import is_floating
from bpvariants.training._placement import shardings_of
from bpvariants.training.loop._programs import recall
from bpvariants.training.loop._rule_call import call_rule, draw_batch, takes_key
from bpvariants.training.loop._state import TrainState
from bpvariants.types import PyTree

NonFinitePolicy: TypeAlias = Literal["raise", "skip", "stop", "ignore"]
POLICIES = get_args(NonFinitePolicy)
OF_RULES = 0xFFFFFFFF  # folded into the training's key to get the rule's key
# If a training state has at most this number of bytes, the state before each chunk of
# steps is kept until the chunk has ended.
SMALL = 64 * 2**20


class Program(NamedTuple):
    """Compiled function of a chunk of training steps."""

    run: Callable[..., Any]
    temp_bytes: int | None  # temporary memory; None if XLA does not report it


class Recipe(NamedTuple):
    """Functions and settings that define a training step."""

    rule: Callable[..., tuple[tuple[jax.Array, PyTree], PyTree]]
    update: Any  # optax update that takes extra arguments
    sample: Callable[[jax.Array, PyTree], tuple] | None
    stateful: bool  # whether the rule takes and returns a carry
    draws: bool | None  # whether the rule takes a key; None before this is known
    nonfinite: str  # one of POLICIES
    owners: tuple  # the user's functions, to whose lifetime compiled functions are tied


def take_step(
    recipe: Recipe, state: TrainState, batch: tuple, key: jax.Array | None
) -> tuple[TrainState, jax.Array, PyTree]:
    """Take a training step; return the new state, the loss and the gradients."""
    carries = (state.carry,) if recipe.stateful else ()
    options = {"key": key} if recipe.draws else {}
    (value, aux), grads = call_rule(recipe.rule, state.params, carries, batch, options)
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
    """Return the keys of `sample` and of the rule for each step; None if not needed."""
    if key is None:
        return None, None
    of = lambda key: jax.vmap(partial(jax.random.fold_in, key))(steps)
    return (
        None if recipe.sample is None else of(key),
        of(jax.random.fold_in(key, OF_RULES)) if recipe.draws else None,
    )


def run_keys(key: jax.Array | None, runs: int | None) -> jax.Array | None:
    """Return a key for each run; if there is only one run, return the key itself."""
    return key if key is None or runs is None else jax.random.split(key, runs)


def train(recipe: Recipe, looks: str, size: int, reached, key, first, inputs):
    """Take `size` steps; return ((state, alive), (losses [size], verdict)).

    The boolean array `verdict` is the result of a check of losses and params for NaN
    and infinity. `looks` says when losses and params are checked:

    - "each": after each step. The verdict [size] is True for steps whose loss and new
      params were finite; only steps with the verdict True were applied.
    - "after": once, after the last step; a NaN in the params of an earlier step is
      still in the last params. The verdict [] is True if all losses and the last params
      are finite.
    - "never": the verdict is None.

    The flag `alive` is False if NaN has ended the run. If `alive` is False before the
    chunk, the state does not change in the chunk, and all losses of the chunk are NaN.
    """
    whole, stacked = inputs
    keys = step_keys(recipe, key, first + jnp.arange(size, dtype=jnp.uint32))

    def body(reached, per_step):
        state, alive = reached
        batch, (sample_key, rule_key) = per_step
        if recipe.sample is not None:
            batch = draw_batch(recipe.sample, sample_key, whole)
        elif whole is not None:
            batch = whole
        new, value, _ = take_step(recipe, state, batch, rule_key)
        if looks != "each":
            return (new, alive), (value, None)
        keep = all_finite((value, new.params))
        if recipe.nonfinite != "skip":
            alive = keep = keep & alive
            value = jnp.where(keep, value, jnp.nan)
        return (choose(keep, new, state), alive), (value, keep)

    end, (values, verdict) = jax.lax.scan(body, reached, (stacked, keys), length=size)
    if looks == "after":
        (state, alive), (old, _) = end, reached
        verdict = all_finite((values, state.params)) | ~alive
        end = choose(alive, state, old), alive
        values = jnp.where(alive, values, jnp.nan)
    return end, (values, verdict)


def choose(new_one: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Return the tree `new` if `new_one` is true, else the tree `old`."""
    return jax.tree.map(lambda new, old: jnp.where(new_one, new, old), new, old)


def all_finite(tree: PyTree) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


class Chunks:
    """Compiled functions for chunks of training steps, one for each number of steps.

    A check for NaN takes a tenth of the time of a training step of a small network. If
    the training state is small, a chunk is therefore checked only after its last step,
    and the state before its first step is kept. If the check finds NaN, the chunk is
    repeated from the kept state, with a check after each step. A large state is
    overwritten to save memory, and checked after each step, because a step on a large
    state takes much longer than a check.
    """

    def __init__(self, recipe: Recipe, runs: int | None, key: jax.Array | None, state):
        self._recipe, self._runs, self._key = recipe, runs, key
        self._compiled: dict[Any, Program] = {}
        self._looks = "after" if _bytes(state) <= SMALL else "each"
        if recipe.nonfinite == "ignore":
            self._looks = "never"
        self.seconds = self.compile_seconds = 0.0

    def prepare(self, reached, first: int, inputs, size: int) -> Callable[[], Any]:
        """Compile the function of a chunk; return a callable that runs the chunk.

        The callable returns three values: the pair of the new state and of a flag that
        is False if the run has ended at NaN; the losses [size] of the steps; and a
        boolean array that marks the applied steps, or None if all steps were applied.
        """
        arguments = reached, self._key, np.uint32(first), inputs
        if self._recipe.draws is None:
            self._recipe = self._recipe._replace(draws=self._draws(*arguments))
        program = self._program(self._looks, size, arguments)

        def take():
            end, values, verdict = self._run(program, arguments)
            if verdict is None or verdict.all():
                return end, values, None
            if self._looks == "after":
                again = self._program("each", size, arguments)
                end, values, verdict = self._run(again, arguments)
            return end, values, verdict

        return take

    def _program(self, looks: str, size: int, arguments):
        reached, _, _, inputs = arguments
        of_leaf = lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf))
        kind = looks, size, *map(of_leaf, jax.tree.leaves(inputs[1]))
        if kind not in self._compiled:
            start, donates = time.perf_counter(), self._looks != "after"

            def compile() -> Program:
                run = jax.jit(
                    partial(self._train, looks, size),
                    donate_argnums=0 if donates else (),
                    out_shardings=shardings_of(reached),
                )
                run = run.lower(*arguments).compile()
                analysis = run.memory_analysis()
                return Program(run, analysis and analysis.temp_size_in_bytes)

            kinds = "chunk", looks, size, donates
            self._compiled[kind] = self._recall(kinds, arguments, compile)
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[kind].run

    def _draws(self, reached, key, first, inputs) -> bool:
        """Return whether the rule takes a key; check that something needs the key."""
        if key is None:
            return False
        recipe, runs = self._recipe, self._runs
        draws = self._recall(
            ("draws",),
            (reached, key, inputs),
            lambda: takes_key(recipe, reached[0], key, inputs, runs),
        )
        if not draws and recipe.sample is None:
            raise ValueError(
                "key was given, but the rule takes no key, and there is no sample, so "
                "nothing draws from it. Leave key out, or give sample(key, data) to "
                "draw batches."
            )
        return draws

    def _recall(self, kind: tuple, arguments: PyTree, make: Callable) -> Any:
        recipe = self._recipe
        settings = recipe.stateful, recipe.draws, recipe.nonfinite, self._runs
        return recall(recipe.owners, (*kind, *settings), arguments, make)

    def _run(self, program, arguments):
        start = time.perf_counter()
        end, flags = jax.block_until_ready(program(*arguments))
        self.seconds += time.perf_counter() - start
        values, verdict = flags
        return end, np.asarray(values), None if verdict is None else np.asarray(verdict)

    def _train(self, looks, size, reached, key, first, inputs):
        run = partial(train, self._recipe, looks, size)
        if self._runs is not None:
            key = run_keys(key, self._runs)
            run = jax.vmap(run, in_axes=(0, 0, None, None))
        return run(reached, key, first, inputs)

    @property
    def temp_bytes(self) -> int | None:
        """Bytes of temporary memory of the largest chunk; None if XLA reports none."""
        sizes = [each.temp_bytes for each in self._compiled.values()]
        return max((size for size in sizes if size is not None), default=None)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
