"""Losses as outputs of a step, weights of losses, and checks of a rule's arguments."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    as_pair,
    called,
    check_arrays,
    check_batch,
    check_flags,
    check_floating,
    check_function,
    check_lengths,
    check_like,
    check_new_carry,
    check_real,
    check_step_function,
    first_step,
    STEP,
    step_shapes,
    TIME_MAJOR,
    UsageError,
)
from bpvariants._dtypes import is_floating, widen
from bpvariants._examples import select
from bpvariants._sequences import copy_methods
from bpvariants.types import Loss, PyTree, Step


class Counted(NamedTuple):
    """Target, with flags that mark the losses whose weight is not 0."""

    target: PyTree  # target of the loss, leaves [*batch, ...]
    counts: jax.Array  # [*batch] bool: False where the weight of the loss is 0
    real: jax.Array | None  # [*batch] bool: False in padding; None without a mask


class Padded(NamedTuple):
    """Target, with flags that mark the losses outside of padding."""

    target: PyTree  # target of the loss, leaves [*batch, ...]
    counts: jax.Array  # [*batch] bool: False in padding


class WrongEntries(ValueError):
    """Error raised if weights, mask or reset do not have the shape of the losses."""

    def __init__(self, message: str, shape: tuple[int, ...]):
        super().__init__(message)
        self.shape = shape


def as_arrays(**flags: Any) -> list[jax.Array | None]:
    """Convert weights, masks and resets to arrays, and check that they are real.

    A value of None stays None.
    """
    return [
        None if flag is None else _as_array(name, flag) for name, flag in flags.items()
    ]


def _as_array(name: str, flag: Any) -> jax.Array:
    try:
        array = jnp.asarray(flag)
    except (TypeError, ValueError) as error:
        only_last = ", such as jnp.zeros((T, *batch)).at[-1].set(1) for the last alone"
        raise ValueError(
            f"{name} must be an array with one entry for each loss"
            + (only_last if name == "weights" else "")
            + f"; got {flag!r}."
        ) from error
    check_real(name, array, "give how much each loss counts as real numbers.")
    return array


def with_loss(step: Step, loss: Loss, *, may_count: bool = False) -> Step:
    """Return a step that takes (x, target) as input and outputs losses [*batch].

    A scan over the returned step stores the losses [T, *batch], but not the network's
    outputs [T, *batch, ...]. A target may be :class:`Counted` or :class:`Padded`.

    Args:
      step: one time step of the network.
      loss: one loss for each example.
      may_count: whether losses may be integers or bool, for a rule that takes no
        derivative. Integer and bool losses are cast to a floating dtype.
    """
    check_step_function(step)
    check_loss_function(loss)

    def step_with_loss(params, carry, inputs):
        x, target = inputs
        new, y = as_pair(called(STEP, step, params, carry, x))
        check_new_carry(new, carry)
        return new, losses_of(loss, y, target, may_count=may_count)

    one_step = lambda y, target: losses_of(loss, y, target, may_count=may_count)
    copy_methods(step, step_with_loss, one_step)
    return step_with_loss


def check_loss_function(loss: object) -> None:
    check_function("loss", loss, "(y, target) -> losses [*batch]")


def counted(
    target: PyTree, weights: jax.Array | None, mask: jax.Array | None = None
) -> PyTree:
    """Return a target with flags that mark the losses that count.

    With weights, a loss counts if its weight is not 0. With a mask alone, a loss counts
    outside of padding. With weights and a mask, the result has separate flags for both.
    With neither, the target is returned unchanged.
    """
    if weights is not None:
        mask = None if mask is None else mask.astype(bool)
        return Counted(target, weights.astype(bool), mask)
    return target if mask is None else Padded(target, mask.astype(bool))


def seen(target: PyTree) -> PyTree:
    """Return the target to pass to the loss function.

    A target that is not finite, such as a missing label, is replaced by zeros if the
    weight of its loss is 0.
    """
    if isinstance(target, Padded):
        return target.target
    if not isinstance(target, Counted):
        return target
    target, counts, _ = target
    known = counts | _are_finite(target, counts)
    return select(known, target, jax.tree.map(jnp.zeros_like, target))


def losses_of(
    loss: Callable[..., Any], y: PyTree, target: PyTree, *, may_count: bool = False
) -> jax.Array:
    """Return the losses [*batch] of outputs `y`, in float32 or wider.

    A loss with weight 0 is replaced by 0, with zero derivatives, if the loss or its
    target is not finite, because 0 · NaN would be NaN. Other losses with weight 0 keep
    their values, because the derivative of the mean loss with respect to the weights
    depends on them. A loss in padding is 0, with zero derivatives. For `may_count` see
    :func:`with_loss`.
    """

    def run(y):
        losses = called("loss(y, target)", loss, y, shown)
        check_losses(losses, shown, may_count)
        losses = widen(losses)
        if is_floating(losses):
            return losses
        wide = losses.dtype.itemsize > 4
        return losses.astype(jnp.float64 if wide else jnp.float32)

    shown = seen(target)
    if not isinstance(target, Counted | Padded):
        return run(y)
    held = jax.tree.map(jax.lax.stop_gradient, y)
    if isinstance(target, Padded):
        real = target.counts
    else:
        finite = jnp.isfinite(run(held)) & _are_finite(target.target, target.counts)
        real = target.counts | finite
        real = real if target.real is None else real & target.real
    losses = run(jax.tree.map(lambda a, b: _chosen(real, a, b), y, held))
    return jnp.where(real, losses, jnp.zeros_like(losses))


def _are_finite(tree: PyTree, like: jax.Array) -> jax.Array:
    """Return a bool array of the shape of `like`: whether each example is finite."""
    finite = jnp.ones_like(like)
    for leaf in filter(is_floating, jax.tree.leaves(tree)):
        axes = tuple(range(like.ndim, jnp.ndim(leaf)))
        finite = finite & jnp.all(jnp.isfinite(leaf), axes)
    return finite


def _chosen(flags: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a where flags are True, else b; return a if it lacks the batch axes."""
    fits = jnp.shape(a)[: flags.ndim] == flags.shape
    return select(flags, a, b) if fits else a


