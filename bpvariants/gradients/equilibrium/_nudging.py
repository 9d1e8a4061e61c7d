"""Differences between the states of two phases, and the gradient that they give."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._examples import norm, select
from bpvariants.gradients.equilibrium._nudging_checks import Kind
from bpvariants.types import PyTree


def derivative(phi: Callable[[PyTree, PyTree, PyTree], jax.Array]) -> Callable:
    """Return the function (params, h, x) -> ∂Φ/∂h."""
    return jax.grad(lambda params, h, x: jnp.sum(phi(params, h, x)), argnums=1)


def contrast(
    function: Callable[[PyTree, PyTree, PyTree], PyTree],
    kind: Kind,
    params: PyTree,
    x: PyTree,
    shares: jax.Array,
    h: PyTree,
    start: PyTree,
    nudged: PyTree,
) -> PyTree:
    """Return −(∂Φ/∂θ(nudged) − ∂Φ/∂θ(start)), weighted by the examples' shares.

    Of a map f, which has no known Φ, the difference is (∂f/∂θ at h)ᵀ (nudged − start).
    """
    if kind == "primitive":
        at = lambda params, h: function(params, h, x).astype(shares.dtype)
        phi = lambda params, h: jnp.sum(shares * at(params, h))
        return jax.grad(lambda params: phi(params, start) - phi(params, nudged))(params)

    def weighed(leaf):
        trailing = (1,) * (leaf.ndim - shares.ndim)
        return leaf * shares.astype(leaf.dtype).reshape(shares.shape + trailing)

    _, pull = jax.vjp(lambda params: function(params, h, x), params)
    return pull(jax.tree.map(weighed, minus(start, nudged)))[0]


def minus(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, a, b)


def ratio(a: PyTree, b: PyTree, batch_ndim: int) -> jax.Array:
    """Return ‖a‖ / ‖b‖ of each example, [*batch]; 0 where a is 0."""
    a, b = norm(a, batch_ndim), norm(b, batch_ndim)
    return jnp.where(a == 0, 0, a / jnp.where(a == 0, 1, b))


def pushed(new: PyTree, beta: float | jax.Array, force: PyTree) -> PyTree:
    """Return new − β · force."""
    push = lambda new, force: new - jnp.asarray(beta, new.dtype) * force
    return jax.tree.map(push, new, force)


def finite(
    shares: jax.Array, x: PyTree, states: PyTree, batch_ndim: int
) -> tuple[PyTree, PyTree]:
    """Replace x and states by zeros in examples of weight 0 that are not finite."""
    if not shares.ndim and batch_ndim:  # all weights are 1
        return x, states
    found = (shares != 0) | jnp.isfinite(norm(states, batch_ndim))
    keep = lambda tree: select(found, tree, jax.tree.map(jnp.zeros_like, tree))
    return keep(x), keep(states)
