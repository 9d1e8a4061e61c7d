"""A training loop in chunks: a jitted scan over many steps in a Python loop of chunks.

Between chunks the Python loop logs, shows progress, writes checkpoints and can be
interrupted. None of this slows the steps down.
"""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
    """Train params: gradients from a rule, an update by optax, in jitted chunks.

        (value, carry), grads = rule(params, [carry,] *batch)
        updates, state = update.update(grads, state, params, value=value)

    The update is given `value`, the loss, which those that need it read (iRprop⁺,
    `optax.polyak_sgd`) and others ignore. Ctrl-C ends the training after the chunk that
    is running, writes a checkpoint if there is to be one, and what was reached is
    returned, as it is when the data come to an end. SIGTERM, which schedulers send
    before they kill, has a checkpoint written likewise, and then ends the process. If
    other processes take part, all return after the same chunk, whichever was told.

    Of a state below 64 MiB a chunk keeps the one that it began with, to find out, if it
    ends in NaN, at which step. A larger one is written over by each step (donation),
    and each is looked at; with `nonfinite="ignore"` all are written over, and none is
    looked at. Recomputing activations is up to the rule, as in
    `gradients.bptt(step, loss, remat=gradients.remat.budget(…))`: no loop can do
    it from outside. Arrays that are sharded over devices stay as they are, and what is
    made of params lies as they do: nothing else is needed to train on many devices.
    Each call compiles its own programs: for many short trainings there are `runs` and
    `sweep`.

    Args:
      rule: any function (params, *batch) -> ((value, aux), grads): a gradient rule, or
        `jax.value_and_grad(..., has_aux=True)`.
      update: what is done with the gradient, an optax transformation.
      params: where to begin; a copy is made.
      data: a tuple, the batch of every step (full batch); or anything, with `sample`;
        or an iterable of batches, which are tuples of equal shapes, from the first on:
        a training that resumes passes over those that it used. Or, which need not read
        those, a function (step) -> iterable of batches from that step on.
      steps: how many updates.
      chunk: after how many steps to log; that many are compiled into one program.
      sample: (key, data) -> batch, run on the device, to draw mini-batches.
      draws: whether the rule draws at random: it is then given `key=`, another one at
        each step, and other ones than `sample` is given.
      key: what `sample` and the rule draw with, a `jax.random.key`; step t has keys of
        its own, however steps are cut into chunks.
      carry: if given, it is the rule's second argument, and at the next step the aux
        that the rule returned takes its place: streams of windows, online rules.
      runs: if given, so many independent trainings run together under `vmap`: leaves of
        params, and of carry, have a first axis of that size; each has its own key.
      log: (step, metrics) -> None, or several, called after each chunk. metrics has the
        `value` of the chunk's last step; the `values` so far; `params`, on the device,
        to be used before the log returns, as the next chunk writes over them; how many
        steps were `skipped`; and, if the update's state has them, the `learning_rate`
        (of `optax.inject_hyperparams`) and the "min", "median" and "max" of
        `step_sizes` (of Rprop). :class:`JsonLog` writes them to a file.
      stop: (step, metrics) -> whether to end the training here. To be right after a
        resumption it is a function of its arguments, such as of `metrics["values"]`.
      nonfinite: what to do when a loss, or the params after a step, are NaN or
        infinite. "raise" (default) raises; "stop" (default with `runs`) ends the
        training before that step, of the run in question, whose lane is frozen while
        others go on; "skip" leaves params, state and carry as they were, and takes the
        next batch; "ignore" goes on with the NaN, and does not look.
      diagnose: called as the rule is, but for the key, when a step raises; what it
        returns is part of the error, and so is its `table()`: :func:`diagnosis`.
      checkpoint: where to write checkpoints, and go on from, a :class:`Checkpoint`.

    Returns:
      A :class:`FitResult`.

    Raises:
      NonFiniteError: a FloatingPointError, with `nonfinite="raise"`. It tells the step
        and the arrays, and has the params before it and the batch.
      ValueError: if an argument is out of its range, if there is a key and nothing that
        draws, or the other way round, if params or carry do not have the axis of runs,
        or if a checkpoint is of another training.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> result = training.fit(rule, optax.sgd(0.5), 0.0, (3.0,), steps=2)
      >>> result.params.item(), result.values.tolist()
      (3.0, [9.0, 0.0])
    """
    update = as_update(update)
    check_counts(steps=steps, chunk=chunk, runs=runs)
    check_key(sample, draws, key)
    nonfinite = nonfinite or ("raise" if runs is None else "stop")
    logs = (log,) if not isinstance(log, Sequence) else log
    logs = tuple(each for each in logs if each is not None)
    check_functions(log=logs, stop=() if stop is None else (stop,))
    check_settings(nonfinite, checkpoint, diagnose)
    check_runs(runs, params=params, carry=carry)
    recipe = Recipe(rule, update, sample, carry is not None, draws, nonfinite)
    whole = data if sample is not None or isinstance(data, tuple) else None
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
    """Return what is reached after no step, in arrays that nobody else has."""
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
    """Return a key as JSON has it."""
    return np.asarray(jax.random.key_data(key) if is_key(key) else key).tolist()
