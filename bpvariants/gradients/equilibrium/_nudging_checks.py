"""Checks of the arguments of equilibrium propagation."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args, Literal

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_arrays,
    check_batch,
    check_floating,
    check_function,
    check_real,
    UsageError,
)
from bpvariants._dtypes import is_floating
from bpvariants._losses import check_loss_function
from bpvariants._settings import called, check_one_of, check_scalar
from bpvariants.gradients.equilibrium._map import check_map
from bpvariants.types import PyTree

Kind = Literal["primitive", "map"]


def check_settings(
    function: object, loss: object, kind: object, activation: object, readout: object
) -> None:
    check_one_of("kind", kind, get_args(Kind))
    form = "losses [*batch]" if kind == "primitive" else "h"
    check_function("function", function, f"(params, h, x) -> {form}")
    check_loss_function(loss)
    check_activation(activation)
    if readout is not None:
        check_function("readout", readout, "(params, h) -> y")


def check_activation(activation: object) -> None:
    if activation is not None:
        check_function("activation", activation, "(array) -> array")


def check_strength(name: str, value: Any) -> None:
    check_scalar(name, value, "such as 0.1")
    try:
        known = float(value)
    except jax.errors.ConcretizationTypeError:  # a traced array has no known value
        return
    if 0 < known < float("inf"):
        return
    raise ValueError(
        f"{name} must be a positive number, such as 0.1, got {value}. With {name} = 0, "
        "both phases are the same. For a phase in the negative direction too, give "
        "symmetric=True."
    )


def checked_state(params: PyTree, init: PyTree) -> PyTree:
    """Check params and init; return init as arrays whose dtypes are not weak."""
    check_floating("params", params)
    check_floating("init", init)
    check_real("init", init)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), init)


def checked_losses(
    losses_at: Callable[[PyTree, PyTree], jax.Array],
    function: Callable[[PyTree, PyTree, PyTree], PyTree],
    kind: Kind,
    params: PyTree,
    init: PyTree,
    x: PyTree,
) -> jax.ShapeDtypeStruct:
    """Check function and loss; return shape and dtype of the losses."""
    if kind == "map":
        check_map(function, params, init, x, "init")
    losses = jax.eval_shape(losses_at, params, init)
    for name, tree in {"init": init, "x": x}.items():
        check_batch(name, tree, losses.shape, "[*batch]")
    if kind == "primitive":
        remedy = "Sum Φ over the units of the state; or, for a function that returns "
        remedy += 'the next state, give kind="map".'
        phi = primitive_shape(function, params, init, x, remedy)
        if phi.shape != losses.shape:
            raise _not_primitive(f"= {losses.shape}", phi, remedy)
    return losses


def primitive_shape(
    function: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    init: PyTree,
    x: PyTree,
    remedy: str,
) -> jax.ShapeDtypeStruct:
    """Check that function returns one floating array; return its shape and dtype."""
    check_arrays("x", x)
    form = "function(params, h, x)"
    try:
        result = jax.eval_shape(partial(called, form, function), params, init, x)
    except TypeError as error:
        raise UsageError(f"{form} cannot be evaluated: {error}.") from error
    if not jax.tree_util.all_leaves([result]) or not is_floating(result):
        raise _not_primitive("", result, remedy)
    return result


def _not_primitive(batch: str, result: PyTree, remedy: str) -> UsageError:
    shapes = [(str(a.dtype), a.shape) for a in jax.tree.leaves(result)]
    return UsageError(
        "function must return Φ, one floating number for each example, "
        f"[*batch]{batch and ' '}{batch}, got {shapes}. {remedy}"
    )
