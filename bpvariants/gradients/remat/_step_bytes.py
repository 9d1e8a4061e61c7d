"""Memory of one step in bytes: for its carry, its inputs, and its residuals."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bpvariants._carries import floating_leaves, replace_floating
from bpvariants._jaxpr.residuals import kept_shapes
from bpvariants.types import PyTree


class StepBytes(NamedTuple):
    """Memory for one step of a network and a whole batch, in bytes."""

    carry: int
    kept: int  # bytes that the step stores for its backward pass, including its carry
    inputs: int  # bytes of x, target, mask and reset


def measure(body: Callable, given: PyTree, carry: PyTree, x: PyTree) -> StepBytes:
    """Return the memory of one step in a scan of `body(given, carry, x)`.

    The bytes stored by one step are the difference between the bytes stored by scans of
    3 steps and of 2 steps. The scans are only traced, not run. The difference leaves
    out arrays that a scan stores only once, such as params.
    """
    two, three = (_kept(body, given, carry, x, length) for length in (2, 3))
    return StepBytes(_bytes(carry), three - two, _bytes(x))


def _kept(body, given, carry, x, length):
    """Return the bytes that a scan of `length` steps stores for its backward pass."""

    def kept(given, carry, xs):
        def scan(leaves):
            new_given, start = replace_floating((given, carry), leaves)
            return floating_leaves(jax.lax.scan(partial(body, new_given), start, xs))

        return jax.tree.leaves(jax.vjp(scan, floating_leaves((given, carry)))[1])

    stack = lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape), leaf.dtype)
    xs = jax.tree.map(stack, x)
    return _bytes(kept_shapes(kept, given, carry, xs))


def _bytes(tree: PyTree) -> int:
    size = lambda leaf: math.prod(jnp.shape(leaf)) * jnp.result_type(leaf).itemsize
    return sum(map(size, jax.tree.leaves(tree)))
