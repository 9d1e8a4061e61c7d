"""Asymmetry of a map's Jacobian J = ∂f/∂h, measured by products with random signs.

For vectors v of random signs ±1, E_v ‖(J − Jᵀ) v‖² = ‖J − Jᵀ‖_F² and
E_v ‖J v‖² = ‖J‖_F², so a few products with J and with Jᵀ estimate

    asymmetry = ‖J − Jᵀ‖_F / ‖J‖_F,

which is 0 for a symmetric matrix, at most 2, and √2 on average for independent entries.
"""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._examples import squared_norm
from bpvariants._tables import short
from bpvariants.types import PyTree

PROBES = 4  # random vectors for each example


def asymmetry_of(f: Callable[[PyTree], PyTree], h: PyTree) -> jax.Array:
    """Return ‖J − Jᵀ‖_F / ‖J‖_F of the Jacobian of f at h; 0 if J is 0.

    The examples of a batch do not affect each other, so one J has one block for each
    example, and the norms are taken over all blocks. The signs v always come from the
    same key, so that repeated calls return the same number.
    """
    _, push = jax.linearize(f, h)
    pull = jax.linear_transpose(push, h)
    leaves, structure = jax.tree.flatten(h)

    def probe(key):
        keys = jax.random.split(key, len(leaves))
        signs = [
            jax.random.rademacher(key, leaf.shape, leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        v = jax.tree.unflatten(structure, signs)
        pushed, (pulled,) = push(v), pull(v)
        apart = jax.tree.map(jnp.subtract, pushed, pulled)
        return squared_norm(apart, 0), squared_norm(pushed, 0)

    apart, whole = jax.lax.map(probe, jax.random.split(jax.random.key(0), PROBES))
    apart, whole = jnp.sum(apart), jnp.sum(whole)
    return jnp.where(whole > 0, jnp.sqrt(apart / jnp.where(whole > 0, whole, 1)), 0)


def warn_if_asymmetric(asymmetry: jax.Array, h: PyTree) -> None:
    """Warn if J is not symmetric to rounding; say nothing while JAX traces."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(h))
    try:
        measured = float(asymmetry)
    except jax.errors.ConcretizationTypeError:  # a traced array has no known value
        return
    if measured > eps**0.5:
        warnings.warn(
            "f has a Jacobian J that is not symmetric: ‖J − Jᵀ‖ / ‖J‖ is about "
            f"{short(measured)}. The result of equilibrium_propagation is then "
            "not a gradient. Make the weights symmetric, such as (W + Wᵀ) / 2, or use "
            "gradients.recurrent_backprop, which is exact for all weights.",
            stacklevel=4,
        )
