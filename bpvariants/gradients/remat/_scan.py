"""Scan whose remat policy says which arrays the backward pass recomputes."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from bpvariants._checks import first_step
from bpvariants.gradients.remat._cost import policy_cost
from bpvariants.gradients.remat._policies import Budget, Every, Remat, Slots
from bpvariants.gradients.remat._slots_scan import scan_with_slots
from bpvariants.gradients.remat._step_bytes import measure
from bpvariants.types import PyTree


def remat_scan(
    body: Callable, given: PyTree, carry: PyTree, xs: PyTree, remat: Remat
) -> tuple[PyTree, PyTree]:
    """Scan `body(given, carry, x)` over xs with the remat policy `remat`."""
    length = jax.tree.leaves(xs)[0].shape[0]
    size = None
    if isinstance(remat, Budget):
        size = measure(body, given, carry, first_step(xs))
    policy = policy_cost(length, remat, size).policy
    if isinstance(policy, Slots) and length > 1:
        return scan_with_slots(body, given, carry, xs, policy.number)
    lengths = policy.lengths if isinstance(policy, Every) else ()
    return _scan_stretches(partial(body, given), carry, xs, length, lengths)


def _scan_stretches(
    body: Callable, carry: PyTree, xs: PyTree, length: int, lengths: Sequence[int]
) -> tuple[PyTree, PyTree]:
    """Scan stretches of k = lengths[0] steps, then the remaining steps.

    The scan stores the first carry of each stretch for the backward pass, which
    recomputes all other carries and the residuals.
    """
    inside = [k for k in lengths if k < length]
    if not inside:
        return jax.lax.scan(body, carry, xs)
    k, *rest = inside
    if k == 1:
        return jax.lax.scan(_computed_again(body), carry, xs)
    whole = length - length % k
    fold = lambda leaf: leaf[:whole].reshape(whole // k, k, *leaf.shape[1:])
    stretch = lambda h, xs: _scan_stretches(body, h, xs, k, rest)
    folded = jax.tree.map(fold, xs)
    carry, ys = jax.lax.scan(_computed_again(stretch), carry, folded)
    ys = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), ys)
    if whole == length:
        return carry, ys
    left = jax.tree.map(lambda leaf: leaf[whole:], xs)
    carry, last = _scan_stretches(body, carry, left, length - whole, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def _computed_again(function: Callable) -> Callable:
    # Inside a scan, XLA does not undo the recomputation by merging equal expressions.
    return jax.checkpoint(function, prevent_cse=False)
