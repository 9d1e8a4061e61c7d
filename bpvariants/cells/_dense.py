"""Helpers of the dense cells: gates, affine maps, and fewer residuals.

The derivative of a gate is a function of the gate itself. So a step keeps its gates,
its carry and its input. The backward pass computes the rest from these, element by
element, and repeats no matrix product.
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
    """Checkpoint a function; of its intermediate values keep only those from `kept`."""
    policy = jax.checkpoint_policies.save_only_these_names(NAME)
    return jax.checkpoint(function, policy=policy, prevent_cse=False)


kept = partial(checkpoint_name, name=NAME)


# JAX's own derivative rules use the result before `kept` names it. The backward pass
# would have to compute it again, with the matrix products.
@jax.custom_jvp
def sigmoid(z: jax.Array) -> jax.Array:
    """Return σ(z), with a derivative from the kept result."""
    return kept(jax.nn.sigmoid(z))


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    gate = kept(jax.nn.sigmoid(*primals))
    return gate, tangents[0] * (gate * (1 - gate))


@jax.custom_jvp
def tanh(z: jax.Array) -> jax.Array:
    """Return the hyperbolic tangent, with a derivative from the kept result."""
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
    """Draw inputs [d, kn] with variance 1/d, recurrent [n, kn] with 1/n, and bias 0."""
    keys = jax.random.split(key)
    weights = lambda key, rows: (
        jax.random.normal(key, (rows, gates * units)) / math.sqrt(max(rows, 1))
    )
    params = {"inputs": weights(keys[0], inputs), "recurrent": weights(keys[1], units)}
    params["bias"] = jnp.zeros((gates * units,))
    return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)


def zeros(params: PyTree, batch_shape: tuple[int, ...]) -> jax.Array:
    """Return a state of zeros, [*batch, n]."""
    recurrent = params["recurrent"]
    return jnp.zeros((*batch_shape, recurrent.shape[0]), recurrent.dtype)


def same_dtypes(new: PyTree, carry: PyTree) -> PyTree:
    """Cast the new carry to the dtypes of the old; weights may have other dtypes."""
    return cast_like(new, carry)
