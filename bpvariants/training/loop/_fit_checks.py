"""Checks of the arguments of `fit`."""

import os
import reprlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import check_count
from bpvariants._dtypes import is_key
from bpvariants._settings import described
from bpvariants.training.checkpoints._checkpoint import Checkpoint
from bpvariants.training.loop._chunk import POLICIES
from bpvariants.types import OnlineRule, PyTree
from bpvariants.updates import GRpropState, ScaleByRpropState

# States of updates that need full batches. `optax.rprop` is Rprop, too.
RPROP = (ScaleByRpropState, GRpropState, optax.ScaleByRpropState)


def as_update(update: Any) -> optax.GradientTransformationExtraArgs:
    """Check that `update` is an optax update, and make it accept extra arguments."""
    if isinstance(update, optax.MultiSteps):  # MultiSteps alone would drop `value`
        steps_of: Any = update
        update = optax.GradientTransformationExtraArgs(steps_of.init, steps_of.update)
    if not isinstance(update, optax.GradientTransformation):
        raise ValueError(
            "update must be an optax.GradientTransformation, such as updates.rprop(0.1)"
            f"; got {update!r}."
        )
    return optax.with_extra_args_support(update)


def check_counts(steps: Any, chunk: Any, runs: Any) -> None:
    check_count("steps", steps)
    check_count("chunk", chunk)
    if runs is not None:
        check_count("runs", runs)


def check_rule(rule: Any) -> None:
    over = isinstance(rule, OnlineRule)
    if over or not callable(rule):
        raise ValueError(
            "rule must be a function (params, *batch) -> ((value, aux), grads), got "
            f"{described(rule)}."
            + " Give gradients.over_sequence(rule) for an online rule."
            * over
        )


def check_key(sample: Callable | None, draws: bool | None, key: Any) -> None:
    """Check that a key is given if `sample` or `draws` needs one, and is not unused.

    If `draws` is None, the first chunk of steps shows whether the rule takes the key.
    """
    if sample is not None and not callable(sample):
        raise ValueError(
            f"sample must be a function (key, data) -> batch, got {sample!r}."
        )
    if not isinstance(draws, bool | None):
        raise ValueError(f"draws must be True, False or None, got {draws!r}.")
    raw = getattr(key, "dtype", None) == jnp.uint32 and jnp.ndim(key) == 1
    if key is not None and not raw and not (is_key(key) and jnp.ndim(key) == 0):
        raise ValueError(
            "key must be a single key, such as jax.random.key(seed), got "
            f"{reprlib.repr(key)}"
            + (f" of shape {jnp.shape(key)}." if is_key(key) else ".")
        )
    if key is None and sample is not None:
        raise ValueError(
            "sample was given without key: sample(key, data) needs a key to draw "
            "batches; give key=jax.random.key(seed)."
        )
    if key is None and draws:
        raise ValueError(
            "draws=True was given without key: the rule needs a key to draw; give "
            "key=jax.random.key(seed)."
        )
    if key is not None and sample is None and draws is False:
        raise ValueError(
            "key was given, but with draws=False and without sample nothing draws from "
            "it. Leave draws out, or give sample(key, data) to draw batches."
        )


def as_logs(log: Any, stop: Any) -> tuple:
    """Return the logs as a tuple; check that all of them, and `stop`, are functions."""
    one = isinstance(log, str) or not isinstance(log, Sequence)
    logs = tuple(each for each in ((log,) if one else log) if each is not None)
    stops = () if stop is None else (stop,)
    for name, given in {"log": logs, "stop": stops}.items():
        for function in given:
            if not callable(function):
                is_path = isinstance(function, str | os.PathLike)
                remedy = "; for a file, give training.JsonLog(path)" * is_path
                raise ValueError(
                    f"{name} must be a function (step, metrics), got {function!r}"
                    f"{remedy}."
                )
    return logs


def warn_of_rprop(opt_state: PyTree) -> None:
    """Warn if the state of the update is that of Rprop, which needs full batches.

    Rprop is found by the classes of its states, anywhere in the state of the update.
    There is no warning if `optax.MultiSteps` accumulates the gradients of mini-batches.
    """
    kinds = (*RPROP, optax.MultiStepsState)
    is_found = lambda node: isinstance(node, kinds)
    found = {type(node) for node in jax.tree.leaves(opt_state, is_leaf=is_found)}
    if found.intersection(RPROP) and optax.MultiStepsState not in found:
        warnings.warn(
            "sample= draws mini-batches, but the update is of the Rprop family, which "
            "needs full batches: the signs of mini-batch gradients change at random, so"
            " the step sizes shrink. Give all examples as the batch, data=(…,) without "
            "sample; or use updates.probabilistic_rprop; or accumulate gradients by "
            "optax.MultiSteps.",
            stacklevel=3,
        )


def check_not_traced(tree: PyTree) -> None:
    """Check that no leaf is a tracer, because `fit` cannot run within `jit`."""
    try:
        for leaf in jax.tree.leaves(tree):
            _ = isinstance(leaf, jax.Array) and leaf.sharding
    except (AttributeError, jax.errors.ConcretizationTypeError):
        raise ValueError(
            "fit was called with arrays that jax.jit, vmap or grad traces, but fit is "
            "a Python loop: call it outside of them. To train several runs together "
            "give runs=; to vary hyper-parameters use training.sweep."
        ) from None


def check_settings(nonfinite: Any, checkpoint: Any, diagnose: Any) -> None:
    if nonfinite not in POLICIES:
        raise ValueError(f"nonfinite must be one of {[*POLICIES]}, got {nonfinite!r}.")
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise ValueError(
            f"checkpoint must be a training.Checkpoint(directory), got {checkpoint!r}."
        )
    if diagnose is not None and not callable(diagnose):
        raise ValueError(
            "diagnose must be a function (params, *batch), such as "
            f"training.diagnosis(step, loss), got {diagnose!r}."
        )
    if diagnose is not None and nonfinite != "raise":
        raise ValueError(
            f"diagnose was given, but with nonfinite={nonfinite!r} nothing calls it; "
            "give nonfinite='raise', or leave diagnose out."
        )


def check_runs(runs: int | None, **trees: PyTree) -> None:
    """Check that all leaves have a first axis of length `runs`, if `runs` is given."""
    for name, tree in trees.items():
        for leaf in jax.tree.leaves(tree):
            if runs is not None and jnp.shape(leaf)[:1] != (runs,):
                raise ValueError(
                    f"{name} must have a first axis of runs={runs}, one entry for each "
                    f"training, as jax.vmap(init)(keys) makes it; got a leaf of shape "
                    f"{jnp.shape(leaf)}."
                )