def check_losses(losses: Any, target: PyTree, may_count: bool = False) -> None:
    """Check that a loss function returned one real number for each example."""
    if isinstance(losses, tuple | list | dict) or losses is None:
        raise UsageError(
            "loss must return one array of losses [*batch], got a "
            f"{type(losses).__name__}."
        )
    shape, dtype = jnp.shape(losses), jnp.result_type(losses)
    for leaf in jax.tree.leaves(target):
        if jnp.shape(leaf)[: len(shape)] != shape:
            raise UsageError(
                "loss must give one number for each example, of the batch shape with "
                f"which targets begin; got shape {shape} for a target of shape "
                f"{jnp.shape(leaf)}. Sum or average it over the features. {TIME_MAJOR}"
            )
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise UsageError(
            f"loss must give real numbers, got {dtype}; take the real part, or jnp.abs."
        )
    if not may_count and not is_floating(losses):
        raise UsageError(
            f"loss must give floating numbers, got {dtype}, which has no derivative. "
            "Cast what it computes with, .astype(jnp.float32); or, for a loss that "
            "counts, use gradients.pes."
        )


def check_sequence(
    step_with_loss: Step,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    targets: PyTree,
    weights: jax.Array | None,
    mask: jax.Array | None,
    reset: jax.Array | None,
    initial: PyTree | None,
) -> jax.ShapeDtypeStruct:
    """Check a gradient rule's arguments; return shape and dtype of a step's losses."""
    check_floating("params", params)
    length = check_lengths(xs, targets=targets, weights=weights, mask=mask, reset=reset)
    losses = step_shapes(step_with_loss, params, carry, first_step((xs, targets)))
    check_batch("carry", carry, losses.shape, "*batch")
    if initial is not None:
        check_arrays("initial", initial)
        check_like("initial", initial, "carry", carry)
    shape = (length, *losses.shape)
    for name, tree in {"xs": xs, "targets": targets}.items():
        check_batch(name, tree, shape, "[T, *batch]")
    check_entries(shape, "[T, *batch]", weights=weights, mask=mask, reset=reset)
    return losses


def check_step(
    step_with_loss: Step,
    params: PyTree,
    carry: PyTree,
    x: PyTree,
    target: PyTree,
    **flags: jax.Array | None,
) -> jax.ShapeDtypeStruct:
    """Check an online rule's arguments; return shape and dtype of the losses."""
    check_floating("params", params)
    losses = step_shapes(step_with_loss, params, carry, (x, target))
    for name, tree in {"carry": carry, "x": x, "target": target}.items():
        check_batch(name, tree, losses.shape, "[*batch]")
    check_entries(losses.shape, "[*batch]", **flags)
    return losses


def check_entries(
    shape: tuple[int, ...], axes: str, **arrays: jax.Array | None
) -> None:
    for name, array in arrays.items():
        if array is not None and jnp.shape(array) != shape:
            raise WrongEntries(
                f"{name} must have one entry for each loss, shape {axes} = {shape}; "
                f"got shape {jnp.shape(array)}.",
                shape,
            )


def effective_weights(
    weights: jax.Array | None, mask: jax.Array | None
) -> jax.Array | None:
    """Return the weight of each loss, 0 in padding; None if all weights are 1."""
    if weights is None or mask is None:
        return mask if weights is None else weights
    check_flags("mask", mask, carry=())
    return jnp.where(mask, weights, jnp.zeros_like(weights))


def normalised(
    weights: jax.Array | None, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    """Return w / Σ w for weights w, or 0 if Σ w = 0.

    If `weights` is None, return the scalar 1 / N, where N is the number of losses in an
    array of the given `shape`.
    """
    if weights is None:
        return jnp.asarray(1 / max(math.prod(shape), 1), dtype)
    weights = weights.astype(dtype)
    total = jnp.sum(weights)
    return jnp.where(total == 0, 0, weights / jnp.where(total == 0, 1, total))
