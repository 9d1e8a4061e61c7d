"""Training of a sweep's runs side by side under `vmap`; a run that ends is frozen.

The runs are called lanes. The loop over training steps is inside `vmap`. Each loop
takes a maximum over the named axis of the `vmap`, to find out whether any run has not
ended. All loops therefore end at the same step, and the step number is not batched.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bpvariants._checks import check_like
from bpvariants._dtypes import is_floating
from bpvariants._settings import called, described
from bpvariants.types import PyTree

STATUS = ("finished", "stopped", "diverged")  # index 0 also means: not ended
RUNNING, STOPPED, DIVERGED = range(3)
AXIS = "runs of a sweep"


class Lanes(NamedTuple):
    """State and metrics of all runs of a block; leaves have a first axis of runs.

    Attributes:
      state: state after the last training step that did not diverge.
      metrics: metrics of the last training step, even if the step diverged.
      status: how the run ended, as an index into STATUS.
      steps: number of steps taken, including a last step that diverged.
    """

    state: PyTree
    metrics: dict[str, jax.Array]
    status: jax.Array
    steps: jax.Array


def look_at(make: Callable, floats: PyTree, keys: jax.Array) -> bool:
    """Trace make_run to check its result; return whether it includes `evaluate`."""
    seen = []

    def look(floats, key):
        state, _, evaluate = _made(make, floats, key)
        seen.append(evaluate is not None)
        return state

    one = jax.tree.map(lambda leaf: leaf[0], (floats, keys))
    try:
        jax.eval_shape(look, *one)
    except jax.errors.ConcretizationTypeError as error:
        error.add_note(
            "In training.sweep the floats of a config, and the key, are traced: compute"
            " with them by jax.numpy. A field that decides a branch must be an int, a "
            "bool or a str."
        )
        raise
    return seen[0]


def _made(make: Callable, floats: PyTree, key: jax.Array) -> tuple:
    """Call make_run and check its result; return (state, advance, evaluate or None)."""
    match make(floats, key):
        case (state, advance) if callable(advance):
            evaluate = None
        case (state, advance, evaluate) if callable(advance) and callable(evaluate):
            pass
        case other:
            raise ValueError(
                "make_run must return (state, advance), or (state, advance, evaluate), "
                "where advance(state, t) gives (state, metrics), and evaluate(state) "
                f"gives metrics; got {other!r}."
            )
    for path, leaf in jax.tree.leaves_with_path(state):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float)):
            raise ValueError(
                f"the state of make_run must be a pytree of arrays, but "
                f"state{jax.tree_util.keystr(path)} is {leaf!r}; let advance close over"
                " anything that is not an array."
            )
    # Drop weak types, because the carry of a loop must have the same type after each
    # step.
    strong = lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf))
    return jax.tree.map(strong, state), advance, evaluate


def start_lane(make: Callable, floats: PyTree, key: jax.Array) -> Lanes:
    state, advance, _ = _made(make, floats, key)
    step = lambda state: _stepped(advance, state, jnp.int32(0))[1]
    zeros = lambda spec: jnp.zeros(spec.shape, spec.dtype)
    metrics = jax.tree.map(zeros, jax.eval_shape(step, state))
    return Lanes(state, metrics, jnp.int32(RUNNING), jnp.int32(0))


def advance_lane(make, stop, diverged, floats, key, lane, first, last) -> Lanes:
    """Take steps `first` to `last` − 1 of a run; stop early if all runs have ended."""
    _, advance, _ = _made(make, floats, key)

    def body(carry):
        t, lane = carry
        return t + 1, _step(advance, stop, diverged, lane, t)

    def some_run(carry):
        t, lane = carry
        running = jnp.int32(lane.status == RUNNING)
        return (t < last) & (jax.lax.pmax(running, AXIS) == 1)

    return jax.lax.while_loop(some_run, body, (first, lane))[1]


def _step(advance, stop, diverged, lane: Lanes, t: jax.Array) -> Lanes:
    """Take one training step of a run; if the run has ended, do not change the run."""
    state, metrics = _stepped(advance, lane.state, t)
    bad = _any(jnp.isnan, state) | _any(lambda leaf: ~jnp.isfinite(leaf), metrics)
    if diverged is not None:
        bad |= _verdict("diverged", diverged, metrics)
    stops = jnp.bool(False) if stop is None else _verdict("stop", stop, metrics)
    status = jnp.where(stops, jnp.int32(STOPPED), jnp.int32(RUNNING))
    status = jnp.where(bad, jnp.int32(DIVERGED), status)
    running = lane.status == RUNNING
    choose = lambda yes, new, old: jax.tree.map(partial(jnp.where, yes), new, old)
    return Lanes(
        choose(running & ~bad, state, lane.state),
        choose(running, metrics, lane.metrics),
        choose(running, status, lane.status),
        lane.steps + jnp.int32(running),
    )


def _stepped(advance: Callable, state: PyTree, t: jax.Array) -> tuple[PyTree, dict]:
    """Call `advance` and check its result; return (state, metrics)."""
    match advance(state, t):
        case (new_state, dict(metrics)):
            check_like("the state that advance returns", new_state, "its state", state)
            return new_state, _checked("advance", metrics)
        case other:
            shapes = jax.tree.map(jnp.shape, other)
            raise ValueError(
                "advance must return (state, metrics) with a dict of metrics, such as "
                f"{{'loss': loss}}; got a result of shapes {shapes}."
            )


def _checked(name: str, metrics: dict) -> dict[str, jax.Array]:
    """Check that each metric is a real scalar; return the metrics as arrays."""
    for key, value in metrics.items():
        if not isinstance(key, str) or jax.tree.structure(value).num_leaves != 1:
            ok = False
        else:
            ok = jnp.shape(value) == () and not jnp.iscomplexobj(value)
        if not ok:
            raise ValueError(
                f"{name} must give metrics that are real scalars, with strings as names"
                f"; metric {key!r} is {described(value)}. Take its mean, or one entry "
                "of it."
            )
    return {
        key: jnp.asarray(value, jnp.result_type(value))
        for key, value in metrics.items()
    }


def evaluate_lane(make, floats, key, state) -> dict[str, jax.Array]:
    _, _, evaluate = _made(make, floats, key)
    metrics = evaluate(state)
    if not isinstance(metrics, dict):
        raise ValueError(f"evaluate must return a dict of metrics, got {metrics!r}.")
    return _checked("evaluate", metrics)


def _verdict(name: str, function: Callable, metrics: dict) -> jax.Array:
    try:
        verdict = called(f"{name}(metrics)", function, metrics)
    except KeyError as error:
        error.add_note(f"{name} is given the metrics {', '.join(metrics)}.")
        raise
    is_array = hasattr(verdict, "shape") and hasattr(verdict, "dtype")
    one = isinstance(verdict, bool) or (is_array and verdict.shape == ())
    if not one or not jnp.issubdtype(jnp.result_type(verdict), jnp.bool):
        raise ValueError(
            f"{name} must give one bool, such as lambda metrics: metrics['loss'] < 0.1;"
            f" got {described(verdict)}."
        )
    return jnp.asarray(verdict)


def _any(condition: Callable, tree: PyTree) -> jax.Array:
    verdict = jnp.bool(False)
    for leaf in jax.tree.leaves(tree):
        if is_floating(leaf):
            verdict |= jnp.any(condition(leaf))
    return verdict
