"""Checks of the arguments of `fit`."""

import os
import reprlib
from collections.abc import Callable
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


def check_key(sample: Callable | None, draws: bool, key: Any) -> None:
    """Check that a key is given if and only if `sample` or the rule needs one."""
    if sample is not None and not callable(sample):
        raise ValueError(
            f"sample must be a function (key, data) -> batch, got {sample!r}."
        )
    if not isinstance(draws, bool):
        raise ValueError(f"draws must be True or False, got {draws!r}.")
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
    if key is not None and sample is None and not draws:
        raise ValueError(
            "key was given without sample, so nothing draws from it. Give "
            "sample(key, data) to draw batches, or draws=True if the rule draws."
        )


def check_functions(**functions: tuple) -> None:
    for name, given in functions.items():
        for function in given:
            if not callable(function):
                is_path = isinstance(function, str | os.PathLike)
                remedy = "; for a file, give training.JsonLog(path)" * is_path
                raise ValueError(
                    f"{name} must be a function (step, metrics), got {function!r}"
                    f"{remedy}."
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
