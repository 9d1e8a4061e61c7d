"""Training loop in chunks: a Python loop over jitted scans of many steps.

Between chunks the Python loop logs, shows progress, writes checkpoints and can be
interrupted. Work between chunks does not slow the steps of a chunk down.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._checks import check_arrays, ONLY_ARRAYS
from bpvariants._dtypes import is_key
from bpvariants.training._placement import mesh_of, placed
from bpvariants.training.checkpoints._checkpoint import Checkpoint
from bpvariants.training.checkpoints._leaves import describe
from bpvariants.training.checkpoints._store import Store
from bpvariants.training.loop._chunk import Recipe
from bpvariants.training.loop._fit_checks import (
    as_update,
    check_counts,
    check_functions,
    check_key,
    check_not_traced,
    check_rule,
    check_runs,
    check_settings,
)
from bpvariants.training.loop._loop import Log, Plan, Stop, Training
from bpvariants.training.loop._nonfinite import Diagnose
from bpvariants.training.loop._state import FitResult, own, Reached, TrainState
from bpvariants.types import PyTree


def fit(
    rule: Callable[..., tuple[tuple[jax.Array, PyTree], PyTree]],
    update: optax.GradientTransformation | optax.MultiSteps,
    params: PyTree,
    data: PyTree | Iterable[tuple] | Callable[[int], Iterable[tuple]],
    *,
    steps: int,
    chunk: int = 100,
    sample: Callable[[jax.Array, PyTree], tuple] | None = None,
    draws: bool = False,
    key: jax.Array | None = None,
    carry: PyTree | None = None,
    runs: int | None = None,
    log: Log | Sequence[Log] | None = None,
    stop: Stop | None = None,
    nonfinite: str | None = None,
    diagnose: Diagnose | None = None,
    checkpoint: Checkpoint | None = None,
) -> FitResult:
    """Train params with gradients from a rule and an optax update, in jitted chunks.

        (value, carry), grads = rule(params, [carry,] *batch)
        updates, state = update.update(grads, state, params, value=value)

    The update gets the loss as `value`, which some updates need (iRprop⁺,
    `optax.polyak_sgd`) and other updates ignore.

    After Ctrl-C, or at the end of the data, `fit` finishes the running chunk, writes a
    checkpoint if `checkpoint` is given, and returns the result so far. With
    `checkpoint`, SIGTERM, which schedulers send before they kill, also writes a
    checkpoint and then ends the process. With several processes, all processes return
    after the same chunk, whichever process received the signal.

    A chunk keeps its first state if the state is at most 64 MiB large. If the chunk
    ends in NaN, it is run again from its first state to find the step. A larger state
    is overwritten (donated), and each step is checked. With `nonfinite="ignore"` every
    state is overwritten and nothing is checked. Each call of `fit` compiles its own
    programs; for many short trainings use `runs` or :func:`sweep`.

    Recomputation of activations is a setting of the rule, as in
    `gradients.bptt(step, loss, remat=gradients.remat.budget(…))`; `fit` cannot add it
    from outside. To train on several devices, give sharded arrays: they keep their
    shardings, and arrays made from params, such as the update's state, get the
    shardings of params.

    Args:
      rule: any function (params, *batch) -> ((value, aux), grads): a gradient rule, or
        `jax.value_and_grad(..., has_aux=True)`.
      update: an optax transformation, which is applied to the gradient.
      params: the initial params; a copy is made.
      data: one of

        - a tuple: the batch of every step (full batch);
        - any pytree, with `sample`: the data to draw mini-batches from;
        - an iterable of batches, from the first step on, which are tuples of equal
          shapes. A resumed training skips the batches that it has used;
        - a function (step) -> iterable of batches from that step on, so that a resumed
          training need not read earlier batches.
      steps: number of updates.
      chunk: number of steps that one program runs; logs are called after each chunk.
      sample: (key, data) -> batch, run on the device, to draw mini-batches.
      draws: whether the rule draws random numbers. If so, the rule gets `key=`, a
        different key at each step, which also differs from the key of `sample`.
      key: a `jax.random.key`, from which `sample` and the rule draw. Step t has its own
        keys, which do not depend on `chunk`.
      carry: if given, the rule's second argument, for streams of windows and online
        rules. After each step, the aux that the rule returned replaces the carry.
      runs: if given, this many independent trainings run together under `vmap`. Leaves
        of params and carry have a first axis of this size. Each run has its own key.
      log: a function (step, metrics) -> None, or several in a sequence, called after
        each chunk. The metrics are the `value` of the chunk's last step, the `values`
        of all steps so far, `params`, and the number of `skipped` steps. If the state
        of the update has them, the metrics include the `learning_rate` (of
        `optax.inject_hyperparams`) and the "min", "median" and "max" of `step_sizes`
        (of Rprop). `params` are on the device; use them before the log returns, because
        the next chunk overwrites them.
        :class:`JsonLog` writes metrics to a file.
      stop: (step, metrics) -> whether to end the training here. To be right after a
        resumption, `stop` should depend only on its arguments.
      nonfinite: what to do when a loss, or the params after a step, are NaN or
        infinite. "raise" (default) raises an error. "stop" (default with `runs`) ends
        the training before the step with the NaN; with `runs`, "stop" freezes only the
        run with the NaN. "skip" leaves params, state and carry as they were, and takes
        the next batch. "ignore" continues with the NaN and checks nothing.
      diagnose: a function to call if `nonfinite="raise"` raises an error, with the
        arguments of the rule except its key. The error has the result of `diagnose`,
        and shows the result's `table()` if there is one. See :func:`diagnosis`.
      checkpoint: a :class:`Checkpoint`, which says where to write checkpoints and where
        to resume from.

    Returns:
      A :class:`FitResult`.

    Raises:
      NonFiniteError: a FloatingPointError, with `nonfinite="raise"`. It names the step
        and the arrays, and has the batch and the params before the step.
      ValueError: if an argument is out of its range, if a key is given and nothing
        draws, if `sample` or the rule draws and no key is given, if params or carry do
        not have the axis of runs, or if a checkpoint is from a different training.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> result = training.fit(rule, optax.sgd(0.5), 0.0, (3.0,), steps=2)
      >>> result.params.item(), result.values.tolist()
      (3.0, [9.0, 0.0])
    """
    check_rule(rule)
    update = as_update(update)
    check_counts(steps, chunk, runs)
    check_key(sample, draws, key)
    nonfinite = nonfinite or ("raise" if runs is None else "stop")
    one = isinstance(log, str) or not isinstance(log, Sequence)
    given: Any = (log,) if one else log
    logs = tuple(each for each in given if each is not None)
    check_functions(log=logs, stop=() if stop is None else (stop,))
    check_settings(nonfinite, checkpoint, diagnose)
    check_runs(runs, params=params, carry=carry)
    recipe = Recipe(rule, update, sample, carry is not None, draws, nonfinite)
    whole = data if sample is not None or isinstance(data, tuple) else None
    check_arrays("params", params, ONLY_ARRAYS)
    if not jax.tree.leaves(params):
        raise ValueError("params has no arrays to train; give a pytree of arrays.")
    check_arrays("carry", carry)
    check_arrays("data", whole)
    reached = _start(update, params, carry, whole, runs)
    plan = Plan(steps, chunk, runs, key, logs, stop, diagnose)
    store = None
    if checkpoint is not None:
        store = Store(
            checkpoint,
            data=None if whole is None else describe(whole),
            runs=runs,
            key=None if key is None else _numbers(key),
        )
    return Training(recipe, plan, reached, store).run(data)


def _start(update, params, carry, data, runs) -> Reached:
    """Return the state before the first step, in arrays that no other code uses."""
    check_not_traced((params, carry, data))
    mesh = mesh_of(params, carry, data)
    params = placed(own(params), params, mesh)
    init = update.init if runs is None else jax.vmap(update.init)
    state = TrainState(params, own(init(params)), own(carry))
    check_not_traced(state)
    lanes = () if runs is None else (runs,)
    alive = placed(jnp.ones(lanes, bool), None, mesh)
    zeros = np.zeros(lanes, int)
    return Reached(placed(state, params, mesh), alive, 0, zeros, zeros - 1)


def _numbers(key: jax.Array) -> list:
    """Return the data of a random key as a list that JSON can store."""
    return np.asarray(jax.random.key_data(key) if is_key(key) else key).tolist()
