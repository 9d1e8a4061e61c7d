"""Clamping: replace the outputs of a state by given values."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bpvariants._checks import UsageError
from bpvariants._settings import called
from bpvariants.types import PyTree

Clamp = Callable[[PyTree, PyTree], PyTree]


def clamp_at(outputs: Callable[[PyTree], PyTree], init: PyTree) -> Clamp:
    """Return the function (h, y) -> h that replaces the outputs of h by y.

    The function `outputs` must be a matrix S that selects elements of the state; Sᵀ y
    then has each output at its place. Probes 1, 2, 3, … are sent through S Sᵀ to check
    this. The shapes of h are those of init.

    Raises:
      UsageError: if outputs does not select different elements of the state.
    """
    with jax.ensure_compile_time_eval():
        zero = jax.tree.map(jnp.zeros_like, init)
        y, pull = jax.vjp(lambda h: called("outputs(h)", outputs, h), zero)
        probe = jax.tree.map(_probe, y)
        (placed,) = pull(probe)
        (chosen,) = pull(jax.tree.map(jnp.ones_like, y))
        count = lambda tree, condition: sum(
            int(jnp.sum(condition(leaf))) for leaf in jax.tree.leaves(tree)
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(y))
        back = jax.tree.map(jnp.not_equal, outputs(placed), probe)
        ones = count(chosen, lambda leaf: leaf == 1)
        rest = count(chosen, lambda leaf: leaf != 0) - ones
        wrong = rest or ones != size or count(back, lambda leaf: leaf)
        wrong = wrong or count(y, lambda leaf: leaf != 0)
    if wrong or not size:
        raise UsageError(
            "outputs must select different elements of the state h, such as "
            'lambda h: h["out"] or lambda h: h[..., -10:], because coupled learning '
            "sets these elements. For outputs that are computed from the state, use "
            "gradients.equilibrium_propagation with readout=."
        )
    chosen = jax.tree.map(lambda leaf: leaf == 1, chosen)

    def clamp(h, y):
        (placed,) = pull(y)
        return jax.tree.map(jnp.where, chosen, placed, h)

    return clamp


def _probe(leaf: jax.Array) -> jax.Array:
    return jnp.arange(1, leaf.size + 1).astype(leaf.dtype).reshape(leaf.shape)
