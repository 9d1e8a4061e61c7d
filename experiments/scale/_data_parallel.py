"""A gradient rule for a batch that is split over several devices.

    L = Σ_d W_d L_d / Σ_d W_d,    ∂L/∂θ = Σ_d W_d ∂L_d/∂θ / Σ_d W_d

The weighted mean loss of the batch is L. On device d, the weighted mean loss is L_d,
and the sum of the loss weights is W_d. Plain `jit` returns the same gradient as the
function `data_parallel`. However, plain `jit` sums the gradient over the devices in
every time step, because the carry of a scan must be complete after each step. The
function `data_parallel` sums the gradient only once per sequence.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bpvariants.types import GradientRule


def data_parallel(rule: GradientRule, mesh: jax.sharding.Mesh) -> GradientRule:
    """Return a rule in which each device processes its own part of the batch.

    The params may be sharded over mesh axes other than "data", because XLA handles
    these axes. Call the returned rule under `jit`. Gradient rules with a key are not
    allowed, because they would draw the same random numbers on every device.

    Args:
      rule: any gradient rule that takes no key.
      mesh: a mesh of devices with an axis "data". The first batch axis of carry, xs,
        targets and all other arguments except params is split over this axis. The batch
        size must be a multiple of the number of devices along this axis.

    Returns:
      A gradient rule with the same results as `rule`, up to rounding.
    """
    first, second = jax.P("data"), jax.P(None, "data")

    def local(params, carry, xs, targets, weights, mask, reset, initial):
        (value, carry), grads = rule(
            params, carry, xs, targets, weights, mask, reset, initial
        )
        weight = _total(weights, mask, value.dtype)
        scaled = jax.tree.map(
            lambda leaf: weight.astype(leaf.dtype) * leaf, (value, grads)
        )
        (value, grads), total = jax.lax.psum((scaled, weight), "data")
        total = jnp.where(total == 0, 1, total)
        value, grads = jax.tree.map(
            lambda leaf: leaf / total.astype(leaf.dtype), (value, grads)
        )
        return (value, carry), grads

    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(jax.P(), first, *5 * [second], first),
        out_specs=((jax.P(), first), jax.P()),
        axis_names={"data"},
        check_vma=False,  # with True, gradients would be summed in every time step
    )

    def over_devices(
        params, carry, xs, targets, weights=None, mask=None, reset=None, initial=None
    ):
        _check(carry, mesh.shape["data"])
        return sharded(params, carry, xs, targets, weights, mask, reset, initial)

    return over_devices


def _total(weights, mask, dtype: Any) -> jax.Array:
    """Return the sum of the loss weights on this device.

    Without weights and mask, return 1, because the batch is split into equal parts.
    """
    if weights is None and mask is None:
        return jnp.ones((), dtype)
    weights = jnp.ones((), dtype) if weights is None else weights
    mask = True if mask is None else mask
    return jnp.sum(jnp.where(mask, weights, 0), dtype=dtype)


def _check(carry, devices: int) -> None:
    for leaf in jax.tree.leaves(carry):
        if leaf.shape[0] % devices:
            raise ValueError(
                f"the first axis of the batch must be a multiple of the {devices} "
                f"devices on the axis 'data' of the mesh, got {leaf.shape[0]}."
            )
