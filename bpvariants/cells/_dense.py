"""Helpers of the dense cells: gates, products, and what the backward pass keeps.

The derivative of a gate is made of the gate itself. So a step keeps its gates, its
carry and its input. The backward pass computes the rest from these, element by element,
and repeats no product.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bpvariants._dtypes import cast_like
from bpvariants.types import PyTree

NAME = "bpvariants_gates"


def lean(function: Callable) -> Callable:
    """Let a function keep for its derivative what is named by `kept`, and no more."""
    policy = jax.checkpoint_policies.save_only_these_names(NAME)
    return jax.checkpoint(function, policy=policy, prevent_cse=False)


kept = partial(checkpoint_name, name=NAME)


# Their derivatives, as JAX has them, are made of a result that has no name yet, so that
# it would be computed again, from the products.
@jax.custom_jvp
def sigmoid(z: jax.Array) -> jax.Array:
    """Return σ(z), whose derivative is made of what is kept."""
    return kept(jax.nn.sigmoid(z))


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    gate = kept(jax.nn.sigmoid(*primals))
    return gate, tangents[0] * (gate * (1 - gate))


@jax.custom_jvp
def tanh(z: jax.Array) -> jax.Array:
    """Return its hyperbolic tangent, whose derivative is made of what is kept."""
    return kept(jnp.tanh(z))


@tanh.defjvp
def _tanh_jvp(primals, tangents):
    h = kept(jnp.tanh(*primals))
    return h, tangents[0] * (1 - h * h)


def affine(x: jax.Array, matrix: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Return x W + b for any number of leading axes of x."""
    product = x @ matrix
    if bias is None:
        return product
    return product + bias.reshape((1,) * (product.ndim - 1) + bias.shape)


def draw(
    key: jax.Array, inputs: int, units: int, gates: int, dtype: Any
) -> dict[str, jax.Array]:
    """Draw inputs [d, kn] and recurrent [n, kn], of variances 1/d, 1/n; bias 0."""
    keys = jax.random.split(key)
    weights = lambda key, rows: (
        jax.random.normal(key, (rows, gates * units)) / math.sqrt(max(rows, 1))
    )
    params = {"inputs": weights(keys[0], inputs), "recurrent": weights(keys[1], units)}
    params["bias"] = jnp.zeros((gates * units,))
    return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)


def zeros(params: PyTree, batch_shape: tuple[int, ...]) -> jax.Array:
    """Return one state of zeros [*batch, n]."""
    recurrent = params["recurrent"]
    return jnp.zeros((*batch_shape, recurrent.shape[0]), recurrent.dtype)


def same_dtypes(new: PyTree, carry: PyTree) -> PyTree:
    """Return the new carry in the dtypes of the old, where weights are of others."""
    return cast_like(new, carry)
