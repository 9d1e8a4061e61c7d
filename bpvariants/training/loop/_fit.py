"""Training in chunks: a Python loop over jitted scans, each of many training steps.

A chunk is the training steps of one jitted scan. Between chunks, the Python loop calls
logs, writes checkpoints and can be interrupted. Within a chunk, no Python code runs.
"""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants._checks import check_arrays, ONLY_ARRAYS
from bpvariants._dtypes import is_key
from bpvariants._settings import check_flag
from bpvariants.training._placement import mesh_of, placed
from bpvariants.training.checkpoints._checkpoint import Checkpoint
from bpvariants.training.checkpoints._leaves import describe
from bpvariants.training.checkpoints._store import Store
from bpvariants.training.loop._chunk import NonFinitePolicy, Recipe
from bpvariants.training.loop._fit_checks import (
    as_logs,
    as_update,
    check_counts,
    check_key,
    check_not_traced,
    check_rule,
    check_runs,
    check_settings,
    warn_of_rprop,
)
from bpvariants.training.loop._loop import Log, Plan, Stop, Training
from bpvariants.training.loop._nonfinite import Diagnose
from bpvariants.training.loop._progress import Progress
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
    draws: bool | None = None,
    key: jax.Array | None = None,
    carry: PyTree | None = None,
    runs: int | None = None,
    log: Log | Sequence[Log] | None = None,
    stop: Stop | None = None,
    nonfinite: NonFinitePolicy | None = None,
    diagnose: Diagnose | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> FitResult:
    """Train params by a gradient rule and an optax update, in jitted chunks of steps.

        (value, carry), grads = rule(params, [carry,] *batch)
        updates, state = update.update(grads, state, params, value=value)

    The loss is passed to the update as `value`. Some updates need the loss, such as
    iRprop⁺ and `optax.polyak_sgd`; all other updates ignore it.

    After Ctrl-C, or at the end of the data, `fit` finishes the running chunk of
    training steps and returns the result so far. If `checkpoint` is given, `fit` also
    writes a checkpoint. With `checkpoint`, SIGTERM, which schedulers send before they
    kill a process, also makes `fit` write a checkpoint before the process ends. If
    several processes train together, all of them stop after the same chunk, even if
    only one process received a signal.

    If the training state takes at most 64 MiB, it is kept before each chunk of steps,
    and checked for NaN after the chunk. If NaN is found, the chunk is repeated from the
    kept state, to find the first step with NaN. A larger state is overwritten
    (donated), and checked after each step. With `nonfinite="ignore"`, every training
    state is overwritten, and losses and params are not checked for NaN.

    The compiled functions are kept as long as `rule`, `update` and `sample` exist. If
    `fit` is called again with the same objects, and with arguments of the same shapes
    and dtypes, it compiles nothing. As with `jax.jit`, other values that these
    functions read, such as global variables, keep the values that they had during the
    first call. After a change of such a value, make the rule again, or call
    `jax.clear_caches()`. For many short trainings at once, use the argument `runs` or
    :func:`sweep`.

    To recompute activations in the backward pass, give a setting to the rule, as in
    `gradients.bptt(step, loss, remat=gradients.remat.budget(…))`; `fit` has no such
    setting. To train on several devices, give sharded arrays. These arrays keep their
    shardings, and arrays made from params, such as the update's state, get the
    shardings of params.

    Args:
      rule: any function (params, *batch) -> ((value, aux), grads): a gradient rule, or
        `jax.value_and_grad(..., has_aux=True)`.
      update: an optax transformation that turns gradients into changes of params.
      params: the initial params; `fit` works on a copy.
      data: one of

        - a tuple: the batch of every step (full batch);
        - any pytree, if `sample` is given: the data from which `sample` draws
          mini-batches;
        - an iterable of batches, one for each step. Each batch is a tuple, and all
          batches have the same shapes. A resumed training reads and skips the batches
          that it has used;
        - a function from a step's index to an iterable of the batches of that step and
          all later steps. With a function, a resumed training does not read earlier
          batches.
      steps: number of training steps, each with one update of the params.
      chunk: number of training steps in one jitted scan; logs are called after each
        scan.
      sample: function (key, data) -> batch that draws a mini-batch; it runs on the
        device.
      draws: whether the rule is called with the argument `key`, because it draws random
        numbers. Default: if `key` is given, and the rule accepts it. The key differs at
        each step, and differs from the key of `sample`.
      key: a `jax.random.key`, from which the keys of `sample` and of the rule are made
        for each step. The keys of a step do not depend on `chunk`.
      carry: the carry before the first training step. Give `carry` if the batches are
        successive windows of a sequence, or if `rule` is an online rule. If `carry` is
        given, the rule gets a carry as its second argument, and the aux that the rule
        returns is the carry for the next training step.
      runs: number of independent trainings that run together under `vmap`. If `runs` is
        given, the leaves of params and carry must have a first axis of this size. Each
        run has its own key.
      log: a function (step, metrics) -> None, or a sequence of such functions, called
        after each chunk. The metrics are a dict: the loss `value` of the chunk's last
        step, the losses `values` of all steps so far, the `params`, and the number of
        `skipped` steps. Two more metrics are read from the state of the update, if the
        state contains them: the `learning_rate` of `optax.inject_hyperparams`, and the
        "min", "median" and "max" of the `step_sizes` of Rprop. `params` are on the
        device; use them before the log returns, because the next chunk overwrites them.
        :class:`JsonLog` writes metrics to a file.
      stop: function (step, metrics) -> bool, called after each chunk; True ends the
        training. The result of `stop` should depend only on the arguments of `stop`.
        Otherwise, a resumed training may end at a different step.
      nonfinite: what to do if the loss of a training step, or the params after the
        step, contain NaN or infinity. "raise" (default) raises an error. "stop"
        (default with `runs`) undoes the step and ends the training; with `runs`, only
        the affected run ends. "skip" undoes the step and continues with the next batch.
        "ignore" checks nothing and continues with NaN.
      diagnose: function that is called before `nonfinite="raise"` raises an error. The
        function gets the same arguments as the rule, except the key. The result of the
        function is an attribute of the error; if the result has a method `table`, the
        error's message includes the table. See :func:`diagnosis`.
      checkpoint: a :class:`Checkpoint`: the folder of checkpoints, how often to write
        them, and whether to resume.
      progress: whether to write the number of steps, the loss, the speed and the time
        left to stderr. A terminal shows one line, which changes; a file gets a line at
        most every 10 seconds.

    Returns:
      A :class:`FitResult`; `table()` returns its losses as text, and `plot(axes)` draws
      them.

    Raises:
      NonFiniteError: a FloatingPointError, if `nonfinite="raise"` and a step gives NaN
        or infinity. The error names the step and the affected arrays, and contains the
        batch and the params before the step.
      ValueError: if an argument is out of its range; if a key is given but not needed,
        or needed but not given; if params or carry do not have the axis of runs; or if
        a checkpoint is from a different training.

    Warns:
      UserWarning: if an update of the Rprop family gets mini-batches from `sample`.
        Rprop needs full batches.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> result = training.fit(rule, optax.sgd(0.5), 0.0, (3.0,), steps=2)
      >>> result.params.item(), result.values.tolist()
      (3.0, [9.0, 0.0])
    """
    check_rule(rule)
    owners = rule, update, sample
    update = as_update(update)
    check_counts(steps, chunk, runs)
    check_key(sample, draws, key)
    nonfinite = nonfinite or ("raise" if runs is None else "stop")
    logs = as_logs(log, stop)
    check_settings(nonfinite, checkpoint, diagnose)
    check_flag("progress", progress)
    check_runs(runs, params=params, carry=carry)
    recipe = Recipe(rule, update, sample, carry is not None, draws, nonfinite, owners)
    whole = data if sample is not None or isinstance(data, tuple) else None
    check_arrays("params", params, ONLY_ARRAYS)
    if not jax.tree.leaves(params):
        raise ValueError("params has no arrays to train; give a pytree of arrays.")
    check_arrays("carry", carry)
    check_arrays("data", whole)
    reached = _start(update, params, carry, whole, runs)
    if sample is not None:
        warn_of_rprop(reached.state.opt_state)
    shown = Progress(steps) if progress else None
    plan = Plan(steps, chunk, runs, key, logs, stop, diagnose, shown)
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
    """Return the state before the first step, in new arrays that may be donated."""
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
    return np.asarray(jax.random.key_data(key) if is_key(key) else key).tolist()
