"""Hutchinson's estimate of the norm of a map's Jacobian J, as a penalty.

For a state of n elements and a vector v of n random signs v_i = ±1, the expectation of
the estimate ‖Jᵀ v‖² / n is

    E_v ‖Jᵀ v‖² / n = ‖J‖_F² / n
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import (
    check_batch_ndim,
    check_floating,
    check_real,
    check_single_key,
)
from bpvariants._examples import squared_norm
from bpvariants._jaxpr.maxima import with_stored_operands
from bpvariants.gradients.equilibrium._map import check_map, check_map_function
from bpvariants.types import PyTree


def jacobian_penalty(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    h: PyTree,
    x: PyTree,
    key: jax.Array,
    *,
    batch_ndim: int = 0,
) -> jax.Array:
    """Estimate ‖J‖_F² / n for the Jacobian J = ∂f/∂h at h, a state of n elements.

    ‖J‖_F is an upper bound of the spectral radius of J. A network whose loss contains
    the penalty is more likely to keep settling at a fixed point while it is trained. To
    set a hard limit on the norms of weight matrices, use
    `updates.project_spectral_norm` instead. The estimate is unbiased and takes one
    backward pass through one evaluation of f. The penalty can be differentiated with
    respect to params, h and x, which takes another backward pass. To keep this gradient
    from flowing through a fixed point h, pass `jax.lax.stop_gradient(h)`.

    Args:
      f: one evaluation (params, h, x) -> h of the map.
      params: parameters of f.
      h: state at which J is computed: real floating leaves [*batch, ...], with n
        elements for each example.
      x: constant input of f, leaves [*batch, ...].
      key: a `jax.random.key` for the signs v.
      batch_ndim: number of leading axes that are batch axes, as in :func:`fixed_point`.

    Returns:
      One estimate for each example, [*batch].

    Raises:
      ValueError: if f is not a function, key is not one random key, h is not real and
        floating, the result of f has other shapes or dtypes than h, or h has fewer than
        batch_ndim axes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bpvariants import gradients
      >>> f = lambda w, h, x: w * h + x
      >>> penalty = gradients.jacobian_penalty(
      ...     f, 0.5, jnp.zeros(3), jnp.ones(3), jax.random.key(0)
      ... )
      >>> penalty.item()  # w²
      0.25

    References:
      Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989,
      doi:10.1080/03610918908812806. Bai, Koltun & Kolter, "Stabilizing equilibrium
      models by Jacobian regularization", 2021, arXiv:2106.14342.
    """
    check_map_function(f)
    check_single_key(key)
    check_floating("h", h)
    check_real("h", h)
    h = jax.tree.map(jnp.asarray, h)
    check_batch_ndim("h", batch_ndim, h)
    check_map(f, params, h, x, "h")
    f = with_stored_operands(f, params, h, x)
    _, pull = jax.vjp(lambda h: f(params, h, x), h)
    leaves, structure = jax.tree.flatten(h)
    keys = jax.random.split(key, len(leaves))
    signs = [
        jax.random.rademacher(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    (pulled,) = pull(jax.tree.unflatten(structure, signs))
    size = sum(math.prod(leaf.shape[batch_ndim:]) for leaf in leaves)
    return squared_norm(pulled, batch_ndim) / max(size, 1)
