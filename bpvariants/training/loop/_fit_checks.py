"""Checks of the arguments of `fit`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bpvariants._checks import check_count
from bpvariants.training.checkpoints._checkpoint import Checkpoint
from bpvariants.training.loop._chunk import POLICIES
from bpvariants.types import PyTree


def as_update(update: Any) -> optax.GradientTransformationExtraArgs:
    """Return an update that takes extra arguments, or raise."""
    if isinstance(update, optax.MultiSteps):  # its own conversion would drop `value`
        steps_of: Any = update
        update = optax.GradientTransformationExtraArgs(steps_of.init, steps_of.update)
    if not isinstance(update, optax.GradientTransformation):
        raise ValueError(
            "update must be an optax.GradientTransformation, such as updates.rprop(0.1)"
            f"; got {update!r}."
        )
    return optax.with_extra_args_support(update)


def check_counts(**counts: Any) -> None:
    """Check that each count that is given is a positive integer."""
    for name, value in counts.items():
        if value is not None:
            check_count(name, value)


def check_key(sample: Callable | None, draws: bool, key: jax.Array | None) -> None:
    """Check that a key is given if `sample` or the rule draws, and only then."""
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
    """Check that the functions to call after each chunk are callable."""
    for name, given in functions.items():
        for function in given:
            if not callable(function):
                raise ValueError(
                    f"{name} must be a function (step, metrics), got {function!r}."
                )


def check_not_traced(tree: PyTree) -> None:
    """Check that no leaf is traced, because a tracer is not on a device."""
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
    """Check `nonfinite`, `checkpoint` and `diagnose`."""
    if nonfinite not in POLICIES:
        raise ValueError(f"nonfinite must be one of {[*POLICIES]}, got {nonfinite!r}.")
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise ValueError(
            f"checkpoint must be a training.Checkpoint(directory), got {checkpoint!r}."
        )
    if diagnose is not None and nonfinite != "raise":
        raise ValueError(
            f"diagnose was given, but with nonfinite={nonfinite!r} nothing calls it; "
            "give nonfinite='raise', or leave diagnose out."
        )


def check_runs(runs: int | None, **trees: PyTree) -> None:
    """Check that all leaves have a first axis of runs."""
    for name, tree in trees.items():
        for leaf in jax.tree.leaves(tree):
            if runs is not None and jnp.shape(leaf)[:1] != (runs,):
                raise ValueError(
                    f"{name} must have a first axis of runs={runs}, one entry for each "
                    f"training, as jax.vmap(init)(keys) makes it; got a leaf of shape "
                    f"{jnp.shape(leaf)}."
                )
