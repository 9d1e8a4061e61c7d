"""Scan whose remat policy says which arrays the backward pass recomputes."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bpvariants._checks import first_step
from bpvariants.gradients.remat._cost import policy_cost
from bpvariants.gradients.remat._policies import (
    Budget,
    Every,
    Offload,
    Remat,
    Slots,
)
from bpvariants.gradients.remat._slots_scan import scan_with_slots
from bpvariants.gradients.remat._step_bytes import measure
from bpvariants.types import PyTree

HOST = "pinned_host"
NAME = "bpvariants_offloaded_carry"


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
    again = _computed_again
    lengths = policy.lengths if isinstance(policy, Every) else ()
    if isinstance(policy, Offload):
        _check_host_memory()
        again, lengths = _offloaded, (policy.every,)
    return _scan_stretches(partial(body, given), carry, xs, length, lengths, again)


def _scan_stretches(
    body: Callable,
    carry: PyTree,
    xs: PyTree,
    length: int,
    lengths: Sequence[int],
    again: Callable,
) -> tuple[PyTree, PyTree]:
    """Scan stretches of k = lengths[0] steps, then the remaining steps.

    The scan stores the first carry of each stretch for the backward pass, which
    recomputes all other carries and the residuals. `again` makes a function that is
    recomputed from its arguments.
    """
    inside = [k for k in lengths if k < length]
    if not inside:
        return jax.lax.scan(body, carry, xs)
    k, *rest = inside
    if k == 1:
        return jax.lax.scan(again(body), carry, xs)
    whole = length - length % k
    fold = lambda leaf: leaf[:whole].reshape(whole // k, k, *leaf.shape[1:])
    stretch = lambda h, xs: _scan_stretches(body, h, xs, k, rest, again)
    folded = jax.tree.map(fold, xs)
    carry, ys = jax.lax.scan(again(stretch), carry, folded)
    ys = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), ys)
    if whole == length:
        return carry, ys
    left = jax.tree.map(lambda leaf: leaf[whole:], xs)
    carry, last = _scan_stretches(body, carry, left, length - whole, rest, again)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def _computed_again(function: Callable) -> Callable:
    # Inside a scan, XLA does not undo the recomputation by merging equal expressions.
    return jax.checkpoint(function, prevent_cse=False)


def _offloaded(function: Callable) -> Callable:
    """Recompute a function from a carry in the host's memory.

    `jax.checkpoint` keeps arguments on the device, whatever its policy says. So the
    carry is named inside the function: the function then uses only the named copy, and
    JAX does not store the argument.
    """
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[NAME],
        offload_src="device",
        offload_dst=HOST,
    )

    def from_named(h, x):
        return function(jax.tree.map(_named, h), x)

    return jax.checkpoint(from_named, prevent_cse=False, policy=policy)


def _named(leaf: jax.Array) -> jax.Array:
    return checkpoint_name(leaf, NAME)


def _check_host_memory() -> None:
    device = getattr(jax.config, "jax_default_device", None) or jax.devices()[0]
    if isinstance(device, str):
        device = jax.devices(device)[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if HOST not in kinds:
        raise ValueError(
            f"remat.offload needs a device with the memory {HOST!r}, but {device} has "
            f"only {', '.join(map(repr, kinds)) or 'none'}. Use remat.every(k) or "
            "remat.slots(m), which store carries on the device."
        )
