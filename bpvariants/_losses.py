"""Losses of a gradient rule: computed within the step, weighted, averaged, checked."""

import math

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_batch,
    check_floating,
    check_lengths,
    check_like,
    first_step,
    step_shapes,
)
from bpvariants._dtypes import widen
from bpvariants.types import Loss, PyTree, Step


def as_arrays(*flags: jax.typing.ArrayLike | None) -> list[jax.Array | None]:
    """Convert weights and flags to arrays; None stays None."""
    return [None if flag is None else jnp.asarray(flag) for flag in flags]


def with_loss(step: Step, loss: Loss) -> Step:
    """Return a step with the inputs (x, target) and the losses [*batch] as outputs.

    The loss is then inside the scan, so no outputs [T, *batch, ...] are stacked.
    """

    def step_with_loss(params, carry, inputs):
        x, target = inputs
        carry, y = step(params, carry, x)
        losses = loss(y, target)
        check_losses(losses, target)
        return carry, widen(losses)

    return step_with_loss


def check_losses(losses: jax.Array, target: PyTree) -> None:
    """Check that a loss gave one number for each example, not one for each feature."""
    shape = jnp.shape(losses)
    for leaf in jax.tree.leaves(target):
        if jnp.shape(leaf)[: len(shape)] != shape:
            raise ValueError(
                "loss must give one number for each example, of the batch shape with "
                f"which targets begin; got shape {shape} for a target of shape "
                f"{jnp.shape(leaf)}. Sum or average it over the features."
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
    """Check the arguments of a gradient rule; return the shape of a step's losses."""
    check_floating("params", params)
    length = check_lengths(xs, targets=targets, weights=weights, mask=mask, reset=reset)
    losses = step_shapes(step_with_loss, params, carry, first_step((xs, targets)))
    check_batch("carry", carry, losses.shape, "*batch")
    if initial is not None:
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
    """Check the arguments of an online rule; return the shape of the losses."""
    check_floating("params", params)
    losses = step_shapes(step_with_loss, params, carry, (x, target))
    for name, tree in {"carry": carry, "x": x, "target": target}.items():
        check_batch(name, tree, losses.shape, "[*batch]")
    check_entries(losses.shape, "[*batch]", **flags)
    return losses


def check_entries(
    shape: tuple[int, ...], axes: str, **arrays: jax.Array | None
) -> None:
    """Check that weights and flags have one entry for each loss."""
    for name, array in arrays.items():
        if array is not None and jnp.shape(array) != shape:
            raise ValueError(
                f"{name} must have one entry for each loss, shape {axes} = {shape}; "
                f"got shape {jnp.shape(array)}."
            )


def effective_weights(
    weights: jax.Array | None, mask: jax.Array | None
) -> jax.Array | None:
    """Return the weight of each loss, 0 in padding; None if all weights are equal."""
    if weights is None or mask is None:
        return mask if weights is None else weights
    return jnp.where(mask, weights, jnp.zeros_like(weights))


def normalised(
    weights: jax.Array | None, shape: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array:
    """Return w / Σ w, in a shape that broadcasts to `shape`; 0 if Σ w = 0."""
    if weights is None:
        return jnp.asarray(1 / max(math.prod(shape), 1), dtype)
    weights = weights.astype(dtype)
    total = jnp.sum(weights)
    return jnp.where(total == 0, 0, weights / jnp.where(total == 0, 1, total))
