"""Helpers for cells with dense weights: affine maps, and gates with few residuals.

The derivative of a gate σ(z) or tanh(z) is a function of the gate's value. Therefore, a
step of a dense cell stores only its gates, its carry and its input for the backward
pass. The backward pass computes all other residuals from the stored values by
elementwise operations, without repeating a matrix product.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bpvariants._dtypes import cast_like
from bpvariants.cells._cell import (
    check_batch_shape,
    check_init,
    check_widths,
    params_of,
)
from bpvariants.types import PyTree

NAME = "bpvariants_gates"


def lean(function: Callable) -> Callable:
    """Apply jax.checkpoint to a step; store only the values that `kept` marks."""
    policy = jax.checkpoint_policies.save_only_these_names(NAME)
    return jax.checkpoint(function, policy=policy, prevent_cse=False)


kept = partial(checkpoint_name, name=NAME)


# JAX's own derivative of a gate uses a copy of the gate's value that `kept` has not
# marked. With that derivative, the backward pass would repeat the gate's matrix
# products.
@jax.custom_jvp
def sigmoid(z: jax.Array) -> jax.Array:
    """Return the logistic function σ(z), whose derivative is computed from σ(z)."""
    return kept(jax.nn.sigmoid(z))


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    gate = kept(jax.nn.sigmoid(*primals))
    return gate, tangents[0] * (gate * (1 - gate))


@jax.custom_jvp
def tanh(z: jax.Array) -> jax.Array:
    """Return the hyperbolic tangent, whose derivative is computed from its result."""
    return kept(jnp.tanh(z))


@tanh.defjvp
def _tanh_jvp(primals, tangents):
    h = kept(jnp.tanh(*primals))
    return h, tangents[0] * (1 - h * h)


def affine(x: jax.Array, matrix: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    product = x @ matrix
    if bias is None:
        return product
    return product + bias.reshape((1,) * (product.ndim - 1) + bias.shape)


def draw(
    key: jax.Array, inputs: int, units: int, gates: int, dtype: Any
) -> dict[str, jax.Array]:
    """Draw the parameters of a dense cell with d inputs, n units and k gates.

    The result is a dict of the weights "inputs" [d, kn] with variance 1/d, the weights
    "recurrent" [n, kn] with variance 1/n, and the zeros "bias" [kn].
    """
    check_init(key, dtype, inputs, units=units)
    keys = jax.random.split(key)
    weights = lambda key, rows: (
        jax.random.normal(key, (rows, gates * units)) / math.sqrt(max(rows, 1))
    )
    params = {"inputs": weights(keys[0], inputs), "recurrent": weights(keys[1], units)}
    params["bias"] = jnp.zeros((gates * units,))
    return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)


def check_step(
    cell: str, params: PyTree, carry: PyTree, x: Any, gates: int, parts: str = ""
) -> None:
    inputs, recurrent = params_of(cell, params, ("inputs", "recurrent", "bias"))[:2]
    units = jnp.shape(recurrent)[:1]
    if jnp.shape(recurrent) != (*units, *(gates * n for n in units)):
        raise ValueError(
            f"params must be what cells.{cell}.init(key, inputs, units) returns, with "
            f"params['recurrent'] of shape [n, {gates * units[0] if units else 0}] for "
            f"n units; got shape {jnp.shape(recurrent)}, as of another cell."
        )
    check_widths(cell, carry, x, inputs.shape[0], units[0], parts)


def zeros(cell: str, params: PyTree, batch_shape: tuple[int, ...]) -> jax.Array:
    """Return a carry of zeros, [*batch, n], for a cell of n units."""
    (recurrent,) = params_of(cell, params, ("recurrent",))
    batch = check_batch_shape(batch_shape)
    return jnp.zeros((*batch, recurrent.shape[0]), recurrent.dtype)


def same_dtypes(new: PyTree, carry: PyTree) -> PyTree:
    return cast_like(new, carry)
