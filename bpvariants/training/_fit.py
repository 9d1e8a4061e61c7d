"""A training loop in chunks: a jitted scan over many steps in a Python loop of chunks.

Between chunks the Python loop logs, shows progress and can be interrupted, none of
which costs the steps anything.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bpvariants.types import PyTree

Log = Callable[[int, dict[str, Any]], None]


class FitResult(NamedTuple):
    """What :func:`fit` returns. With `runs`, arrays have an axis of runs first.

    Attributes:
      params: where the training ended.
      opt_state: the state of the update then.
      carry: the carry of a stateful rule then, else None.
      values: [steps] ([runs, steps]), the loss before each step.
      steps: how many steps were taken.
      interrupted: whether Ctrl-C, or the end of data, came before the last one.
      seconds: spent in steps, without compilation and logging.
      compile_seconds: spent in compilation, of chunks of all sizes.
      temp_bytes: that a chunk allocates, as XLA says; None if it does not.
    """

    params: PyTree
    opt_state: PyTree
    carry: PyTree
    values: np.ndarray
    steps: int
    interrupted: bool
    seconds: float
    compile_seconds: float
    temp_bytes: int | None


class _TrainState(NamedTuple):
    params: PyTree
    opt_state: PyTree
    carry: PyTree


def fit(
    rule: Callable[..., tuple[tuple[jax.Array, PyTree], PyTree]],
    update: optax.GradientTransformation | optax.MultiSteps,
    params: PyTree,
    data: PyTree | Iterable[tuple],
    *,
    steps: int,
    chunk: int = 100,
    sample: Callable[[jax.Array, PyTree], tuple] | None = None,
    key: jax.Array | None = None,
    carry: PyTree | None = None,
    runs: int | None = None,
    log: Log | None = None,
) -> FitResult:
    """Train params: gradients from a rule, an update by optax, in jitted chunks.

        (value, carry), grads = rule(params, [carry,] *batch)
        updates, state = update.update(grads, state, params, value=value)

    The update is given `value`, the loss, which those that need it read (iRprop⁺,
    `optax.polyak_sgd`) and others ignore. Ctrl-C ends the training, and what the last
    whole chunk reached is returned, as it is when the data come to an end.

    Args:
      rule: any function (params, *batch) -> ((value, aux), grads): a gradient rule, or
        `jax.value_and_grad(..., has_aux=True)`.
      update: what is done with the gradient, an optax transformation.
      params: where to begin.
      data: a tuple, the batch of every step (full batch); or anything, with `sample`;
        or an iterable of batches, which are tuples of equal shapes.
      steps: how many updates.
      chunk: after how many steps to log; that many are compiled into one program.
      sample: (key, data) -> batch, run on the device, to draw mini-batches.
      key: what `sample` draws with, a `jax.random.key`.
      carry: if given, it is the rule's second argument, and at the next step the aux
        that the rule returned takes its place: streams of windows.
      runs: if given, so many independent trainings run together under `vmap`: leaves of
        params, and of carry, have a first axis of that size; each has its own key.
      log: (step, metrics) -> None, called after each chunk. metrics has the `value` of
        the chunk's last step and the `params` then, both on the device.

    Returns:
      A :class:`FitResult`.

    Raises:
      ValueError: if an argument is out of its range, if sample and key do not come
        together, or if params or carry do not have the axis of runs.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from bpvariants import training
      >>> rule = jax.value_and_grad(lambda w, x: ((w - x) ** 2, None), has_aux=True)
      >>> result = training.fit(rule, optax.sgd(0.5), 0.0, (3.0,), steps=2)
      >>> result.params.item(), result.values.tolist()
      (3.0, [9.0, 0.0])
    """
    if isinstance(update, optax.MultiSteps):  # its own conversion would drop the value
        steps_of: Any = update
        update = optax.GradientTransformationExtraArgs(steps_of.init, steps_of.update)
    _check(update, steps, chunk, sample, key, runs, params=params, carry=carry)
    update = optax.with_extra_args_support(update)
    train = partial(_train, rule, update, sample, carry is not None)
    params = jax.tree.map(jnp.array, params)
    opt_state = (update.init if runs is None else jax.vmap(update.init))(params)
    state = _TrainState(params, opt_state, jax.tree.map(jnp.array, carry))
    if runs is not None:
        train = jax.vmap(train, in_axes=(0, None, None, 0))
    train, compiled = jax.jit(train), {}
    whole = sample is not None or isinstance(data, tuple)
    batches = None if whole else iter(data)
    reached = _Reached(state, [], 0, 0.0, 0.0)
    try:
        while reached.steps < steps:
            size = min(chunk, steps - reached.steps)
            stacked = None if batches is None else _stack(islice(batches, size))
            if batches is not None and stacked is None:
                break
            size = size if stacked is None else len(jax.tree.leaves(stacked)[0])
            inputs = (data if whole else None, stacked)
            keys = _step_keys(key, reached.steps, size, runs)
            reached = _run_chunk(train, compiled, reached, inputs, keys, size)
            if log is not None:
                metrics = {"value": reached.values[-1][..., -1]}
                log(reached.steps, metrics | {"params": reached.state.params})
    except KeyboardInterrupt:
        pass
    no_values = np.zeros((0,) if runs is None else (runs, 0))
    return FitResult(
        *reached.state,
        values=np.concatenate(reached.values or [no_values], axis=-1),
        steps=reached.steps,
        interrupted=reached.steps < steps,
        seconds=reached.seconds,
        compile_seconds=reached.compile_seconds,
        temp_bytes=_temp_bytes(list(compiled.values())),
    )


class _Reached(NamedTuple):
    """What is replaced as one, so that Ctrl-C never finds half of it."""

    state: _TrainState
    values: list[np.ndarray]
    steps: int
    seconds: float
    compile_seconds: float


def _train(rule, update, sample, stateful, state, inputs, indices, keys):
    """Take the steps of one chunk; return the state and the values, [steps]."""
    whole, stacked = inputs

    def body(state, per_step):
        batch, _, key = per_step
        if sample is not None:
            batch = sample(key, whole)
        elif whole is not None:
            batch = whole
        carries = (state.carry,) if stateful else ()
        (value, aux), grads = _call(rule, state.params, *carries, *batch)
        updates, opt_state = update.update(
            grads, state.opt_state, state.params, value=value
        )
        params = optax.apply_updates(state.params, updates)
        return _TrainState(params, opt_state, aux if stateful else None), value

    return jax.lax.scan(body, state, (stacked, indices, keys))


def _call(rule, *arguments):
    result = rule(*arguments)
    shapes = jax.tree.map(jnp.shape, result)
    match result:
        case ((value, aux), grads) if jnp.ndim(value) == 0:
            return (value, aux), grads
    raise ValueError(
        "rule must return ((value, aux), grads) with a scalar value, as gradient rules "
        "and jax.value_and_grad(..., has_aux=True) do; got a result of shapes "
        f"{shapes}."
    )


def _run_chunk(train, compiled, reached, inputs, keys, size):
    """Compile a chunk of a new size, run it, and take the times of both apart."""
    arguments = reached.state, inputs, jnp.arange(size), keys
    start = time.perf_counter()
    if size not in compiled:
        compiled[size] = train.lower(*arguments).compile()
    middle = time.perf_counter()
    state, values = jax.block_until_ready(compiled[size](*arguments))
    end = time.perf_counter()
    return _Reached(
        state,
        [*reached.values, np.asarray(values)],
        reached.steps + size,
        reached.seconds + end - middle,
        reached.compile_seconds + middle - start,
    )


def _step_keys(key, first, size, runs):
    """Return a key for each step, [size] ([runs, size]), however chunks are cut."""
    if key is None:
        return None
    steps = jnp.arange(first, first + size)
    of_run = lambda key: jax.vmap(partial(jax.random.fold_in, key))(steps)
    return (
        of_run(key) if runs is None else jax.vmap(of_run)(jax.random.split(key, runs))
    )


def _stack(batches: Iterable[tuple]) -> PyTree | None:
    batches = list(batches)
    for batch in batches:
        if not isinstance(batch, tuple):
            raise ValueError(
                "data must be a tuple, the batch of every step, or an iterable of "
                f"tuples, one for each step; got one of {type(batch).__name__}s."
            )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches) if batches else None


def _temp_bytes(compiled: list[Any]) -> int | None:
    analyses = [program.memory_analysis() for program in compiled]
    sizes = [analysis.temp_size_in_bytes for analysis in analyses if analysis]
    return max(sizes, default=None)


def _check(update, steps, chunk, sample, key, runs, **trees):
    if not isinstance(update, optax.GradientTransformation):
        raise ValueError(
            "update must be an optax.GradientTransformation, such as updates.rprop(0.1)"
            f"; got {update!r}."
        )
    for name, value in {"steps": steps, "chunk": chunk, "runs": runs}.items():
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    if (sample is None) != (key is None):
        given, missing = ("key", "sample") if sample is None else ("sample", "key")
        raise ValueError(
            f"{given} was given without {missing}: sample(key, data) draws the batches,"
            " from key=jax.random.key(seed)."
        )
    for name, tree in trees.items():
        for leaf in jax.tree.leaves(tree):
            if runs is not None and jnp.shape(leaf)[:1] != (runs,):
                raise ValueError(
                    f"{name} must have a first axis of runs={runs}, one entry for each "
                    f"training, as jax.vmap(init)(keys) makes it; got a leaf of shape "
                    f"{jnp.shape(leaf)}."
                )
